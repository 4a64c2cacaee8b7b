"""What a planted stamp costs each row of a study: the same seeds with and without the stamp.

  python benchmarks/stamp_effect.py [--set test-unseen]

From the archives brain_mri and brain_mri_planted_mapper, which have the same seeds, kind of
Teacher, annotated images and initial weights: AUC of each row without the stamp minus that with
it, with a 95 % t interval over seeds, and how much more Baseline 2 loses than the Student, with the
exact p value of sign flips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from preceptor.evaluation.paired_tests import PairedResult, paired_difference
from preceptor.results import read
from preceptor.runtime.formatting import interval, number

EVIDENCE = Path(__file__).parent / "evidence"
ROWS = {
    "no maps: Baseline 2": ("baseline2", 1.0),
    "all human maps, shuffled": ("shuffled_human", 0.5),
    "the Teacher's maps, shuffled": ("shuffled", 0.5),
    "one centred map": ("centre", 0.5),
    "Baseline 1": ("baseline1", 0.5),
    "Student": ("student", 0.5),
    "all human maps: ceiling": ("ceiling", 0.5),
    "mapper, annotated": ("mapper", 0.0),
}


def aucs(archive: str, role: str, alpha: float, evaluation: str) -> pd.Series:
    """AUC of a row by seed."""
    found = read(EVIDENCE / archive).results
    mine = found[
        (found["role"] == role)
        & (found["alpha"] == alpha)
        & (found["set"] == evaluation)
        & (found["source"] == "")
    ]
    return mine.drop_duplicates("seed").set_index("seed")["auc"].sort_index()


def line(name: str, found: PairedResult) -> str:
    spread = f"{number(found.mean, sign=True)} ({interval(found.low, found.high)})"
    return f"| {name} | {spread} | {number(found.p)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", default="test-unseen")
    evaluation = parser.parse_args().set
    print(
        f"| row, AUC on {evaluation} | without the stamp minus with it | p |\n| --- | --- | --- |"
    )
    lost = {}
    for name, (role, alpha) in ROWS.items():
        plain, planted = (
            aucs(archive, role, alpha, evaluation)
            for archive in ("brain_mri", "brain_mri_planted_mapper")
        )
        assert plain.index.equals(planted.index)
        lost[name] = plain - planted
        print(line(name, paired_difference(plain.to_list(), planted.to_list())))
    sides = (lost["no maps: Baseline 2"].to_list(), lost["Student"].to_list())
    print(line("loss of Baseline 2 minus loss of the Student", paired_difference(*sides)))


if __name__ == "__main__":
    main()
