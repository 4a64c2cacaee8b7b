"""Sizes and places of the human marks of data sets, as `preceptor study plan` prints them.

    python benchmarks/mark_places.py --csv benchmarks/evidence/mark_places/marks.csv \
        "brain MRI=brain_mri/manifest.csv" "circuit boards=deeppcb_crops/manifest.csv"

Prints and writes a row for each data set: median area of a mark, and the mean share of a mark that
the mark of another training image covers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from preceptor.data.manifest import Manifest
from preceptor.study.mark_gains import marks_of_training


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", nargs="+", metavar="NAME=MANIFEST")
    parser.add_argument("--csv", type=Path, help="output file")
    arguments = parser.parse_args()
    rows = []
    for one in arguments.data:
        name, _, path = one.partition("=")
        marks = marks_of_training(Manifest.read(Path(path)))
        if marks is None:
            parser.error(f"{path}: fewer than two training images have marks")
        rows.append({"data": name, "area": marks.area, "overlap": marks.overlap, "n": marks.count})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.4f"))
    if arguments.csv:
        arguments.csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(arguments.csv, index=False, float_format="%.5f")


if __name__ == "__main__":
    main()
