"""Milliseconds of a batch of random rows from the shards of an image cache, and from one array.

    python benchmarks/bench_shards.py [--side 224] [--images 4000] [--batch 32] [--turns 7]

Both hold the same images and are memory-mapped; their pages are in the page cache. Each turn takes
the same batches from both, in processor time of this process; the median of the turns is printed,
with its ratio. What the first access to a page costs is outside.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from measure import machine
from numpy.typing import NDArray

from preceptor.data.cache_view import open_view
from preceptor.data.canvas_format import CanvasFormat
from preceptor.data.file_contents import FileContents
from preceptor.data.shard_writer import ShardWriter
from preceptor.data.shards import SHARDS, ShardFolder

BATCHES = 100
Take = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def fill(cache: Path, form: CanvasFormat, count: int) -> tuple[Take, Take]:
    """Functions that take rows from one array and from shards of the same random images."""
    generator = np.random.default_rng(0)
    digests = generator.integers(0, 256, (count, 16), np.uint8)
    hidden = cache / "hidden"
    hidden.mkdir()
    writer = ShardWriter(ShardFolder.of_images(cache, form), hidden, count)
    images = generator.integers(0, 256, (count, *form.shape), np.uint8)
    for digest, image in zip(digests, images, strict=True):
        writer.put(digest.tobytes(), image, (form.side, form.side))
    writer.finish()
    np.save(cache / "one.npy", images)  # written as the shards are, not through a map
    view = open_view(cache, form, FileContents.of(digests, np.zeros_like(digests)))
    assert view is not None
    whole = np.load(cache / "one.npy", mmap_mode="r")
    return lambda rows: whole[rows], view.canvases


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="folder of the files; default: temporary files")
    given = parser.parse_args()
    print(machine())
    form = CanvasFormat(given.side)
    generator = np.random.default_rng(1)
    batches = [generator.integers(0, given.images, given.batch) for _ in range(BATCHES)]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        takes = fill(Path(folder), form, given.images)
        shards = len(list((Path(folder) / SHARDS).glob("*/*")))
        for rows in batches:
            assert np.array_equal(takes[0](rows), takes[1](rows))
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(given.turns):
            for side in (0, 1) if turn % 2 else (1, 0):
                started = time.process_time()
                for rows in batches:
                    takes[side](rows)
                seconds[side].append((time.process_time() - started) / BATCHES)
    one, several = (1000 * median(part) for part in seconds)
    print(
        f"{given.images:,} images of {given.side} px, batches of {given.batch}: one array "
        f"{one:.3f} ms, {shards} shards {several:.3f} ms: ratio {several / one:.2f}"
    )


if __name__ == "__main__":
    main()
