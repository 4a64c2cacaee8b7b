"""Marks and answers over HTTP, bodies of a wrong shape, and mutated requests."""

from __future__ import annotations

import http.client
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preceptor.label.calls import LARGEST
from preceptor.label.marks import decode_runs, from_text
from preceptor.label.queue import figures
from tests.label.fuzzing import fuzz
from tests.label.serving import HANGS, Client, Running, blob, box, stroke_of

SIZE = (40, 30)


def test_the_link_of_the_terminal_opens_the_page(server: Running) -> None:
    ann = server.client()
    page = ann.get("/")
    assert page.status == 200
    assert b"<html" in page.content
    assert ann.get("/api/state").json["person"] is None
    assert ann.get("/api/queue").status == ann.stroke(1, blob(*SIZE)).status == 403  # no name
    chosen = ann.post("/api/person", {"name": " Ann "}).json["person"]
    assert chosen == {"id": 1, "name": "Ann"}
    state = ann.get("/api/state").json
    assert state["person"] == chosen
    assert state["people"] == ["Ann"]
    assert state["labels"] == []
    assert state["totals"] == {
        "images": 12,
        "done": 0,
        "mine_done": 0,
        "mine_open": 12,
        "examined": 0,
    }


def test_a_stroke_is_stored_once_and_shown_again_as_it_was(server: Running) -> None:
    ann = server.client("ann")
    image, other = ann.queue()[:2]
    mask, path = blob(*SIZE), f"/api/images/{image}/strokes"
    body = stroke_of(mask)
    first = ann.post(path, body)
    assert first.status == 200
    assert ann.post(path, body).json == first.json
    (stroke,) = server.client("ann", tab="tab-2").image(image)["strokes"]
    again = np.zeros(SIZE[::-1], bool)
    x, y, w, h = (stroke[key] for key in "xywh")
    again[y : y + h, x : x + w] = decode_runs(from_text(stroke["runs"]), w * h).reshape(h, w)
    assert (again == mask).all()
    assert (stroke["tool"], stroke["erase"]) == ("brush", False)
    assert ann.post(path, body | {"seconds": 9.0}).status == 409
    assert ann.post(f"/api/images/{other}/strokes", body).status == 409
    bo = server.client("bo")
    assert bo.post(path, body).status == 409
    # People do not see each other's marks and answers, and cannot change them.
    ann.answer(image)
    shown = bo.image(image)
    assert (shown["strokes"], shown["answer"]) == ([], None)
    assert bo.turn(image, "undo", body["uuid"]).status == 404
    assert ann.image(image)["strokes"][0]["undone"] is False


def test_undo_and_redo_follow_the_order_of_the_strokes(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    first, second, third, fourth = names = [str(uuid.uuid4()) for _ in range(4)]
    for at, name in enumerate(names[:3]):
        assert ann.stroke(image, box(at, 0, 2, 2), uuid=name).status == 200

    def undone() -> list[bool]:
        return [one["undone"] for one in ann.image(image)["strokes"]]

    def turn(what: str, *names: str) -> list[int]:
        return [ann.turn(image, what, name).status for name in names]

    assert turn("undo", first, third, third, second) == [409, 200, 200, 200]  # third is sent again
    assert undone() == [False, True, True]
    assert turn("redo", third, second, second) == [409, 200, 200]
    assert undone() == [False, False, True]
    # A new stroke: what is undone stays undone, also when the new one is undone and redone.
    assert ann.stroke(image, box(9, 9, 2, 2), uuid=fourth).status == 200
    assert turn("redo", third) == [409]
    assert turn("undo", fourth, str(uuid.uuid4())) == [200, 404]
    assert turn("redo", third, fourth) == [409, 200]
    assert undone() == [False, False, True, False]


def test_an_answer_fits_the_marks(server: Running) -> None:
    ann = server.client("ann")
    first, second, third = ann.queue()[:3]
    assert "nothing is marked" in ann.answer(first).error
    ann.stroke(first, blob(*SIZE))
    assert "something is marked" in ann.answer(first, "nothing").error
    assert ann.answer(first).status == 200
    assert ann.answer(second, "nothing").status == 200
    answer = ann.image(first)["answer"]
    assert (answer["state"], answer["label"]) == ("marked", None)
    assert answer["seconds"] == 3.5
    assert first not in ann.queue()
    assert ann.queue("&before=0") == [second, first]
    assert ann.queue(f"&before={second}") == [first]
    totals = ann.get("/api/state").json["totals"]
    assert totals == {"images": 12, "done": 2, "mine_done": 2, "mine_open": 10, "examined": 2}
    # Marks that are erased are nothing to mark.
    ann.stroke(third, box(3, 3, 5, 5))
    ann.stroke(third, box(3, 3, 5, 4), erase=True)
    assert ann.answer(third, "nothing").status == 409
    ann.stroke(third, box(0, 0, 20, 20), erase=True)
    assert ann.answer(third, "marked").status == 409
    assert ann.answer(third, "nothing").status == 200


def stored(server: Running, client: Client) -> tuple[int, int, int, int]:
    """Answers of ann that count: finished images; marked, nothing to mark; own ones."""
    numbers = figures(server.labeling.database.reading)
    (one,) = [one for one in numbers["people"] if one["name"] == "ann"]
    totals = client.get("/api/state").json["totals"]
    assert totals["done"] == numbers["done"]
    return numbers["done"], one["marked"], one["nothing"], totals["mine_done"]


def newest(client: Client, image: int) -> str:
    return str(client.image(image)["strokes"][-1]["uuid"])


def test_an_answer_does_not_count_while_it_does_not_fit_the_marks(server: Running) -> None:
    ann = server.client("ann")
    image, other = ann.queue()[:2]
    ann.answer(image, "nothing")
    ann.answer(other, "nothing")
    before = ann.image(image)["answer"]
    assert stored(server, ann) == (2, 0, 2, 2)
    ann.stroke(image, blob(*SIZE))
    assert stored(server, ann) == (1, 0, 1, 1)
    assert image in ann.queue()
    assert image not in server.client("bo").queue()  # kept for the person
    # It is what it was, once the marks are as they were.
    ann.turn(image, "undo", newest(ann, image))
    assert stored(server, ann) == (2, 0, 2, 2)
    assert ann.image(image)["answer"] == before
    assert image not in ann.queue()
    assert ann.queue("&before=0") == [other, image]
    ann.turn(image, "redo", newest(ann, image))
    assert ann.image(image)["answer"] == before  # the page compares it with the marks
    ann.answer(image, "marked")
    assert stored(server, ann) == (2, 1, 1, 2)
    bo = server.client("bo", tab="other")
    bo.stroke(image, blob(*SIZE))
    bo.answer(image)
    ann.turn(image, "undo", newest(ann, image))
    assert stored(server, ann) == (2, 0, 1, 1)  # bo has finished it
    ann.answer(image, "cannot_judge")  # this does not depend on marks
    for what in ("redo", "undo"):
        ann.turn(image, what, newest(ann, image))
        assert ann.image(image)["answer"]["state"] == "cannot_judge"
        assert stored(server, ann)[3] == 2


def test_the_picture_is_the_image(lasting: Running) -> None:
    ann = lasting.client("ann")
    path = f"/api/images/{ann.queue()[0]}/whole"
    told = ann.get(path)
    assert told.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(told.content)).size == SIZE
    assert ann.send("GET", path, headers={"if-none-match": told.headers["etag"]}).status == 304
    assert ann.get("/api/images/99/whole").status == 404


