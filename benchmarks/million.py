"""Reading of a manifest with a million rows: time and memory beyond the decoding of its images.

    python benchmarks/million.py [--rows 1000000] [--files 20000] [--side 64]

The rows are hard links to JPEG files. Each part runs in a process of its own, whose time, processor
time and largest memory are printed: `listed` checks that the files exist, `first` decodes every
image and remembers it, `again` reads the manifest with the files unchanged, and `decode` decodes a
sample of the files in a plain loop, which is what `first` is compared with. Then the memory of a
training process by the number of images, see `training_memory`. With as many files as rows, there
are no links.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import machine
from PIL import Image

from preceptor.data.decode_pass import DecodePass
from preceptor.data.images import decode_image
from preceptor.data.manifest import Manifest

PARTS = ("listed", "decode", "first", "again")
LINKS = 50_000  # to one file; ext4 allows 65,000
FOLDER = 20_000  # files in a folder
FEW = 500  # every so many rows are in the manifest with few rows


def make_manifest(folder: Path, rows: int, files: int, side: int) -> Path:
    """Manifest whose images are links to `files` JPEG files of `side` pixels.

    With as many files as rows, each image is a file of its own.
    """
    generator = np.random.default_rng(0)
    (folder / "files").mkdir()
    originals = [folder / "files" / f"{number}.jpg" for number in range(files)]
    for path in originals:
        coarse = generator.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(path, quality=90)
    assert rows <= files * LINKS
    place = os.replace if files == rows else os.link
    with (folder / "manifest.csv").open("w") as table:
        table.write("path,label,split,source,group\n")
        for row in range(rows):
            name = f"images/{row // FOLDER}/{row}.jpg"
            if row % FOLDER == 0:
                (folder / name).parent.mkdir(parents=True)
            place(originals[row % files], folder / name)
            split = "train" if row < 0.9 * rows else ("val", "test")[row % 2]
            table.write(f"{name},{'ab'[row // 2 % 2]},{split},s{row % 7},g{row}\n")
    return folder / "manifest.csv"


def run_part(part: str, manifest: Path, rows: int, files: int) -> int:
    """Do one part in this process; returns the number of images."""
    if part == "listed":
        return len(Manifest.read(manifest, verify=False).table)
    if part == "decode":
        for number in range(files):
            decode_image(manifest.parent / f"images/{number // FOLDER}/{number}.jpg")
        return files
    with DecodePass(manifest.parent / "cache") as decoding:
        return len(Manifest.read(manifest, decoding=decoding).table)


@contextlib.contextmanager
def children_peaks() -> Iterator[dict[int, int]]:
    """Largest resident memory in KiB of each child of this process, looked up ten times a second.

    Not `ru_maxrss`: in a child it starts with the memory of the process that has started it.
    """
    peaks: dict[int, int] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for file in Path("/proc/self/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    for pid in map(int, file.read_text().split()):
                        status = Path(f"/proc/{pid}/status").read_text()
                        found = re.search(r"VmHWM:\s+(\d+)", status)
                        if found:
                            peaks[pid] = int(found[1])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def measured(part: str, manifest: Path, rows: int, files: int) -> list[float]:
    """Part in a process of its own: images, seconds, seconds of a core and bytes."""
    command = [sys.executable, __file__, "--part", part, "--manifest", manifest]
    command += ["--rows", rows, "--files", files]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--manifest", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        started, core = time.perf_counter(), time.process_time()
        with children_peaks() as peaks:
            count = run_part(given.part, given.manifest, given.rows, given.files)
        seconds, core = time.perf_counter() - started, time.process_time() - core
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        others = resource.getrusage(resource.RUSAGE_CHILDREN)  # the processes that decode
        core += others.ru_utime + others.ru_stime
        memory += 1024 * sum(peaks.values())  # at most: they share libraries
        print(json.dumps([count, seconds, core, memory]))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_manifest(Path(folder), given.rows, given.files, given.side)
        print(f"{given.rows:,} rows, links to {given.files:,} files of {given.side} px")
        cores: dict[str, float] = {}
        for part in PARTS:
            count, seconds, core, memory = measured(part, manifest, given.rows, given.files)
            cores[part] = core / count * given.rows
            print(
                f"{part:>8} {seconds:7.1f} s, {core:6.1f} s of a core, {memory / 2**30:.2f} GiB: "
                f"{count:,} images",
                flush=True,
            )
        print(f"first − decode of as many: {cores['first'] - cores['decode']:.1f} s of a core")
        header, *lines = manifest.read_text().splitlines()
        few = manifest.with_name("few.csv")
        few.write_text("\n".join([header, *lines[::FEW], *lines[1::FEW], *lines[2::FEW]]) + "\n")
        cache = manifest.parent / "cache"
        with DecodePass(cache) as decoding:
            Manifest.read(few, decoding=decoding)
        from training_memory import figures  # the parts are measured without its imports

        for line in figures(manifest, few, cache):
            print(line, flush=True)


if __name__ == "__main__":
    main()
