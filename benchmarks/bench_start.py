"""Seconds of checking and caching images when a study starts: the first time, and again.

  python benchmarks/bench_start.py [--images N] [--turns T]

JPEG files of 256 px, in the page cache, and a new cache folder each turn. Both sides verify every
image, hash it and fill a cache of 224 px. The older way, written out here from the same functions,
decodes to verify, reads to hash and decodes to cache; on a second start it verifies and looks for
the cache. The order of the sides changes from turn to turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from measure import machine
from PIL import Image

from preceptor.config.image_format import ImageFormat
from preceptor.data.cache import open_images
from preceptor.data.decode_pass import INDEX
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import RowHashes, Workspace

FORM = ImageFormat(224)


def make_data(folder: Path, count: int) -> Path:
    """A manifest of `count` JPEG files of 256 px."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        coarse = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        name = f"images/{number}.jpg"
        Image.fromarray(coarse).resize((256, 256)).save(folder / name, quality=90)
        split = ("val", "test")[number // 10 % 2] if number % 10 == 0 else "train"
        rows.append((name, "ab"[number // 2 % 2], split))
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def in_three_passes(manifest: Path, caches: Path) -> None:
    table = Manifest.read(manifest)
    RowHashes(table, caches / INDEX)
    open_images(table, side=FORM.side, cache_dir=caches)


def in_one_pass(manifest: Path, caches: Path) -> None:
    space = Workspace.open(manifest, caches, verify=True, formats=[FORM])
    assert space.hashes
    space.images(FORM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    sides: dict[str, Callable[[Path, Path], None]] = {
        "three passes": in_three_passes,
        "one pass": in_one_pass,
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest = make_data(folder / "data", arguments.images)
        for run in sides.values():
            run(manifest, folder / run.__name__)
        for turn in range(arguments.turns):
            order = list(sides) if turn % 2 else list(sides)[::-1]
            for name in order:
                for start in ("first", "second"):
                    before = time.perf_counter()
                    sides[name](manifest, folder / f"{turn}-{name}")
                    seconds.setdefault((name, start), []).append(time.perf_counter() - before)
    print(f"{machine()}; {arguments.images:,} JPEG files, {arguments.turns} turns")
    for start in ("first", "second"):
        old, new = seconds["three passes", start], seconds["one pass", start]
        ratios = [one / other for one, other in zip(new, old, strict=True)]
        print(
            f"{start} start: three passes {median(old):.2f} s, one pass {median(new):.2f} s, "
            f"ratio {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
