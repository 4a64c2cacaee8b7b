"""Marks over HTTP: saved, shown again, undone, answered."""

from __future__ import annotations

import io
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.errors import InputError
from preceptor.label import queue
from preceptor.label.app import prepare
from preceptor.label.marks import decode_runs, from_text
from preceptor.label.sources import find_source
from tests.label.serving import HANGS, Running, blob, running, stroke_of

SIZE = (40, 30)


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[y : y + h, x : x + w] = True
    return mask


def test_the_link_of_the_terminal_opens_the_page(server: Running) -> None:
    ann = server.client()
    page = ann.get("/")
    assert page.status == 200
    assert b"<html" in page.content
    assert ann.get("/api/state").json["person"] is None
    chosen = ann.post("/api/person", {"name": " Ann "}).json["person"]
    assert chosen == {"id": 1, "name": "Ann", "lead": True}
    state = ann.get("/api/state").json
    assert state["person"] == chosen
    assert state["people"] == ["Ann"]
    assert state["labels"] == ["marked", "plain"]
    assert state["totals"] == {"images": 12, "done": 0, "mine_done": 0, "mine_open": 12}


def test_no_thread_outlives_the_server(tmp_path: Path) -> None:
    """Not even one that makes tiles, of which nothing is left."""
    (tmp_path / "images").mkdir()
    large = np.full((4000, 4000, 3), 90, np.uint8)
    Image.fromarray(large).save(tmp_path / "images" / "large.png", compress_level=1)
    with running(tmp_path / "images", cache=tmp_path / "cache") as server:
        ann = server.client("ann")
        (image,) = ann.queue()  # its tiles are made in advance
        server.labeling.pictures.stop()
        told = ann.get(f"/api/images/{image}/tiles/0/0/0")
        assert told.status == 503
        assert "the server is stopping" in told.error
    names = ("label-calls", "label-pictures", "label-builder", "label-writer")
    assert not [one for one in threading.enumerate() if one.name.startswith(names)]
    assert not list((tmp_path / "cache" / "label").iterdir())


