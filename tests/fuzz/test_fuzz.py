"""Mutated configs and manifests: accepted, or refused with one line a problem.

`python benchmarks/fuzz.py` runs thousands of them. A failure names its input as KIND:SEED:NUMBER,
which `python benchmarks/fuzz.py --one KIND:SEED:NUMBER` runs by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaigns import campaign


@pytest.mark.parametrize(("kind", "count"), [("run", 100), ("study", 80), ("csv", 90)])
def test_mutated_files_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    tally = campaign(kind, tmp_path / "data", range(count), seed=0)
    print(tally)
    assert not tally.tracebacks | tally.wrong, f"{tally}\n\n{tally.failures()}"
    assert tally.inputs == count
    # Neither is the rule: mutations that are all refused at the first look would find nothing.
    assert tally.accepted > count / 20
    assert tally.refused > count / 3


@pytest.mark.parametrize("kind", ["run", "study"])
def test_mutated_configs_up_to_the_training(kind: str, tmp_path: Path) -> None:
    tally = campaign(kind, tmp_path / "data", range(5000, 5010), seed=0, whole=True)
    assert not tally.tracebacks | tally.wrong, f"{tally}\n\n{tally.failures()}"
