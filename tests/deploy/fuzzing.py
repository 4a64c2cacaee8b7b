"""Mutated requests to a server of models: answered or refused, never with 500."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.deploy.serving import Running
from tests.serving import exchanged

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
PATHS = ["/predict", "/model", "/healthz", "/readyz", "/metrics"]
QUERIES = ["", "map=grid", "map=png", "threshold=0.5", "threshold=eer&map=grid"]


def mutated(pick: random.Random, content: bytes, chance: float) -> bytes:
    """Content, changed with a probability: bytes replaced, cut, repeated, inserted, removed."""
    if not content or pick.random() >= chance:
        return content
    found = bytearray(content)
    for _ in range(pick.choice((1, 1, 2, 8))):
        at = pick.randrange(len(found) + 1)
        what = pick.randrange(5)
        if what == 0 and at < len(found):
            found[at] = pick.randrange(256)
        elif what == 1:
            del found[at : at + pick.randrange(1, 40)]
        elif what == 2:
            found[at:at] = pick.randbytes(pick.randrange(1, 9))
        elif what == 3:
            found[at:at] = found[at : at + pick.randrange(1, 40)]
        else:
            del found[at:]
    return bytes(found)


def request(pick: random.Random, images: list[bytes], address: str) -> tuple[bytes, bool]:
    """A request that was valid once, and whether the server finds its end."""
    image = mutated(pick, pick.choice(images), 0.4)
    kinds = ("image/png", "image/jpeg", "x/y", "multipart/form-data")
    method, path, body, content_type = pick.choice(
        [
            ("POST", "/predict", image, pick.choice(kinds)),
            ("GET", pick.choice(PATHS), b"", ""),
        ]
    )
    query, body = mutated(pick, pick.choice(QUERIES).encode(), 0.2), mutated(pick, body, 0.4)
    lengths = ["0", "-1", "x", "99999999999999", str(len(body) + 5), str(max(0, len(body) - 5))]
    length = str(len(body)) if pick.random() < 0.97 else pick.choice(lengths)
    head = f"{method} {path}".encode() + (b"?" + query if query else b"")
    head += (
        f" HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {length}\r\nConnection: close"
    ).encode()
    changed = mutated(pick, head, 0.15)
    return changed + b"\r\n\r\n" + body, changed == head and length == str(len(body))


def fuzz(server: Running, images: list[Path], count: int, seed: int = 0) -> Counter[int]:
    """Send mutated requests to a server, and check what must hold.

    Returns the number of answers by status; 0 = the connection was closed.
    """
    pick = random.Random(seed)
    contents = [content for one in images if len(content := one.read_bytes()) < 100_000]
    content = images[0].read_bytes()
    wanted = server.post(content).json
    statuses: Counter[int] = Counter()
    for _ in range(count):
        sent, whole = request(pick, contents, server.address)
        answer = exchanged(server.address, sent, whole=whole)
        assert b"Traceback" not in answer, sent
        if not answer:
            statuses[0] += 1
        # What follows a changed length may be read as another request.
        while answer:
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 "), (sent, answer)
            status = int(head[9:12])
            statuses[status] += 1
            assert status < 500, (sent, answer)
            length = _LENGTH.search(head)
            body = rest if length is None else rest[: int(length[1])]
            answer = rest[len(body) :]
            if status >= 400 and b"application/json" in head:
                assert "\n" not in json.loads(body)["error"], sent
            elif status == 200 and sent.startswith(b"POST /predict"):
                assert json.loads(body)["decision"], sent
    # The server is in order: nothing is in flight, and the prediction is the one of before.
    assert server.metric("preceptor_images_in_flight") == 0
    assert server.service._bytes == 0
    again = server.post(content).json
    assert again["score"] == pytest.approx(wanted["score"], abs=1e-6)
    return statuses
