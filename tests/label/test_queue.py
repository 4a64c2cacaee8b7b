"""The queue: whom images are handed out to, in which order, and the state."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from preceptor.errors import InputError
from preceptor.label.app import prepare
from preceptor.label.queue import count_reserved
from preceptor.label.sources import find_source
from tests.commands import here
from tests.datasets import squares
from tests.label.serving import Client, Running, blob, box, running

SIZE = (40, 30)


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
    manifest = squares(tmp_path / "data", splits={"train": 30, "val": 10}, size=SIZE)
    with running(manifest) as server:
        ann = server.client("ann")
        for image in ann.queue()[:5]:
            ann.answer(image, "cannot_judge")
        assert len(answer_all(server.client("bo"), None)) == 40 - 24  # ann has 24 in her hands
        assert len(answer_all(ann, None)) == 24 - 5
        assert ann.get("/api/state").json["totals"]["done"] == 40


def test_images_of_the_overlap_are_marked_by_several(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 30, "val": 10}, size=SIZE)
    with running(manifest, overlap=2) as server:
        counts: Counter[int] = Counter()
        for name in ("ann", "bo", "cy"):
            counts.update(answer_all(server.client(name), box(3, 3, 5, 5)))
        assert counts == dict.fromkeys(range(1, 41), 2)
    # More people are asked for: what is answered counts.
    with running(manifest, overlap=3) as server:
        assert sorted(answer_all(server.client("dee"), None)) == list(range(1, 41))


def test_an_image_of_two_people_is_handed_out_once(manifest: Path) -> None:
    with running(manifest) as server:
        ann, bo = server.client("ann"), server.client("bo")
        mine = [one["id"] for one in ann.get("/api/queue?count=6").json["images"]]
        assert sorted(mine + bo.queue()) == list(range(1, 13))
        bo.answer(mine[0], "nothing")
        assert ann.get("/api/state").json["totals"] == {
            "images": 12,
            "done": 1,
            "mine_done": 0,
            "mine_open": 11,  # bo has 6 of them at present
            "examined": 1,
        }


def test_a_closed_tab_gives_back_what_is_not_begun(manifest: Path) -> None:
    with running(manifest) as server:
        ann, bo = server.client("ann"), server.client("bo", tab="other")
        first, second, *_ = ann.queue()

        def turn(image: int, tab: str, **more: object) -> int:
            """Open or close an image of ann in a tab; the number that bo cannot have then."""
            assert ann.post(f"/api/images/{image}/open", {"tab": tab, **more}).status == 200
            number = bo.get("/api/state").json["person"]["id"]
            labeling = server.labeling
            return count_reserved(labeling.database.reading, number, labeling.claims)

        turn(first, "tab-1")
        assert ann.stroke(first, blob(*SIZE)).status == 200
        assert turn(second, "tab-1") == 12
        assert turn(second, "tab-1", close=True) == 1
        assert len(bo.queue()) == 11


def test_an_image_that_is_looked_at_again_takes_no_second_place(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 2}, size=SIZE)
    with running(manifest, overlap=2) as server:
        ann, bo = server.client("ann"), server.client("bo")
        for image in (1, 2):
            assert ann.answer(image, "nothing").status == 200
        assert ann.post("/api/images/1/open", {"tab": ann.tab}).status == 200
        assert sorted(bo.queue()) == [1, 2]
        # With marks, the answer does not count, and the image is hers again.
        assert ann.stroke(2, blob(*SIZE)).status == 200
        claims, me = server.labeling.claims, ann.get("/api/state").json["person"]["id"]
        claims.drop(2, me)
        assert ann.post("/api/images/2/open", {"tab": ann.tab}).status == 200
        assert me in claims._until[2]


def test_the_state_is_printed(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 4}, size=SIZE)
    with running(manifest, overlap=2) as server:
        for name in ("ann", "bo"):
            client = server.client(name)
            marked, empty = client.queue()[:2]
            client.stroke(marked, box(0, 0, 10, 10))
            client.answer(marked, seconds=90)
            client.answer(empty, "nothing", seconds=90)
    text = here("label", "status", manifest.with_name("manifest.label.sqlite")).out
    assert "2 of 4 images done, 2 strokes" in text
    for word in ("ann", "bo", "1.50"):
        assert word in text


def test_a_place_that_moves(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 12}, size=SIZE)
    with running(manifest) as server:
        ann = server.client("ann")
        images = ann.queue()
        assert images != sorted(images)
        version = ann.image(images[0])["version"]
        ann.answer(images[0], "nothing")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    with running(tmp_path / "moved" / manifest.name) as server:
        ann = server.client("ann")
        assert len(ann.queue()) == 11
        assert ann.image(images[0])["version"] == version
        assert ann.get(f"/api/images/{images[0]}/whole").status == 200


def test_only_images_of_chosen_splits_are_asked_for(manifest: Path, database: Path) -> None:
    with running(manifest, splits=("train",)) as one:
        ann = one.client("ann")
        shown = ann.queue()
        assert len(shown) == 8
        assert {ann.image(image)["split"] for image in shown} == {"train"}
        totals = ann.get("/api/state").json["totals"]
        assert (totals["images"], totals["done"], totals["mine_open"]) == (8, 0, 8)
    with running(manifest, splits=()) as one:  # and of the others later
        assert len(one.client("ann").queue()) == 12
    with pytest.raises(InputError, match="no image of the split 'test'; known: train, val"):
        prepare(database, find_source(manifest), {"splits": ("test",)})


def test_one_person_may_write_the_name_in_any_case(lasting: Running) -> None:
    def person(name: str) -> int:
        number = lasting.client(name).get("/api/state").json["person"]["id"]
        assert isinstance(number, int)
        return number

    first = person("\u00d8rsted \u00e9")
    assert person("\u00f8rsted \u00e9") == first
    assert person("\u00d8RSTED e\u0301") == first  # an accent of its own
    assert person("Orsted e") != first
