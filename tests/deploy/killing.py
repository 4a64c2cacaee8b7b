"""A server of models as a process, which is killed and started again under load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from tests.commands import HANGS
from tests.deploy.serving import send
from tests.forked import Forked, command
from tests.serving import Told

TOLERANCE = 1e-5


@dataclass
class Process:
    """`preceptor serve` as a process.

    Args:
        arguments: Of the command.
        port: Port; 0 = any free one, which later starts use again.
    """

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
            ["serve", *self.arguments, "--port", self.port, "--timeout", HANGS],
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

    def kill(self) -> None:
        """End the process as if the power failed."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ask the process to end; returns its exit code and the rest of what it says."""
        assert self.process is not None
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=HANGS)
        return self.process.returncode, out


@dataclass
class _User:
    """Client that sends one image after the other, and compares the answers.

    Args:
        server: Process.
        images: Content of each image.
        scores: Expected score of each image.
    """

    server: Process
    images: list[bytes]
    scores: list[float]
    counts: Counter[str] = field(default_factory=Counter)
    enough: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def run(self, stop: threading.Event, first: int) -> None:
        at = first
        while not stop.is_set():
            at = (at + 1) % len(self.images)
            try:
                told = send(
                    self.server.address,
                    "POST",
                    "/predict?map=grid",
                    self.images[at],
                    {"content-type": "image/png"},
                )
            except (OSError, HTTPException):
                self.counts["failed"] += 1
                stop.wait(0.01)
                continue
            self.counts[self._judged(told, self.scores[at])] += 1
            self.enough.release()

    def _judged(self, told: Told, wanted: float) -> str:
        if told.status != 200:
            return f"status {told.status}"
        (found,) = told.json["predictions"]
        return "right" if abs(found["score"] - wanted) <= TOLERANCE else "wrong"


def kill_under_load(
    model: Path, images: list[bytes], scores: list[float], *, kills: int, users: int, answers: int
) -> Counter[str]:
    """Kill a server while clients send images, and start it again.

    Each server is killed when every client has had some answers from it.

    Args:
        model: Model folder.
        images: Content of each image.
        scores: Expected score of each image.
        kills: Number of kills.
        users: Number of clients.
        answers: Number of answers that each client has before a kill.

    Returns:
        Number of answers that were right and wrong, and of requests that failed.
    """
    server = Process([model, "--device", "cpu", "--batch-size", "8"]).start()
    stop = threading.Event()
    clients = [_User(server, images, scores) for _ in range(users)]
    threads = [
        threading.Thread(target=client.run, args=(stop, at)) for at, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        for life in range(kills + 1):
            for client in clients:
                while client.enough.acquire(blocking=False):  # of the server before
                    pass
            for client in clients:
                for _ in range(answers):
                    assert client.enough.acquire(timeout=HANGS)
            if life < kills:
                server.kill()
                server.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        code, out = server.stop()
    assert code == 0, out
    total: Counter[str] = Counter()
    for client in clients:
        total += client.counts
    return total
