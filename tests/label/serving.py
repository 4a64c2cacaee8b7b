"""A server of `preceptor label` in a thread, and a person who talks to it over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.deploy.http import Hosts
from preceptor.deploy.http_server import listen
from preceptor.label.app import application, labeling_of, prepare
from preceptor.label.calls import Labeling
from preceptor.label.marks import Bits, bounding_runs, to_text
from preceptor.label.sources import find_source
from tests import forked
from tests.commands import HANGS
from tests.forked import Forked
from tests.serving import Told, in_thread


@dataclass
class Client:
    """One browser: cookies, token of the page, one connection."""

    address: str
    tab: str = "tab-1"
    headers: dict[str, str] = field(default_factory=dict)
    _connection: http.client.HTTPConnection | None = None

    def send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """Send a request as it is."""
        connection = self._connection
        if connection is None:
            connection = http.client.HTTPConnection(self.address, timeout=HANGS)
            connection.connect()
            # The head and the body of a request leave at once, as those of a browser do.
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection
        given = self.headers | dict(headers or {})
        try:
            connection.request(method, path, content, {k: v for k, v in given.items() if v})
            told = Told.of(connection.getresponse())
        except (OSError, http.client.HTTPException):
            connection.close()
            self._connection = None
            raise
        cookie = re.match(r"([^=]+=[^;]+)", told.headers.get("set-cookie", ""))
        if cookie is not None:
            self.headers["cookie"] = cookie.group(1)
        return told

    def get(self, path: str) -> Told:
        return self.send("GET", path)

    def post(self, path: str, body: Any) -> Told:
        head = {"origin": f"http://{self.address}", "content-type": "application/json"}
        return self.send("POST", path, json.dumps(body).encode(), head | self.headers)

    def enter(self, token: str, name: str = "") -> Client:
        """Come in by a link, and choose a name."""
        assert self.get(f"/?token={token}").status == 200
        self.headers["x-preceptor-csrf"] = self.get("/api/state").json["csrf"]
        if name:
            told = self.post("/api/person", {"name": name})
            assert told.status == 200, told
            self.headers["x-preceptor-csrf"] = self.get("/api/state").json["csrf"]
        return self

    def queue(self, more: str = "") -> list[int]:
        told = self.get(f"/api/queue?count=24{more}")
        assert told.status == 200, told
        return [one["id"] for one in told.json["images"]]

    def image(self, image: int) -> Any:
        told = self.get(f"/api/images/{image}?tab={self.tab}")
        assert told.status == 200, told
        return told.json

    def stroke(self, image: int, mask: Bits, **changes: Any) -> Told:
        return self.post(f"/api/images/{image}/strokes", stroke_of(mask, self.tab) | changes)

    def turn(self, image: int, what: str, name: str) -> Told:
        return self.post(f"/api/images/{image}/{what}", {"uuid": name, "tab": self.tab})

    def answer(self, image: int, state: str = "marked", **more: Any) -> Told:
        body = {"state": state, "seconds": 3.5, "tab": self.tab} | more
        return self.post(f"/api/images/{image}/answer", body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def stroke_of(mask: Bits, tab: str = "tab-1") -> dict[str, Any]:
    """Body of a stroke with the pixels of a mask."""
    bounds = bounding_runs(mask)
    assert bounds is not None
    body = dict(zip("xywh", bounds[:4], strict=True)) | {"runs": to_text(bounds[4])}
    body |= {"height": mask.shape[0], "width": mask.shape[1], "started": "2026-01-02T03:04:05Z"}
    body |= {"uuid": str(uuid.uuid4()), "tab": tab, "tool": "brush"}
    return body | {"erase": False, "seconds": 0.75}


def point_of(x: int, y: int, size: tuple[int, int], tab: str = "tab-1") -> dict[str, Any]:
    """Body of a click on a pixel of an image of a width and a height."""
    return stroke_of(box(x, y, 1, 1, size), tab) | {"tool": "point"}


def disc(x: int, y: int, size: tuple[int, int]) -> Bits:
    """Mask that a click stands for: pixels whose centers are within 0.14 of the shorter side."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    return np.asarray(np.hypot(columns - x, rows - y) <= 0.14 * min(size))


def box(x: int, y: int, w: int, h: int, size: tuple[int, int] = (40, 30)) -> Bits:
    """Mask of a rectangle in an image of a width and a height."""
    mask = np.zeros(size[::-1], bool)
    mask[y : y + h, x : x + w] = True
    return mask


def blob(width: int, height: int, seed: int = 0) -> Bits:
    """Random ellipse of pixels."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cx, cy = generator.uniform(0.2, 0.8, 2) * (width, height)
    rx, ry = generator.uniform(0.1, 0.3, 2) * (width, height)
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


@dataclass(frozen=True)
class Running:
    """Server in a thread."""

    labeling: Labeling
    address: str

    @property
    def token(self) -> str:
        return self.labeling.keys.token

    def client(self, name: str = "", tab: str = "tab-1") -> Client:
        return Client(self.address, tab).enter(self.token, name)


@contextlib.contextmanager
def running(source: Path, database: Path | None = None, **options: Any) -> Iterator[Running]:
    """Server of a manifest or a folder; the database is beside it by default.

    Args:
        options: Settings; quick; port, 0 = a free one; allow_host, further
            names of the host.
    """
    found = find_source(source)
    port, more = options.pop("port", 0), options.pop("allow_host", ())
    quick = options.pop("quick", False)
    prepared = prepare(database or found.database, found, options)
    at = listen("127.0.0.1", port)
    port = at.getsockname()[1]
    labeling = labeling_of(prepared, Hosts.of("127.0.0.1", port, more), quick=quick)
    try:
        with in_thread(application(labeling), at):
            yield Running(labeling, f"127.0.0.1:{port}")
    finally:
        labeling.close()


@dataclass
class Command:
    """`preceptor label` as a process of its own, which has printed its link."""

    process: subprocess.Popen[str]
    address: str
    token: str
    said: str

    def client(self, name: str = "", tab: str = "tab-1") -> Client:
        return Client(self.address, tab).enter(self.token, name)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: the exit code, and what the command says at its end."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=HANGS)
        return self.process.returncode, out


@contextlib.contextmanager
def command(*arguments: object) -> Iterator[Command]:
    """Start `preceptor label`, and kill it at the end."""
    process = Forked(
        forked.command,
        ["label", *arguments, "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    try:
        while (link := re.search(r"open http://(\S+)/\?token=(\S+)\n", said)) is None:
            line = process.stdout.readline()
            assert line, f"the command has ended: {said}"
            said += line
        yield Command(process, link.group(1), link.group(2), said)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
