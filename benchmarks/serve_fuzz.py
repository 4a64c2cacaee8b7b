"""Mutated requests against `preceptor serve`.

    python benchmarks/serve_fuzz.py --count 20000

No answer has a status of 500 or more, every refusal is one line, and afterwards nothing is in
flight and the predictions are those of before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.image_files import write_image_files
from tests.model_folders import model_folder
from tests.serve.fuzzing import fuzz
from tests.serve.serving import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_image_files(folder / "images")
        models = {
            "best": model_folder(folder / "best", "test_byobnet", 1, fit="letterbox"),
            "three": model_folder(
                folder / "three", "test_resnet", 4, classes=("a", "b", "c"), positive=None
            ),
        }
        with running(models, delay=0.0) as server:
            images = sorted([*files.good, *files.bad])
            statuses = fuzz(server, images, given.count, given.seed)
            memory = server.metric("process_resident_memory_bytes") / 2**20
    print(f"{given.count:,} requests, seed {given.seed}: {dict(sorted(statuses.items()))}")
    print(f"memory of the process at the end: {memory:.0f} MiB")


if __name__ == "__main__":
    main()
