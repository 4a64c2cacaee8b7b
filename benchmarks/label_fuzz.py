"""Mutated requests against `preceptor label`.

    python benchmarks/label_fuzz.py --count 20000

No answer has a status of 500 or more, no file outside the folder is opened, and nothing that
another person has drawn is changed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.datasets import squares
from tests.label.fuzzing import fuzz
from tests.label.serving import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = squares(folder / "data", splits={"train": 8, "val": 4}, size=(40, 30))
        with running(manifest, cache=folder / "cache") as server:
            statuses = fuzz(server, folder / "canary.txt", given.count, given.seed)
    print(f"{given.count:,} requests, seed {given.seed}: {dict(sorted(statuses.items()))}")


if __name__ == "__main__":
    main()