def test_a_stroke_is_shown_again_as_it_was(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    mask = blob(*SIZE)
    told = ann.stroke(image, mask)
    assert told.status == 200, told
    assert told.json["number"] == 1
    shown = server.client("ann", tab="tab-2").image(image)
    (stroke,) = shown["strokes"]
    again = np.zeros(SIZE[::-1], bool)
    x, y, w, h = (stroke[key] for key in "xywh")
    again[y : y + h, x : x + w] = decode_runs(from_text(stroke["runs"]), w * h).reshape(h, w)
    assert (again == mask).all()
    assert (stroke["tool"], stroke["class"], stroke["erase"]) == ("brush", "evidence", False)


def test_the_same_stroke_again_is_stored_once(server: Running) -> None:
    ann = server.client("ann")
    image, other = ann.queue()[:2]
    body = stroke_of(blob(*SIZE))
    first = ann.post(f"/api/images/{image}/strokes", body)
    assert first.status == 200
    assert ann.post(f"/api/images/{image}/strokes", body).json == first.json
    assert len(ann.image(image)["strokes"]) == 1
    changed = body | {"seconds": 9.0}
    assert ann.post(f"/api/images/{image}/strokes", changed).status == 409
    assert ann.post(f"/api/images/{other}/strokes", body).status == 409
    assert server.client("bo").post(f"/api/images/{image}/strokes", body).status == 409


def test_undo_and_redo_follow_the_order_of_the_strokes(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    first, second, third = names = [str(uuid.uuid4()) for _ in range(3)]
    for at, name in enumerate(names):
        assert ann.stroke(image, box(at, 0, 2, 2), uuid=name).status == 200

    def undone() -> list[bool]:
        return [one["undone"] for one in ann.image(image)["strokes"]]

    assert ann.turn(image, "undo", first).status == 409
    assert ann.turn(image, "undo", third).status == 200
    assert ann.turn(image, "undo", third).status == 200  # a request that is sent again
    assert ann.turn(image, "undo", second).status == 200
    assert undone() == [False, True, True]
    assert ann.turn(image, "redo", third).status == 409
    assert ann.turn(image, "redo", second).status == 200
    assert ann.turn(image, "redo", second).status == 200
    assert undone() == [False, False, True]
    # A new stroke: what is undone stays undone, also when the new one is undone and redone.
    fourth = str(uuid.uuid4())
    assert ann.stroke(image, box(9, 9, 2, 2), uuid=fourth).status == 200
    assert ann.turn(image, "redo", third).status == 409
    assert ann.turn(image, "undo", fourth).status == 200
    assert ann.turn(image, "redo", third).status == 409
    assert ann.turn(image, "redo", fourth).status == 200
    assert undone() == [False, False, True, False]
    assert ann.turn(image, "undo", str(uuid.uuid4())).status == 404


def test_an_answer_leads_to_the_next_image(server: Running) -> None:
    ann = server.client("ann")
    first, second = ann.queue()[:2]
    assert "nothing is marked" in ann.answer(first).error
    ann.stroke(first, blob(*SIZE))
    assert "something is marked" in ann.answer(first, "nothing").error
    told = ann.answer(first, label="plain", certainty=2)
    assert told.json == {"ok": True, "next": second}
    assert ann.answer(second, "nothing", next=False).json == {"ok": True, "next": None}
    answer = ann.image(first)["answer"]
    assert (answer["state"], answer["label"], answer["certainty"]) == ("marked", "plain", 2)
    assert answer["seconds"] == 3.5
    assert first not in ann.queue()
    assert ann.queue("&before=0") == [second, first]
    assert ann.queue(f"&before={second}") == [first]
    totals = ann.get("/api/state").json["totals"]
    assert totals == {"images": 12, "done": 2, "mine_done": 2, "mine_open": 10}


def test_marks_that_are_erased_are_nothing_to_mark(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    ann.stroke(image, box(3, 3, 5, 5))
    ann.stroke(image, box(3, 3, 5, 4), erase=True)
    assert ann.answer(image, "nothing").status == 409
    ann.stroke(image, box(0, 0, 20, 20), erase=True)
    assert ann.answer(image, "marked").status == 409
    assert ann.answer(image, "nothing").status == 200


def test_the_picture_is_the_image(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    told = ann.get(f"/api/images/{image}/whole")
    assert told.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(told.content)).size == SIZE
    path = f"/api/images/{image}/whole"
    assert ann.send("GET", path, headers={"if-none-match": told.headers["etag"]}).status == 304
    assert ann.get(f"/api/images/{image}/tiles/0/0/0").status == 404
    assert ann.get("/api/images/99/whole").status == 404


def test_people_do_not_see_each_other(server: Running) -> None:
    ann, bo = server.client("ann"), server.client("bo", tab="other")
    image = ann.queue()[0]
    name = str(uuid.uuid4())
    ann.stroke(image, blob(*SIZE), uuid=name)
    ann.answer(image)
    shown = bo.image(image)
    assert shown["strokes"] == []
    assert shown["answer"] is None
    assert bo.turn(image, "undo", name).status == 404
    assert ann.image(image)["strokes"][0]["undone"] is False


def test_two_people_are_handed_out_different_images(server: Running) -> None:
    ann, bo = server.client("ann"), server.client("bo")
    mine = [one["id"] for one in ann.get("/api/queue?count=6").json["images"]]
    theirs = [one["id"] for one in bo.get("/api/queue?count=24").json["images"]]
    assert sorted(mine + theirs) == list(range(1, 13))


def test_a_second_tab_is_told(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ALIVE", HANGS)
    first, second = server.client("ann"), server.client("ann", tab="tab-2")
    image = first.queue()[0]
    place = f"/api/images/{image}/open"
    assert first.post(place, {"tab": "tab-1"}).status == 200
    assert second.image(image)["open_elsewhere"] is True
    assert "another tab" in second.post(place, {"tab": "tab-2"}).error
    assert second.stroke(image, blob(*SIZE)).status == 409
    assert second.post(place, {"tab": "tab-2", "take": True}).status == 200
    assert second.stroke(image, blob(*SIZE)).status == 200
    assert first.stroke(image, blob(*SIZE)).status == 409
    # Another person is nobody's tab.
    assert server.client("bo", tab="tab-1").stroke(image, blob(*SIZE)).status == 200


def test_only_images_of_chosen_splits_are_asked_for(manifest: Path) -> None:
    database = manifest.with_name("chosen.sqlite")
    with running(manifest, database, splits=("train",)) as one:
        ann = one.client("ann")
        shown = ann.queue()
        assert len(shown) == 8
        assert {ann.image(image)["split"] for image in shown} == {"train"}
        totals = ann.get("/api/state").json["totals"]
        assert (totals["images"], totals["done"], totals["mine_open"]) == (8, 0, 8)
    with running(manifest, database, splits=()) as one:  # and of the others later
        assert len(one.client("ann").queue()) == 12
    source = find_source(manifest)
    with pytest.raises(InputError, match="no image of the split 'test'; known: train, val"):
        prepare(database, source, {"splits": ("test",)})
