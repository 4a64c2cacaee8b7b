"""Mutated configs and manifests through the commands: how many are accepted, refused, or crash.

    python benchmarks/fuzz.py [--count 20000] [--seed 1] [--whole 400] [--one KIND:SEED:NUMBER]

A third of the inputs each are run files, study files and CSV manifests. Run and study
files go through all that a command does before it builds a network; `--whole` of each kind also
build their networks, plan the study, and train where that takes a moment. The inputs and what they
go through are those of tests/fuzz. Ends with 1 if anything but exit code 0, or 2 with one line a
problem, came of an input. 20,000 take about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.campaigns import CONFIGS, TABLES, campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1, help="of the campaign")
    parser.add_argument("--whole", type=int, default=0, help="configs of each kind, up to training")
    parser.add_argument("--one", help="KIND:SEED:NUMBER of an input to run by itself")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if given.one:
        kind, seed, number = given.one.split(":")
        jobs = [(kind, [int(number)], int(seed), True)]
    else:
        each = given.count // 3
        jobs = [(kind, list(range(each)), given.seed, False) for kind in (*CONFIGS, *TABLES)]
        last = range(each, each + given.whole)
        jobs += [(kind, list(last), given.seed, True) for kind in CONFIGS if given.whole]
    failed = 0
    for kind, numbers, seed, whole in jobs:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = campaign(kind, Path(folder, "data"), numbers, seed, whole=whole)
        name = f"{kind}{', whole path' if whole else ''}"
        print(f"{name}: {tally} ({time.monotonic() - started:.0f} s)", flush=True)
        if tally.tracebacks or tally.wrong:
            failed += len(tally.tracebacks) + len(tally.wrong)
            print(tally.failures(), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
