"""Bodies of a wrong shape are refused with a reason, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from preceptor.label.calls import LARGEST
from tests.label.serving import HANGS, Running, blob, stroke_of

SIZE = (40, 30)

WRONG: list[tuple[str, Any]] = [
    ("uuid", "x"),
    ("uuid", None),
    ("uuid", "A" * 36),
    ("tab", ""),
    ("tab", "a b"),
    ("tab", 1),
    ("tool", "pen"),
    ("tool", []),
    ("class", "other"),
    ("class", {}),
    ("erase", 0),
    ("erase", None),
    ("x", -1),
    ("x", 40),
    ("x", 1.0),
    ("x", True),
    ("x", "1"),
    ("w", 0),
    ("w", 10**30),
    ("h", 31),
    ("runs", ""),
    ("runs", "AQ"),
    ("runs", "ÄÄ"),
    ("runs", None),
    ("runs", "AAAA"),
    ("started", "yesterday"),
    ("started", "2026"),
    ("started", "9" * 40),
    ("started", "0001-01-01T00:00:00+23:00"),
    ("seconds", -1),
    ("seconds", "1"),
    ("seconds", None),
    ("seconds", True),
    ("proposal", 1),
    ("proposal", -1),
    ("proposal", "1"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_malformed_stroke_is_refused(lasting: Running, key: str, value: Any) -> None:
    ann = lasting.client("ann")
    image = ann.queue()[0]
    body = stroke_of(blob(*SIZE)) | {key: value}
    told = ann.post(f"/api/images/{image}/strokes", body)
    assert told.status == 400, told
    assert told.error.startswith(key)
    assert ann.image(image)["strokes"] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b'{"x": NaN}',
        b'{"x": 1e999}',
        b"[" * 100_000,
        b'{"tab": "\\ud800"}',
        b'{"x": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(lasting: Running, content: bytes) -> None:
    ann = lasting.client("ann")
    head = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    for path in ("strokes", "open", "undo", "answer", "seen"):
        told = ann.send("POST", f"/api/images/1/{path}", content, head | ann.headers)
        assert told.status == 400, told
    told = ann.send("POST", "/api/person", content, head | ann.headers)
    assert told.status == 400, told


def test_a_body_that_is_too_large_is_refused(lasting: Running) -> None:
    ann = lasting.client("ann")
    image = ann.queue()[0]
    path = f"/api/images/{image}/strokes"
    head = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    content = json.dumps({"runs": "A" * LARGEST}).encode()
    assert ann.send("POST", path, content, head).status == 413
    ann.close()
    told = ann.send("POST", path, b"{}", head | {"content-type": "text/plain"})
    assert told.status == 400


def test_a_body_without_a_length_is_cut_off(lasting: Running) -> None:
    ann = lasting.client("ann")
    image = ann.queue()[0]
    import http.client

    connection = http.client.HTTPConnection(lasting.address, timeout=HANGS)
    head = {"Origin": f"http://{lasting.address}", "Content-Type": "application/json"}
    parts = (b"x" * 2**20 for _ in range(64))
    try:
        connection.request(
            "POST", f"/api/images/{image}/strokes", parts, head | ann.headers, encode_chunked=True
        )
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):  # the lasting closed while it was sent
        return
    finally:
        connection.close()
    assert status == 413


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "done"),
        ("state", None),
        ("label", "other"),
        ("label", 1),
        ("certainty", 0),
        ("certainty", 4),
        ("certainty", 1.5),
        ("seconds", -1),
        ("seconds", "x"),
        ("proposal", 7),
        ("next", 1),
        ("tab", None),
    ],
)
def test_a_malformed_answer_is_refused(lasting: Running, key: str, value: Any) -> None:
    ann = lasting.client("ann")
    image = ann.queue()[0]
    told = ann.answer(image, **({"state": "nothing"} | {key: value}))
    assert told.status == 400, told
    assert ann.image(image)["answer"] is None


@pytest.mark.parametrize("name", ["", "  ", "a" * 61, "a\nb", "\u2028", 7, None, ["a"]])
def test_a_malformed_name_is_refused(lasting: Running, name: Any) -> None:
    told = lasting.client().post("/api/person", {"name": name})
    assert told.status == 400, told
    assert name not in lasting.client().get("/api/state").json["people"]


def test_without_a_name_nothing_is_marked(lasting: Running) -> None:
    nobody = lasting.client()
    assert nobody.get("/api/queue").status == 403
    assert nobody.stroke(1, blob(*SIZE)).status == 403


def test_times_are_stored(server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    span = {"from": "2026-01-01T10:00:00+01:00", "until": "2026-01-01T09:00:05Z", "tab": "t"}
    assert ann.post(f"/api/images/{image}/seen", span).status == 200
    assert ann.post(f"/api/images/{image}/seen", span | {"from": "2027-01-01"}).status == 400
    events = server.labeling.database.reading.execute("SELECT kind, at FROM events").fetchall()
    assert [tuple(one) for one in events] == [
        ("shown", "2026-01-01T09:00:00.000Z"),
        ("hidden", "2026-01-01T09:00:05.000Z"),
    ]
