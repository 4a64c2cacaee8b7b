"""Mutated requests to a server of models: answered or refused, never with 500."""

from __future__ import annotations

import json
import random
import re
import socket
from base64 import b64encode
from collections import Counter
from pathlib import Path

import pytest

from preceptor.deploy.api import ErrorAnswer, PredictAnswer
from tests.commands import HANGS
from tests.deploy.serving import Running, multipart

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
PATHS = (
    "/predict",
    "/models",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/",
    "/static/app.js",
)
QUERIES = (
    "",
    "map=grid",
    "map=png",
    "model=best",
    "model=three",
    "threshold=0.5",
    "threshold=eer",
    "model=three&map=grid",
)


class Fuzz:
    """Requests that were valid once.

    Args:
        server: Server.
        images: Image files, good and bad.
        seed: Random seed.
    """

    def __init__(self, server: Running, images: list[Path], seed: int) -> None:
        self._server, self._random = server, random.Random(seed)
        self._images = [content for one in images if len(content := one.read_bytes()) < 100_000]

    def request(self) -> tuple[bytes, bool]:
        """One request, which may be changed somewhere, and whether the server finds its end."""
        random_ = self._random
        kind = random_.choice(("multipart", "json", "raw", "raw", "get"))
        images = [self._image() for _ in range(random_.choice((1, 1, 1, 2, 3)))]
        path, method = "/predict", "POST"
        if kind == "multipart":
            body, headers = multipart([(f"{at}.png", one) for at, one in enumerate(images)])
            content_type = headers["content-type"]
        elif kind == "json":
            coded = [b64encode(one).decode() for one in images]
            body, content_type = json.dumps({"images": coded}).encode(), "application/json"
        elif kind == "raw":
            body, content_type = images[0], random_.choice(("image/png", "image/jpeg", "x/y"))
        else:
            method, path, body, content_type = "GET", random_.choice(PATHS), b"", ""
        query = self._mutated(random_.choice(QUERIES).encode(), 0.2)
        body = self._mutated(body, 0.4)
        length = (
            str(len(body))
            if random_.random() < 0.97
            else random_.choice(
                ("0", "-1", "x", "99999999999999", str(len(body) + 5), str(max(0, len(body) - 5)))
            )
        )
        head = [
            f"{method} {path}".encode() + (b"?" + query if query else b"") + b" HTTP/1.1",
            f"Host: {self._server.address}".encode(),
            f"Content-Type: {content_type}".encode(),
            f"Content-Length: {length}".encode(),
            b"Connection: close",
        ]
        joined = b"\r\n".join(head)
        changed = self._mutated(joined, 0.15)
        whole = changed == joined and length == str(len(body))
        return changed + b"\r\n\r\n" + body, whole

    def _image(self) -> bytes:
        return self._mutated(self._random.choice(self._images), 0.4)

    def _mutated(self, content: bytes, chance: float) -> bytes:
        """Content, changed with a probability: bytes replaced, cut, repeated, inserted, removed."""
        random_ = self._random
        if not content or random_.random() >= chance:
            return content
        found = bytearray(content)
        for _ in range(random_.choice((1, 1, 2, 8))):
            at = random_.randrange(len(found) + 1)
            what = random_.randrange(5)
            if what == 0 and at < len(found):
                found[at] = random_.randrange(256)
            elif what == 1:
                del found[at : at + random_.randrange(1, 40)]
            elif what == 2:
                found[at:at] = random_.randbytes(random_.randrange(1, 9))
            elif what == 3:
                found[at:at] = found[at : at + random_.randrange(1, 40)]
            else:
                del found[at:]
        return bytes(found)

    def answer(self, request: bytes, *, whole: bool) -> bytes:
        """What the server answers; b"" if it closes the connection."""
        host, port = self._server.address.split(":")
        with socket.create_connection((host, int(port)), timeout=HANGS) as connection:
            parts = []
            try:
                connection.sendall(request)
                if not whole:  # the server need not wait for more
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    parts.append(part)
            except ConnectionError:
                pass
            return b"".join(parts)


def fuzz(server: Running, images: list[Path], count: int, seed: int = 0) -> Counter[int]:
    """Send mutated requests, and check what must hold.

    Args:
        server: Server of the models best and three.
        images: Image files, good and bad.
        count: Number of requests.
        seed: Random seed.

    Returns:
        Number of answers by status; 0 = the connection was closed.
    """
    attack = Fuzz(server, images, seed)
    content = images[0].read_bytes()
    wanted = server.post(content).json["predictions"][0]
    statuses: Counter[int] = Counter()
    for _ in range(count):
        request, whole = attack.request()
        answer = attack.answer(request, whole=whole)
        assert b"Traceback" not in answer, request
        if not answer:
            statuses[0] += 1
        # What follows a changed length may be read as another request.
        while answer:
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 "), (request, answer)
            status = int(head[9:12])
            statuses[status] += 1
            assert status < 500, (request, answer)
            length = _LENGTH.search(head)
            body = rest if length is None else rest[: int(length[1])]
            answer = rest[len(body) :]
            if status >= 400 and b"application/json" in head:
                assert "\n" not in ErrorAnswer.model_validate_json(body).error, request
            elif status == 200 and request.startswith(b"POST /predict"):
                PredictAnswer.model_validate_json(body)
    # The server is in order: nothing is in flight, and the prediction is the one of before.
    assert server.metric("preceptor_images_in_flight") == 0
    assert server.service._bytes == 0
    again = server.post(content).json["predictions"][0]
    assert again["score"] == pytest.approx(wanted["score"], abs=1e-6)
    return statuses
