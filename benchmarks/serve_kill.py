"""SIGKILLs of `preceptor serve` under load: no wrong answer, only failed requests.

python benchmarks/serve_kill.py --kills 20 --users 4
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.image_files import write_image_files
from tests.model_folders import model_folder
from tests.serve.killing import kill_under_load

import preceptor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--users", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_image_files(folder / "images").good
        model = model_folder(folder / "best", "test_byobnet", 1)
        scores = [one.score for one in preceptor.load(model, device="cpu")(files)]
        counts = kill_under_load(
            model,
            [one.read_bytes() for one in files],
            scores,
            kills=given.kills,
            users=given.users,
            answers=20,
        )
    print(f"{given.kills} kills, {given.users} users: {dict(counts)}")
    assert set(counts) <= {"right", "failed"}, counts


if __name__ == "__main__":
    main()
