"""Mutated requests against a server, and what must hold of every answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preceptor.label.app import CSRF, WAYS
from tests.label.serving import Client, Running, blob, stroke_of
from tests.serving import exchanged

SIZE = (40, 30)
CANARY = "the content of a file outside"
_TEXTS = [
    *("", "x", "é", "\u202e", "\x00", "\ud800", "../" * 8 + "etc/passwd", "..%2f..%2fcanary.txt"),
    *("%00", "%ff", "' OR 1=1 --", "1;DROP TABLE strokes", "<script>", "A" * 5000, "1e9", "-1"),
    *(str(2**31), str(2**63), str(2**64), "9" * 400, "null", "NaN", "{}", "/", "\\", "%2e%2e"),
]
_VALUES: list[Any] = [
    *_TEXTS,
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308),
    *([], {}, [[[]]], {"a": {"b": []}}),
]
_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "G\u00c9T", "X"]


def _body(pick: random.Random, uuids: list[str]) -> bytes:
    """Body of any route: valid, nearly valid, or bytes."""
    kind = pick.random()
    if kind < 0.1:
        return pick.randbytes(pick.randrange(200))
    if kind > 0.99:
        return b"[" * pick.randrange(200_000)
    body = pick.choice(
        [
            stroke_of(blob(*SIZE, pick.randrange(99)), "tab"),
            {"uuid": str(uuid.uuid4()), "tab": "tab"},
            {"state": "nothing", "seconds": 1, "tab": "tab", "label": None},
            {"from": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:01Z", "tab": "tab"},
            {"tab": "tab", "close": True},
        ]
    )
    if "uuid" in body and pick.random() < 0.5:
        body["uuid"] = pick.choice(uuids)
    for _ in range(pick.choice([0, 0, 1, 1, 2, 5])):
        body[pick.choice([*body, "x", "person", "image", "path", "undone"])] = pick.choice(_VALUES)
    text = bytearray(json.dumps(body).encode())
    if kind < 0.3:
        for _ in range(pick.randrange(1, 6)):
            text[pick.randrange(len(text))] = pick.randrange(256)
        text = text[: pick.choice([len(text), len(text), pick.randrange(len(text))])]
    return bytes(text)


def _path(pick: random.Random, path: str, image: int) -> str:
    """Path and query of a route, mutated."""
    values = {}
    values["{image}"] = str(pick.choice([image, 1, 2, 3, 99]))
    values["{name:path}"] = pick.choice(["index.html", "style.css", "../app.py", "app.js"])
    for name, value in values.items():
        path = path.replace(name, pick.choice([value] * 4 + _TEXTS))
    if pick.random() < 0.2:
        path += pick.choice(["?count=", "?after=", "?before=", "?token=", "?tab=", "?", "#"])
        path += pick.choice(_TEXTS)
    if pick.random() < 0.1:
        parts = path.split("/")
        parts.insert(pick.randrange(1, len(parts) + 1), pick.choice(_TEXTS))
        path = "/".join(parts)
    return path or "/"


def _answer(pick: random.Random, attacker: Client, image: int, uuids: list[str]) -> bytes:
    """Whole answer to a mutated request; empty if the connection is closed without one."""
    way = pick.choice(WAYS + [way for way in WAYS if way.method == "POST"] * 2)
    method = way.method if pick.random() < 0.9 else pick.choice(_METHODS)
    content = _body(pick, uuids) if method != "GET" else b""
    head = {
        "host": attacker.address,
        "origin": f"http://{attacker.address}",
        "content-type": "application/json",
        "cookie": attacker.headers["cookie"],
        CSRF: attacker.headers[CSRF],
        "content-length": str(len(content)),
    }
    for _ in range(pick.choice([0, 0, 0, 1, 2])):
        name = pick.choice([*head, "if-none-match", "sec-fetch-site", "transfer-encoding"])
        head[name] = pick.choice(_TEXTS)
    whole = head["content-length"] == str(len(content)) and "transfer-encoding" not in head
    lines = [f"{method} {_path(pick, way.path, image)} HTTP/1.1", *map(": ".join, head.items())]
    text = "\r\n".join(lines) + "\r\nconnection: close\r\n\r\n"
    return exchanged(attacker.address, text.encode("utf-8", "surrogatepass") + content, whole=whole)


def fuzz(server: Running, canary: Path, count: int, seed: int = 0) -> Counter[int]:
    """Send requests of an attacker who has a session, and knows a victim's name and strokes.

    No file outside of the folder of the images, such as the canary, is read, and the victim's work
    stays. Returns the number of answers by status; 0 = the connection was closed.
    """
    canary.write_text(CANARY)
    victim, pick = server.client("victim", tab="victim"), random.Random(seed)
    image = victim.queue()[0]
    bodies = [stroke_of(blob(*SIZE, at), "victim") for at in range(5)]
    uuids = [body["uuid"] for body in bodies]
    for body in bodies:
        assert victim.post(f"/api/images/{image}/strokes", body).status == 200
    victim.turn(image, "undo", uuids[-1])
    assert victim.answer(image).status == 200
    before = victim.image(image)
    attacker = server.client("attacker", tab="victim")
    statuses: Counter[int] = Counter()
    with opened_by_routes() as files:
        for _ in range(count):
            answer = _answer(pick, attacker, image, uuids)
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
            statuses[status] += 1
            assert status < 500, answer
            assert CANARY.encode() not in answer
            assert b"Traceback" not in answer
    after = victim.image(image)
    assert [after[key] for key in ("strokes", "answer")] == [before["strokes"], before["answer"]]
    # The server is in order: the victim draws on.
    assert victim.stroke(image, blob(*SIZE, 9)).status == 200
    labeling = server.labeling
    allowed = [labeling.source.root, *labeling.static.values()]
    for file in files:
        assert any(Path(file).is_relative_to(one) for one in allowed), file
    assert files, "no picture was read"
    return statuses


@contextlib.contextmanager
def opened_by_routes() -> Iterator[set[str]]:
    """Context that collects the files that threads of routes open."""
    files: set[str] = set()
    active = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and threading.current_thread().name.startswith("label-"):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                files.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100

    sys.addaudithook(hook)
    try:
        yield files
    finally:
        active = False  # a hook cannot be removed
