"""A server of `preceptor serve` in a thread or a process, and a client."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preceptor.deploy.http import ApiKeys, Hosts
from preceptor.deploy.http_server import listen
from preceptor.deploy.serve import ServeSettings, Service, application
from tests.commands import HANGS
from tests.forked import Forked, command
from tests.serving import Told, in_thread


def send(
    address: str,
    method: str,
    path: str,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Told:
    """Send a request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=HANGS)
    try:
        connection.request(method, path, content, dict(headers or {}))
        return Told.of(connection.getresponse())
    finally:
        connection.close()


@dataclass
class Running:
    """Server that runs."""

    address: str  # host and port
    service: Service
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Told:
        return send(self.address, "GET", path, None, self.headers | dict(headers or {}))

    def post(self, content: bytes, kind: str = "image/png", query: str = "") -> Told:
        headers = self.headers | ({"content-type": kind} if kind else {})
        return send(self.address, "POST", f"/predict{query}", content, headers)

    def metric(self, line: str) -> float:
        """Value of a sample."""
        for one in self.get("/metrics").content.decode().splitlines():
            name, _, value = one.rpartition(" ")
            if name == line:
                return float(value)
        raise AssertionError(f"{line} is not a metric")

    @contextlib.contextmanager
    def held(self) -> Iterator[threading.Event]:
        """Context in which the network waits; yields an event that it has begun."""
        batcher = self.service.batcher
        predict, go, begun = batcher._predict, threading.Event(), threading.Event()

        def waiting(batch: Any) -> Any:
            begun.set()
            assert go.wait(HANGS)
            return predict(batch)

        batcher._predict = waiting
        try:
            yield begun
        finally:
            batcher._predict = predict
            go.set()


@contextlib.contextmanager
def running(model: Path, keys: Path | None = None, **settings: Any) -> Iterator[Running]:
    """Server in a thread."""
    usual = {"device": "cpu", "batch_size": 8, "timeout": HANGS}
    given = ServeSettings(**{**usual, **settings})  # type: ignore[arg-type]
    at = listen("127.0.0.1", 0)
    port = at.getsockname()[1]
    hosts = None if keys is not None else Hosts.of("127.0.0.1", port)
    service = Service(model, given, None if keys is None else ApiKeys.read(keys), hosts)
    try:
        with in_thread(application(service), at, stop_seconds=60):
            try:
                yield Running(f"127.0.0.1:{port}", service)
            finally:
                service.stop()
    finally:
        service.close()


@dataclass
class Process:
    """`preceptor serve` as a process, at any free port."""

    arguments: Sequence[object]
    port: int = 0
    said: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Process:
        """Start the server, and wait until it answers."""
        self.process = Forked(
            command,
            ["serve", *self.arguments, "--port", self.port],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"COLUMNS": "200"},
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"http://[^/]*:(\d+)/", line):
                self.port = int(found[1])
                return self
        raise AssertionError(self.said)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ask the process to end; returns its exit code and the rest of what it says."""
        assert self.process is not None
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=HANGS)
        return self.process.returncode, out
