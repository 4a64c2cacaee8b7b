"""From which overlap with the intended mark on a proposal saves time, under the stated costs.

    python benchmarks/label_break_even.py MANIFEST [--images 60]

No model: the proposals are the known marks, displaced and grown at random by more and more, so
that their overlap falls from 1. A simulated annotator marks each image from nothing and with the
proposal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.annotator_config import Costs, Error
from preceptor.label.simulated_annotator import intended_mark, mark
from preceptor.label.teacher import overlap

DEVIATIONS = (0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--images", type=int, default=60)
    asked = parser.parse_args()
    table = Manifest.read(asked.manifest, verify=False, need=()).table
    marked = table[(table["saliency"] != "") & (table["split"] == "train")]
    rng = np.random.default_rng(0)
    rows = []
    for file in marked["saliency"].sample(asked.images, random_state=0):
        values = decode_map(Path(file))
        truth = values >= max(float(values.max()) / 2, 1e-6)
        intended = intended_mark(truth, Error(), rng)
        for costs, name in (
            (Costs(), "0.1"),
            (Costs(steer=0.05), "0.05"),
            (Costs(steer=0.3), "0.3"),
        ):
            plain = mark(intended, None, costs)
            for deviation in DEVIATIONS:
                proposal = intended_mark(truth, Error(shift=deviation, scale=deviation), rng)
                found = mark(intended, proposal, costs)
                rows.append(
                    (name, overlap(proposal, intended), plain.seconds, found.seconds, found.adopted)
                )
    frame = pd.DataFrame(rows, columns=["steer", "overlap", "without", "with", "adopted"])
    frame["bin"] = pd.cut(frame["overlap"], BINS, right=False)
    found = frame.groupby(["steer", "bin"], observed=True).agg(
        images=("with", "size"),
        without=("without", "mean"),
        with_=("with", "mean"),
        adopted=("adopted", "mean"),
    )
    found["ratio"] = found["with_"] / found["without"]
    print(found.to_string(float_format="%.2f"))


if __name__ == "__main__":
    main()
