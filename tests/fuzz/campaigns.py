"""So many mutated files, each through the commands' own functions: what the tests and benchmarks/
fuzz.py share.

Each input has its own seed, `SEED:NUMBER`, so that one can be made again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from random import Random

from tests.commands import here
from tests.fuzz.configs import Case, mutated_config
from tests.fuzz.outcomes import Tally, guarded
from tests.fuzz.paths import RUNS, STUDIES, Paths, check_table, make_data, spoil_folder
from tests.fuzz.tables import mutated_csv

CONFIGS, TABLES = ("run", "study"), ("csv",)


def case_of(kind: str, folder: Path, seed: int, number: int) -> Case:
    """One input."""
    random = Random(f"{kind}:{seed}:{number}")
    if kind in CONFIGS:
        return mutated_config(random, random.choice(RUNS if kind == "run" else STUDIES))
    text = (folder / "manifest.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    return mutated_csv(random, rows)


def campaign(
    kind: str, folder: Path, numbers: Iterable[int], seed: int, *, whole: bool = False
) -> Tally:
    """Run mutated inputs."""
    make_data(folder)
    spoil_folder(folder)
    paths = Paths(folder, folder / "cache")
    tally = Tally()
    for number in numbers:
        case = case_of(kind, folder, seed, number)
        file = folder / f"mutated.{'csv' if kind == 'csv' else 'yaml'}"
        file.write_bytes(case.data)
        name = f"{kind}:{seed}:{number} {case.what}"
        if kind in CONFIGS:
            way = paths.run if kind == "run" else paths.study
            tally.enter(name, partial(guarded, partial(way, file, whole=whole)), case.keys)
            continue
        before = tally.accepted
        tally.enter(name, partial(guarded, partial(check_table, file)))
        if tally.accepted > before and (whole or number % 10 == 0):
            tally.accepted -= 1  # counted by what the command itself says
            tally.enter(name, partial(here, "data", "check", file))
    return tally