WRONG: dict[str, list[Any]] = {
    "uuid": ["x", None, "A" * 36],
    "tab": ["", "a b", 1],
    "tool": ["pen", []],
    "erase": [0, None],
    "x": [-1, 40, 1.0, True, "1"],
    "w": [0, 10**30],
    "h": [31],
    "runs": ["", "AQ", "ÄÄ", None, "AAAA"],
    "started": ["yesterday", "2026", "9" * 40, "0001-01-01T00:00:00+23:00"],
    "seconds": [-1, "1", None, True],
}
WRONG_ANSWER: dict[str, list[Any]] = {
    "state": ["done", None],
    "label": ["other", 1],
    "seconds": [-1, "x"],
    "tab": [None],
}


def test_malformed_strokes_and_answers_are_refused(lasting: Running) -> None:
    ann = lasting.client("ann")
    image = ann.queue()[0]
    for key, value in ((key, value) for key, values in WRONG.items() for value in values):
        told = ann.stroke(image, blob(*SIZE), **{key: value})
        assert (told.status, told.error.startswith(key)) == (400, True), (key, value, told)
    for key, value in ((key, value) for key, values in WRONG_ANSWER.items() for value in values):
        told = ann.answer(image, **({"state": "nothing"} | {key: value}))
        assert told.status == 400, (key, value, told)
    shown = ann.image(image)
    assert (shown["strokes"], shown["answer"]) == ([], None)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"1", b"null", b"\xff", b'{"x": NaN}', b'{"x": 1e999}'),
        *(b"[" * 100_000, b'{"tab": "\\ud800"}', b'{"x": ' + b"9" * 5000 + b"}"),
    ],
    ids=range(11),
)
def test_what_is_no_json_object_is_refused(lasting: Running, content: bytes) -> None:
    ann = lasting.client("ann")
    head = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    paths = [f"/api/images/1/{name}" for name in ("strokes", "open", "undo", "answer")]
    for path in (*paths, "/api/person"):
        assert ann.send("POST", path, content, head | ann.headers).status == 400


def test_a_body_that_is_too_large_is_refused(lasting: Running) -> None:
    ann = lasting.client("ann")
    path = f"/api/images/{ann.queue()[0]}/strokes"
    head = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    content = json.dumps({"runs": "A" * LARGEST}).encode()
    assert ann.send("POST", path, content, head).status == 413
    ann.close()
    assert ann.send("POST", path, b"{}", head | {"content-type": "text/plain"}).status == 400
    # Without a length, it is cut off.
    connection = http.client.HTTPConnection(lasting.address, timeout=HANGS)
    parts = (b"x" * 2**20 for _ in range(64))
    try:
        connection.request("POST", path, parts, head | ann.headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):  # the server closed while it was sent
        pass
    finally:
        connection.close()


def test_mutated_requests_break_nothing(server: Running, tmp_path: Path) -> None:
    statuses = fuzz(server, tmp_path / "canary.txt", 600)
    for status in (200, 400, 403, 404):
        assert statuses[status], statuses
