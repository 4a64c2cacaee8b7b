"""Several people: overlap, figures of the lead."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from preceptor.label.figures import print_status
from tests.datasets import squares
from tests.label.serving import Client, Running, running

SIZE = (40, 30)
SPLITS = {"train": 30, "val": 10}


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[y : y + h, x : x + w] = True
    return mask


def answer_all(client: Client, mask: np.ndarray | None) -> list[int]:
    """Answer every open image of a person with one mask."""
    seen = []
    while images := client.queue():
        for image in images:
            if mask is not None:
                assert client.stroke(image, mask).status == 200
            assert client.answer(image, "nothing" if mask is None else "marked").status == 200
            seen.append(image)
    return seen


def test_without_overlap_everybody_has_other_images(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS, size=SIZE)
    with running(manifest) as server:
        ann = server.client("ann")
        first = ann.queue()[:5]
        for image in first:
            ann.answer(image, "cannot_judge")
        assert len(answer_all(server.client("bo"), None)) == 40 - 24  # ann has 24 in her hands
        assert len(answer_all(ann, None)) == 24 - 5
        assert ann.get("/api/state").json["totals"]["done"] == 40


def test_images_of_the_overlap_are_marked_by_several(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS, size=SIZE)
    with running(manifest, overlap=2, overlap_share=0.4) as server:
        counts: Counter[int] = Counter()
        for name in ("ann", "bo", "cy"):
            counts.update(answer_all(server.client(name), box(3, 3, 5, 5)))
        shared = {
            row["id"]
            for row in server.labeling.database.reading.execute(
                "SELECT id FROM images WHERE overlap = 1"
            )
        }
        assert 4 <= len(shared) <= 28
        assert counts == {image: 1 + (image in shared) for image in range(1, 41)}
    # More people are asked for: what is answered counts.
    with running(manifest, overlap=3, overlap_share=0.4) as server:
        assert set(answer_all(server.client("dee"), None)) == shared


def test_one_person_may_write_the_name_in_any_case(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    with running(manifest) as server:

        def person(name: str) -> int:
            number = server.client(name).get("/api/state").json["person"]["id"]
            assert isinstance(number, int)
            return number

        first = person("\u00d8rsted \u00e9")
        assert person("\u00f8rsted \u00e9") == first
        assert person("\u00d8RSTED e\u0301") == first  # an accent of its own
        assert person("Orsted e") != first


def test_chosen_labels_stay_when_the_manifest_changes(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    with running(manifest, labels=("other", "unsure")) as server:
        assert server.client("ann").get("/api/state").json["labels"] == ["other", "unsure"]
    table = pd.read_csv(manifest, keep_default_na=False)
    table.loc[0, "label"] = "new"
    table.to_csv(manifest, index=False)
    with running(manifest) as server:
        assert server.client("ann").get("/api/state").json["labels"] == ["other", "unsure"]


def test_the_agreement_of_two_people_is_by_class(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 2}, size=SIZE)
    classes = ("iris", "pupil")
    with running(manifest, overlap=2, overlap_share=1.0, classes=classes) as server:
        ann, bo = server.client("ann"), server.client("bo", tab="other")
        first, second = ann.queue()
        for image, his in ((first, "pupil"), (second, "iris")):
            for one, name in ((ann, "iris"), (bo, his)):
                assert one.stroke(image, box(10, 5, 10, 10), **{"class": name}).status == 200
                assert one.answer(image).status == 200
        (pair,) = ann.get("/api/lead").json["pairs"]
        assert (pair["images"], pair["dice"], pair["iou"]) == (2, 0.5, 0.5)  # of 0 and 1


def test_a_skipped_image_is_left_to_others(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    with running(manifest) as server:
        ann, bo = server.client("ann"), server.client("bo")
        first, second, third = ann.queue()
        ann.answer(first, "skipped")
        assert ann.queue() == [second, third]
        assert ann.queue("&skipped=1") == [first]
        assert bo.queue() == [first]
        bo.answer(first, "nothing")
        assert ann.get("/api/state").json["totals"] == {
            "images": 3,
            "done": 1,
            "mine_done": 0,
            "mine_open": 2,
        }


def test_the_lead_sees_agreement_and_times(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 4}, size=SIZE)
    with running(manifest, overlap=2, overlap_share=1.0) as server:
        ann, bo = server.client("ann"), server.client("bo")
        images = ann.queue()
        for client, masks in ((ann, (box(0, 0, 10, 10), None)), (bo, (box(5, 0, 10, 10), None))):
            for image, mask in zip(images[:2], masks, strict=True):
                if mask is not None:
                    client.stroke(image, mask)
                client.answer(image, "nothing" if mask is None else "marked", seconds=90)
        found = ann.get("/api/lead").json
        (pair,) = found["pairs"]
        assert (pair["a"], pair["b"], pair["images"], pair["empty"]) == ("ann", "bo", 2, 1)
        assert pair["dice"] == 0.5
        assert pair["iou"] == pytest.approx(1 / 3, abs=1e-4)
        assert found["people"][0]["minutes"] == 1.5
        assert sum(one["images"] for one in found["sources"]) == 4
        assert sum(one["done"] for one in found["sources"]) == 2
        assert {one["minutes"] for one in found["sources"] if one["done"]} == {1.5}
        # A mark that changes afterwards changes the agreement.
        assert bo.stroke(images[0], box(0, 0, 5, 10)).status == 200
        assert ann.get("/api/lead").json["pairs"][0]["dice"] == pytest.approx(0.8)
        _shows_in_the_terminal(server)


def _shows_in_the_terminal(server: Running) -> None:
    console = Console(record=True, width=100)
    print_status(server.labeling.database.reading, server.labeling.source.root, console)
    text = console.export_text()
    assert "2 of 4 images done, 3 strokes" in text
    assert "0.80" in text
    assert "bo" in text


def test_the_order_by_source_and_a_place_that_moves(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 12}, size=SIZE)
    table = pd.read_csv(manifest)
    table["source"] = ["b", "a", "c"] * 4
    table.to_csv(manifest, index=False)
    with running(manifest, order="source") as server:
        ann = server.client("ann")
        answered = ann.queue()[0]
        rows = server.labeling.database.reading.execute("SELECT id, source FROM images")
        sources = dict(map(tuple, rows))
        assert [sources[one] for one in ann.queue()] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
        ann.answer(answered, "nothing")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    with running(tmp_path / "moved" / manifest.name) as server:
        ann = server.client("ann")
        assert len(ann.queue()) == 11
        assert ann.get(f"/api/images/{answered}/whole").status == 200
