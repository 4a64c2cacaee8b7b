"""Mutated requests against a server, and what must hold of every answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preceptor.label.app import CSRF, WAYS
from tests.label.serving import HANGS, Running, blob, stroke_of

SIZE = (40, 30)
CANARY = "the content of a file outside"
_TEXTS = [
    "",
    "x",
    "é",
    "\u202e",
    "\x00",
    "\ud800",
    "../" * 8 + "etc/passwd",
    "..%2f..%2fcanary.txt",
    "%00",
    "%ff",
    "' OR 1=1 --",
    "1;DROP TABLE strokes",
    "<script>",
    "A" * 5000,
    "1e9",
    "-1",
    str(2**31),
    str(2**63),
    str(2**64),
    "9" * 400,
    "null",
    "NaN",
    "{}",
    "/",
    "\\",
    "%2e%2e",
]
_VALUES: list[Any] = [
    *_TEXTS,
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64,
    10**40,
    1.5,
    -0.0,
    1e308,
    [],
    {},
    [[[]]],
    {"a": {"b": []}},
]
_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "G\u00c9T", "X"]


class Fuzz:
    """Requests of an attacker who has a session, and knows names and strokes of a victim.

    Args:
        server: Server.
        seed: Random seed.
    """

    def __init__(self, server: Running, seed: int) -> None:
        self.server, self.random = server, random.Random(seed)
        self.victim = server.client("victim", tab="victim")
        self.image = self.victim.queue()[0]
        self.uuids = []
        for at in range(5):
            body = stroke_of(blob(*SIZE, at), "victim")
            assert self.victim.post(f"/api/images/{self.image}/strokes", body).status == 200
            self.uuids.append(body["uuid"])
        self.victim.turn(self.image, "undo", self.uuids[-1])
        assert self.victim.answer(self.image).status == 200
        self.before = self.strokes()
        self.attacker = server.client("attacker", tab="victim")
        self.head = dict(self.attacker.headers)

    def strokes(self) -> list[tuple[Any, ...]]:
        """The victim's strokes and answers, as they are in the database."""
        reading = self.server.labeling.database.reading
        rows = reading.execute(
            "SELECT strokes.* FROM strokes JOIN people ON people.id = person "
            "WHERE people.name = 'victim' ORDER BY strokes.id"
        ).fetchall()
        answers = reading.execute(
            "SELECT answers.* FROM answers JOIN people ON people.id = person "
            "WHERE people.name = 'victim'"
        ).fetchall()
        return [tuple(row) for row in [*rows, *answers]]

    def body(self) -> Any:
        """Valid body of any route, or one that is nearly valid."""
        pick = self.random
        bodies: list[dict[str, Any]] = [
            stroke_of(blob(*SIZE, pick.randrange(99)), "tab"),
            {"uuid": str(uuid.uuid4()), "tab": "tab"},
            {"state": "nothing", "seconds": 1, "tab": "tab", "label": None, "certainty": None},
            {"from": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:01Z", "tab": "tab"},
            {"tab": "tab", "take": True},
            {"tab": "tab", "close": True},
        ]
        body = pick.choice(bodies)
        if "uuid" in body and pick.random() < 0.5:
            body["uuid"] = pick.choice(self.uuids)
        for _ in range(pick.choice([0, 0, 1, 1, 2, 5])):
            body[pick.choice([*body, "x", "person", "image", "path", "undone"])] = pick.choice(
                _VALUES
            )
        return body

    def content(self) -> bytes:
        """Body as bytes."""
        pick = self.random
        kind = pick.random()
        if kind < 0.1:
            return pick.randbytes(pick.randrange(200))
        text = json.dumps(self.body()).encode()
        if kind < 0.3:
            cut = bytearray(text)
            for _ in range(pick.randrange(1, 6)):
                cut[pick.randrange(len(cut))] = pick.randrange(256)
            text = bytes(cut[: pick.randrange(len(cut))] if pick.random() < 0.3 else cut)
        if kind > 0.99:
            text = b"[" * pick.randrange(200_000)
        return text

    def path(self, path: str) -> str:
        """Path and query of a route, mutated.

        Args:
            path: Pattern of the route.
        """
        pick = self.random
        names = {
            "{image}": str(pick.choice([self.image, 1, 2, 3, 99])),
            "{level}": "0",
            "{column}": "0",
            "{row}": "0",
            "{name:path}": pick.choice(["index.html", "style.css", "../server.py", "app.js"]),
        }
        for name, value in names.items():
            path = path.replace(name, pick.choice([value] * 4 + _TEXTS))
        if pick.random() < 0.2:
            path += pick.choice(["?count=", "?after=", "?before=", "?token=", "?tab=", "?", "#"])
            path += pick.choice(_TEXTS)
        if pick.random() < 0.1:
            parts = path.split("/")
            parts.insert(pick.randrange(1, len(parts) + 1), pick.choice(_TEXTS))
            path = "/".join(parts)
        return path or "/"

    def request(self) -> tuple[bytes, bool]:
        """Bytes of one request, and whether its head states how long it is."""
        pick = self.random
        way = pick.choice(WAYS + [way for way in WAYS if way.method == "POST"] * 2)
        method = way.method if pick.random() < 0.9 else pick.choice(_METHODS)
        head = {
            "host": self.server.address,
            "origin": f"http://{self.server.address}",
            "content-type": "application/json",
            "cookie": self.head["cookie"],
            CSRF: self.head[CSRF],
        }
        for _ in range(pick.choice([0, 0, 0, 1, 2])):
            name = pick.choice([*head, "if-none-match", "sec-fetch-site", "transfer-encoding"])
            head[name] = pick.choice(_TEXTS)
        if pick.random() < 0.1:
            cookie = head["cookie"]
            at = pick.randrange(max(len(cookie), 1))
            head["cookie"] = cookie[:at] + pick.choice('0123456789.;="\\') + cookie[at + 1 :]
        content = self.content() if method != "GET" else b""
        head["content-length"] = str(len(content))
        if pick.random() < 0.03:
            head["content-length"] = pick.choice(_TEXTS)
        whole = head["content-length"] == str(len(content)) and "transfer-encoding" not in head
        lines = [
            f"{method} {self.path(way.path)} HTTP/1.1",
            *(f"{k}: {v}" for k, v in head.items()),
        ]
        text = "\r\n".join(lines) + "\r\nconnection: close\r\n\r\n"
        return text.encode("utf-8", "surrogatepass") + content, whole

    def answer(self, request: bytes, *, whole: bool) -> bytes:
        """Whole answer to a request; empty if the connection is closed without one."""
        host, port = self.server.address.split(":")
        found = b""
        with socket.create_connection((host, int(port)), timeout=HANGS) as at:
            with contextlib.suppress(OSError):
                at.sendall(request)
                if not whole:  # the server would wait for the rest
                    at.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while part := at.recv(65536):
                    found += part
        return found


def fuzz(server: Running, canary: Path, count: int, seed: int = 0) -> Counter[int]:
    """Send mutated requests, and check what must hold.

    Args:
        server: Server.
        canary: File outside of the folder of the images, with `CANARY` in it.
        count: Number of requests.
        seed: Random seed.

    Returns:
        Number of answers by status; 0 = the connection was closed.
    """
    canary.write_text(CANARY)
    attack = Fuzz(server, seed)
    statuses: Counter[int] = Counter()
    with opened_by_routes() as files:
        for _ in range(count):
            request, whole = attack.request()
            answer = attack.answer(request, whole=whole)
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
            statuses[status] += 1
            assert status < 500, (request, answer)
            assert CANARY.encode() not in answer, request
            assert b"Traceback" not in answer, request
    assert attack.strokes() == attack.before
    # The server is in order: the victim draws on.
    told = attack.victim.image(attack.image)
    assert len(told["strokes"]) == 5
    assert attack.victim.stroke(attack.image, blob(*SIZE, 9)).status == 200
    allowed = [
        server.labeling.source.root,
        server.labeling.pictures.cache,
        *server.labeling.static.values(),
    ]
    for file in files:
        assert any(Path(file).is_relative_to(one) for one in allowed), file
    assert files, "no picture was read"
    return statuses


@contextlib.contextmanager
def opened_by_routes() -> Iterator[set[str]]:
    """Context that collects the files that threads of routes open."""
    found: set[str] = set()
    active = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and threading.current_thread().name.startswith("label-"):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                found.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100

    sys.addaudithook(hook)
    try:
        yield found
    finally:
        active = False  # a hook cannot be removed
