"""HTTP server of files with faults, of the standard library."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FaultServer:
    """Files behind HTTP; every fault is for one path."""

    files: dict[str, bytes] = field(default_factory=dict)
    busy: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    denied: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    changing: dict[str, list[bytes]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    unsized: set[str] = field(default_factory=set)
    gone: bool = False
    vanishes_after: int | None = None
    latency: float = 0.0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str) -> str:
        """URL of a path."""
        return f"{self.address}/{path}"

    def count(self, method: str, path: str = "") -> int:
        """Number of requests of a method for a path; "" = for any."""
        with self.lock:
            return sum(one[0] == method and path in ("", one[1]) for one in self.requests)


@contextmanager
def fault_server(**settings: object) -> Iterator[FaultServer]:
    """Run a server in a thread."""
    state = FaultServer(**settings)  # type: ignore[arg-type]

    class Handler(_Handler):
        server_state = state

    server = _Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that the other side closes are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body would wait for a receipt of the head
    server_state: FaultServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        state = self.server_state
        path = self.path.partition("?")[0].lstrip("/")
        with state.lock:
            state.requests.append((self.command, path, self.headers.get("Authorization", "")))
        if state.latency:
            state.stopped.wait(state.latency)
        if path in state.silent:
            state.stopped.wait(30)
            self.close_connection = True
            return
        if path in state.denied:
            self._status(403)
            return
        with state.lock:
            if state.vanishes_after is not None and len(state.requests) > state.vanishes_after:
                state.gone = True
            content = state.files.get(path)
            if content is None:
                self._status(404)
                return
            if state.gone or state.busy[path] > 0:
                state.busy[path] -= 1
                self._status(503)
                return
            cut = body and state.cut[path] > 0
            if cut:
                state.cut[path] -= 1
            if body and state.changing.get(path):
                state.files[path] = state.changing[path].pop(0)
                content = content[: len(content) // 2] + state.files[path][len(content) // 2 :]
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        plain = path in state.plain
        sent = content
        if span and not plain:
            start, stop = int(span[1]), min(int(span[2]) + 1, len(content))
            sent = content[start:stop]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        unsized = body and path in state.unsized
        if not unsized:
            self.send_header("Content-Length", str(len(sent)))
        if not plain:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if cut or unsized:
            self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.wfile.write(sent[: len(sent) // 2] if cut or unsized else sent)
        if cut or unsized:
            self.close_connection = True

    def _status(self, number: int) -> None:
        self.send_response(number)
        self.send_header("Content-Length", "0")
        self.end_headers()
