"""Mutated configs and manifests: accepted, or refused with one line a problem.

`python benchmarks/fuzz.py` runs thousands of them. A failure names its input as KIND:SEED:NUMBER,
which `python benchmarks/fuzz.py --one KIND:SEED:NUMBER` runs by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Outcome, in_fork
from tests.fuzz.campaigns import campaign, case_of, file_of
from tests.fuzz.outcomes import Tally, faults, guarded, unnamed
from tests.fuzz.paths import make_data, spoil_folder


@pytest.mark.parametrize(
    ("kind", "count"), [("run", 200), ("study", 250), ("csv", 250), ("parquet", 200)]
)
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
    tally = campaign(kind, tmp_path / "data", range(5000, 5030), seed=0, whole=True)
    assert not tally.tracebacks | tally.wrong, f"{tally}\n\n{tally.failures()}"


@pytest.mark.parametrize("kind", ["study", "csv"])
def test_mutated_files_in_processes_of_their_own(kind: str, tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    spoil_folder(folder)
    command = {"run": ("train",), "study": ("study",)}.get(kind, ("data", "check"))
    options = () if command[0] == "data" else ("--out", tmp_path / "out")
    case, file = case_of(kind, folder, 1, 0), file_of(kind, folder, 0)
    # What follows makes it sure to be refused, and soon.
    more = b"\n? [no, config]\n: here\n" if options else b"\n\0"
    file.write_bytes(case.data + more)
    outcome = in_fork(*command, file.name, *options, cwd=folder)
    assert outcome.code == 2, (case.what, outcome)
    assert not faults(outcome), (case.what, outcome)


# The judge itself.


def outcome(text: str, code: int = 2) -> Outcome:
    return Outcome(code, "", text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("error: x: lr is -1\n", 1),
        ("lr is -1\n", 2),
        ("error: x: 2 problems\n  lr: -1; fix it\n", 2),
        ("error: x: 1 problem\n  lr: -1; fix it\n  and more\n", 2),
        ("error: x: 1 problem\n  lr: a\x1bb; fix it\n", 2),
        ("error: x\n  lr: -1\n", 2),
        ("error: " + "x" * 20_000 + "\n", 2),
    ],
)
def test_refusals_that_are_none(text: str, code: int) -> None:
    assert faults(outcome(text, code))


def test_refusals_as_they_should_be() -> None:
    assert not faults(outcome("error: x: lr is -1\n"))
    assert not faults(outcome("error: x: 2 problems\n  lr: -1; fix it\n  alpha: 2; fix it\n"))
    assert not unnamed(outcome("error: lr: -1\n"), ["training", "lr"])
    assert not unnamed(outcome("error: line 3: what?\n"), ["lr"])
    assert unnamed(outcome("error: alpha: -1\n"), ["training", "lr"])


def test_exceptions_are_counted_as_tracebacks() -> None:
    def fail() -> None:
        raise KeyError("lr")

    tally = Tally()
    tally.enter("an input", lambda: guarded(fail))
    assert list(tally.tracebacks) == ["an input"]
    assert "KeyError" in tally.failures()
