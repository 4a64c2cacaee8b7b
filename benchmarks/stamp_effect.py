"""What a planted stamp costs each row of a study: the same seeds with and without the stamp.

  python benchmarks/stamp_effect.py [--data brain_mri|road_cracks] [--set test-unseen]

From two archives that have the same seeds, kind of Teacher, annotated images and initial weights:
AUC of each row without the stamp minus that with it, each at the α of its own study, with a 95 % t
interval over seeds, and how much more Baseline 2 loses than the Student, with the exact p value of
sign flips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from preceptor.evaluation.paired_tests import PairedResult, paired_difference
from preceptor.results import read
from preceptor.runtime.formatting import interval, number

EVIDENCE = Path(__file__).parent / "evidence"
PAIRS = {
    "brain_mri": ("brain_mri", "brain_mri_planted_mapper"),
    "road_cracks": ("road_cracks", "road_cracks_planted"),
}
"""Archives without and with the stamp."""
ROWS = {
    "no maps: Baseline 2": "baseline2",
    "all human maps, shuffled": "shuffled_human",
    "the Teacher's maps, shuffled": "shuffled",
    "one centred map": "centre",
    "principal components": "pca",
    "Baseline 1": "baseline1",
    "Student": "student",
    "all human maps: ceiling": "ceiling",
    "mapper, annotated": "mapper",
}


def aucs(archive: str, role: str, evaluation: str) -> pd.Series:
    """AUC of a row by seed, at the α that validation chose."""
    tables = read(EVIDENCE / archive)
    found, rows = tables.results, tables.table
    alpha = float(rows.loc[rows["key"] == role, "alpha"].iloc[0])
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
    parser.add_argument("--data", choices=PAIRS, default="brain_mri")
    parser.add_argument("--set", default="test-unseen")
    given = parser.parse_args()
    evaluation = given.set
    print(
        f"| row, AUC on {evaluation} | without the stamp minus with it | p |\n| --- | --- | --- |"
    )
    lost = {}
    for name, role in ROWS.items():
        plain, planted = (aucs(archive, role, evaluation) for archive in PAIRS[given.data])
        assert plain.index.equals(planted.index)
        lost[name] = plain - planted
        print(line(name, paired_difference(plain.to_list(), planted.to_list())))
    sides = (lost["no maps: Baseline 2"].to_list(), lost["Student"].to_list())
    print(line("loss of Baseline 2 minus loss of the Student", paired_difference(*sides)))


if __name__ == "__main__":
    main()
