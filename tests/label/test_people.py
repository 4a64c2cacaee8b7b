"""Several people: overlap, honeypots, figures of the lead."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from preceptor.errors import ProblemsError
from preceptor.label.status import print_status
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


@pytest.fixture
def pots(tmp_path: Path) -> Path:
    """Manifest of four images, of which two have a map: the square 10, 5 to 20, 15."""
    folder = tmp_path / "pots"
    folder.mkdir()
    rows = []
    for at in range(4):
        Image.new("RGB", SIZE, (40 * at, 90, 90)).save(folder / f"pot-{at}.png")
        row = {"path": f"pot-{at}.png", "label": "marked", "split": "train", "annotated": 1}
        if at < 2:
            Image.fromarray(box(10, 5, 10, 10).astype(np.uint8) * 255).save(folder / f"m{at}.png")
            row["saliency"] = f"m{at}.png"
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "pots.csv", index=False)
    return folder / "pots.csv"


def test_everybody_marks_the_honeypots(tmp_path: Path, pots: Path) -> None:
    manifest = squares(tmp_path / "data", splits=SPLITS, size=SIZE)
    with running(manifest, honeypots=pots) as server:
        ann, bo = server.client("ann"), server.client("bo")
        hers = answer_all(ann, box(10, 5, 10, 10))
        his = answer_all(bo, None)
        assert len(hers) == 44
        assert len(his) == 4
        people = {one["name"]: one for one in ann.get("/api/lead").json["people"]}
        assert people["ann"]["honeypots"] == people["bo"]["honeypots"] == 4
        assert (people["ann"]["honeypots_found"], people["ann"]["honeypots_iou"]) == (2, 0.5)
        assert (people["bo"]["honeypots_found"], people["bo"]["honeypots_iou"]) == (2, 0.5)
        assert ann.get("/api/lead").json["images"] == 40
        # What a page gets does not tell them apart.
        shown = [ann.image(image) for image in (his[0], hers[0])]
        assert shown[0].keys() == shown[1].keys()
        assert not any("honeypot" in key for key in shown[0])
    # They stay, and are no images of the manifest.
    with running(manifest) as server:
        assert len(answer_all(server.client("cy"), None)) == 4


def test_honeypots_that_are_gone_from_their_list_are_withdrawn(tmp_path: Path, pots: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    with running(manifest, honeypots=pots) as server:
        ann = server.client("ann")
        assert len(ann.queue()) == 3 + 4
        for image in ann.queue():
            assert ann.answer(image, "nothing").status == 200
    table = pd.read_csv(pots, keep_default_na=False)
    table.iloc[1:3].to_csv(pots, index=False)
    with running(manifest, honeypots=pots) as server:
        assert len(server.client("bo").queue()) == 2
        people = {one["name"]: one for one in server.client("ann").get("/api/lead").json["people"]}
        assert (people["ann"]["honeypots"], people["ann"]["done"]) == (2, 7)
    with running(manifest) as server:  # without the option, they are those of the last start
        assert len(server.client("bo").queue()) == 2


def test_a_honeypot_among_images_without_labels_shows_none(tmp_path: Path, pots: Path) -> None:
    images = squares(tmp_path / "data", splits={"train": 3}, size=SIZE).parent / "images"
    with running(images, tmp_path / "label.sqlite", honeypots=pots) as server:
        ann = server.client("ann")
        shown = [ann.image(image) for image in ann.queue()]
        assert {one["name"][:4] for one in shown} > {"pot-"}
        assert {one["label"] for one in shown} == {""}


def test_a_honeypot_with_a_wrong_map_is_refused(tmp_path: Path, pots: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    Image.new("L", (7, 7), 255).save(pots.parent / "m0.png")
    (pots.parent / "pot-3.png").write_bytes(b"no image")
    with pytest.raises(ProblemsError) as caught, running(manifest, honeypots=pots):
        pass
    assert "its map is 7 × 7, the image 40 × 30" in str(caught.value)
    assert "pot-3.png" in str(caught.value)
    assert not list(tmp_path.glob("data/*.sqlite"))


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


def test_orders_by_a_model_leave_evaluation_images_at_random(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 20, "val": 20}, size=SIZE)
    with running(manifest, order="gain") as server:
        database = server.labeling.database

        def prioritize(connection: object) -> None:
            connection.execute("UPDATE images SET priority = id WHERE id % 2 = 0")  # type: ignore[attr-defined]

        database.write(prioritize)
        rows = {row["id"]: row for row in database.reading.execute("SELECT * FROM images")}
        seen = answer_all(server.client("ann"), None)
        assert sorted(seen) == sorted(rows)
        train = [one for one in seen if rows[one]["split"] == "train"]
        by_priority = sorted((one for one in train if one % 2 == 0), reverse=True)
        others = sorted((one for one in train if one % 2), key=lambda one: rows[one]["position"])
        assert train == by_priority + others
        val = [one for one in seen if rows[one]["split"] == "val"]
        assert val == sorted(val, key=lambda one: rows[one]["position"])
        # Both kinds are mixed evenly.
        for at in range(0, 40, 2):
            assert sum(rows[one]["split"] == "val" for one in seen[: at + 2]) == at // 2 + 1


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


def test_a_person_who_joins_late_gets_the_honeypots_among_the_others(tmp_path: Path) -> None:
    many = squares(tmp_path / "known", splits={"train": 20}, size=SIZE, seed=1)
    manifest = squares(tmp_path / "data", splits={"train": 150}, size=SIZE)
    for order in ("random", "source", "gain"):
        database = tmp_path / f"{order}.sqlite"
        with running(manifest, database, honeypots=many, order=order) as server:
            reading = server.labeling.database.reading
            pots = {row[0] for row in reading.execute("SELECT id FROM images WHERE honeypot = 1")}
            assert len(pots) == 20
            shown = {}
            for name, images in (("ann", 110), ("bo", 999)):
                person = server.client(name)
                shown[name] = ""
                while len(shown[name]) < images and (line := person.queue("&count=1")):
                    for image in line[: images - len(shown[name])]:
                        shown[name] += "H" if image in pots else "."
                        assert person.answer(image, "nothing", next=False).status == 200
        assert shown["bo"].count("H") == 20
        assert "HHHHHH" not in shown["bo"], (order, shown)
        middle = len(shown["bo"]) // 2
        assert 5 <= shown["bo"][:middle].count("H") <= 15, (order, shown)
        assert 6 <= shown["ann"].count("H") <= 20, (order, shown)


def test_a_known_map_that_is_replaced_is_read_again(tmp_path: Path, pots: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    with running(manifest, honeypots=pots) as server:
        ann = server.client("ann")
        answer_all(ann, box(10, 5, 10, 10))
        people = ann.get("/api/lead").json["people"]
        assert (people[0]["honeypots_found"], people[0]["honeypots_iou"]) == (2, 0.5)
    other = box(30, 20, 5, 5).astype(np.uint8) * 255
    Image.fromarray(other).save(pots.parent / "m0.png")
    with running(manifest, honeypots=pots) as server:
        people = server.client("ann").get("/api/lead").json["people"]
        assert (people[0]["honeypots_found"], people[0]["honeypots_iou"]) == (1, 0.25)
    Image.new("RGB", (80, 60)).save(pots.parent / "pot-3.png")
    with pytest.raises(ProblemsError) as caught, running(manifest, honeypots=pots):
        pass
    assert "it has 80 × 60 pixels, and people have marked one of 40 × 30" in str(caught.value)


def test_a_honeypot_that_nobody_has_marked_may_get_another_size(tmp_path: Path, pots: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 3}, size=SIZE)
    for size in (SIZE, (80, 60)):
        Image.new("RGB", size).save(pots.parent / "pot-3.png")
        with running(manifest, honeypots=pots) as server:
            ann = server.client("ann")
            shown = [ann.image(image) for image in ann.queue()]
            (found,) = [one for one in shown if one["name"] == "pot-3.png"]
            assert (found["width"], found["height"], found["problem"]) == (*size, None)
