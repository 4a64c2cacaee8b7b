"""Remote images: many requests at a time against one at a time, through `read_content`.

    python benchmarks/stream.py [--files 200] [--latency 50] [--threads 32]

A server of the standard library on this machine waits for the latency before each answer, as a
distant one would. Both sides read the same files with the library's reader, into a new folder of
local copies each: a question for the state, the content, and the state again. The third side reads
the local copies, for which the state is asked once. Sides take turns.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from measure import in_turn, machine, ratio

from preceptor.data.locations.read import NETWORK_THREADS, read_content


class Handler(BaseHTTPRequestHandler):
    """Files of random bytes, each answer after the latency."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    latency = 0.05
    content = np.random.default_rng(0).bytes(100_000)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        time.sleep(self.latency)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", hashlib.sha1(self.path.encode()).hexdigest())
        self.end_headers()
        if body:
            self.wfile.write(self.content)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--latency", type=float, default=50, help="milliseconds")
    parser.add_argument("--threads", type=int, default=NETWORK_THREADS)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    Handler.latency = args.latency / 1000
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{at}" for at in range(args.files)]

    with tempfile.TemporaryDirectory() as folder:

        def read(threads: int, *, copied: bool = False) -> None:
            name = "copied" if copied else f"{time.monotonic_ns()}"
            os.environ["PRECEPTOR_CACHE"] = str(Path(folder, name))
            with ThreadPoolExecutor(threads) as pool:
                assert all(one == Handler.content for one in pool.map(read_content, urls))

        several, single = f"{args.threads} at a time", "one at a time"
        copies = f"copies, {args.threads} at a time"
        seconds = in_turn(
            {
                several: lambda: read(args.threads),
                single: lambda: read(1),
                copies: lambda: read(args.threads, copied=True),
            },
            turns=args.turns,
        )
    server.shutdown()
    print(machine())
    print(f"{args.files} files of {len(Handler.content):,} bytes, {args.latency:g} ms an answer")
    for name, values in seconds.items():
        median = sorted(values)[len(values) // 2]
        print(f"{name:24} {median:7.2f} s  {args.files / median:7.1f} files/s")
    middle, least, most = ratio(seconds, several, single)
    print(f"{several} ÷ {single}: {middle:.3f} ({least:.3f} to {most:.3f})")


if __name__ == "__main__":
    main()
