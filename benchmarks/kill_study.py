"""A study killed with SIGKILL at random moments ends with the same tables as an undisturbed one.

    python benchmarks/kill_study.py STUDY_FILE [--kills 3] [--seed 0]

Runs the study undisturbed with one job, then twice more (one job, two), each killed `kills` times
at moments drawn over the undisturbed duration, and compares table.csv, results.csv,
comparisons.csv and selection.json byte for byte. Also says what share of the undisturbed wall time
was spent in runs (the driver's overhead).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TABLES = ("table.csv", "results.csv", "comparisons.csv", "selection.json")


def command(file: Path, out: Path, jobs: int) -> list[str]:
    arguments = ["study", str(file), "--out", str(out), "--jobs", str(jobs)]
    return [sys.executable, "-c", "from preceptor.cli.main import main; main()", *arguments]


def finished(out: Path) -> int:
    return len(list(out.glob("store/*/*/run.json")))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        undisturbed = folder / "undisturbed"
        started = time.monotonic()
        subprocess.run(command(arguments.study, undisturbed, 1), check=True, capture_output=True)
        seconds = time.monotonic() - started
        runs = [json.loads(file.read_text()) for file in undisturbed.glob("store/runs/*/run.json")]
        spent = sum(run["seconds"] for run in runs)
        print(f"undisturbed: {len(runs)} runs in {seconds:.0f} s, {spent:.0f} s of them in epochs")
        for jobs in (1, 2):
            out = folder / f"killed-{jobs}"
            for moment in generator.uniform(0.1, 0.5, arguments.kills) * seconds / jobs:
                process = subprocess.Popen(
                    command(arguments.study, out, jobs), stdout=subprocess.DEVNULL
                )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                process.send_signal(signal.SIGKILL)
                process.wait()
                print(f"jobs {jobs}: killed after {moment:.0f} s, {finished(out)} steps finished")
            subprocess.run(command(arguments.study, out, jobs), check=True, capture_output=True)
            for name in TABLES:
                same = (out / name).read_bytes() == (undisturbed / name).read_bytes()
                print(f"jobs {jobs}: {name} {'the same, byte for byte' if same else 'DIFFERS'}")
                if not same:
                    sys.exit(1)


if __name__ == "__main__":
    main()
