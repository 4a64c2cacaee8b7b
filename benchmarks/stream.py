"""Remote images: many requests at a time against one at a time, through `read_content`.

    python benchmarks/stream.py [--files 200] [--latency 50] [--threads 32]

A server of the standard library on this machine waits for the latency before each answer, as a
distant one would. Both sides read the same files with the library's reader, into a new folder of
local copies each: a question for the state, the content, and the state again. The third side reads
the local copies, for which the state is asked once. Sides take turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import in_turn, machine, ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fault_server import fault_server

from preceptor.data.locations.read import NETWORK_THREADS, read_content

CONTENT = np.random.default_rng(0).bytes(100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--latency", type=float, default=50, help="milliseconds")
    parser.add_argument("--threads", type=int, default=NETWORK_THREADS)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    files = {str(at): CONTENT for at in range(args.files)}
    with (
        fault_server(files=files, latency=args.latency / 1000) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        urls = [server.url(path) for path in files]

        def read(threads: int, *, copied: bool = False) -> None:
            name = "copied" if copied else f"{time.monotonic_ns()}"
            os.environ["PRECEPTOR_CACHE"] = str(Path(folder, name))
            with ThreadPoolExecutor(threads) as pool:
                assert all(one == CONTENT for one in pool.map(read_content, urls))

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
    print(machine())
    print(f"{args.files} files of {len(CONTENT):,} bytes, {args.latency:g} ms an answer")
    for name, values in seconds.items():
        median = sorted(values)[len(values) // 2]
        print(f"{name:24} {median:7.2f} s  {args.files / median:7.1f} files/s")
    middle, least, most = ratio(seconds, several, single)
    print(f"{several} ÷ {single}: {middle:.3f} ({least:.3f} to {most:.3f})")


if __name__ == "__main__":
    main()
