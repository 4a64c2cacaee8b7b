"""The map store: maps read a second, and bytes a map.

    python benchmarks/bench_store.py [--maps 200000] [--turns 5]

7 × 7 maps with class, score and both probabilities, paths as in a manifest. Targets: ≥ 200,000
maps a second read, ≤ 200 bytes a map.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from measure import in_turn, machine

from preceptor.maps.store import MapStore, StoreInfo, read_store, write_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    count, generator = arguments.maps, np.random.default_rng(0)
    probabilities = generator.random((count, 2)).astype(np.float32)
    store = MapStore(
        StoreInfo("t", "cam", "squash", 224, ("real", "fake"), {"cam_class": "label"}),
        np.array([f"images/train/{number:08d}.png" for number in range(count)], object),
        generator.random((count, 7, 7)).astype(np.float16),
        generator.integers(0, 2, count).astype(np.int32),
        probabilities[:, 0],
        probabilities,
    )
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sides = {"write": lambda: write_store(folder, store), "read": lambda: read_store(folder)}
        seconds = in_turn(sides, turns=arguments.turns)
        size = sum(file.stat().st_size for file in folder.iterdir()) / count
        assert np.array_equal(read_store(folder).maps, store.maps)
    for name, times in seconds.items():
        print(f"{name}: {count / median(times):,.0f} maps/s")
    print(f"{size:.0f} bytes a map")


if __name__ == "__main__":
    main()
