"""Coverage of the t interval over seeds that split one data set again, against independent data.

Each replicate draws a data set, splits it ten times, and compares two linear classifiers on the
test images of each split. The interval is that of a study with one manifest per seed. Run:

    python benchmarks/resplit_coverage.py
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from preceptor.evaluation.auc import auc
from preceptor.evaluation.paired_tests import t_interval

REPLICATES, SPLITS, IMAGES = 250, 10, 300
FEATURES, USEFUL, STRENGTH = 20, 10, 0.35


def data(generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Features and labels of a data set."""
    labels = np.arange(IMAGES) % 2 == 0
    features = generator.normal(size=(IMAGES, FEATURES))
    features[labels, :USEFUL] += STRENGTH
    return features, labels


def difference(
    features: NDArray[np.float64], labels: NDArray[np.bool_], test: NDArray[np.int64]
) -> float:
    """AUC of a classifier on all features minus that of one on some, on the test images."""
    train = np.setdiff1d(np.arange(len(labels)), test)
    known, truth = features[train], labels[train]
    weights = known[truth].mean(0) - known[~truth].mean(0)
    some = slice(USEFUL // 2)
    whole, part = features[test] @ weights, features[test][:, some] @ weights[some]
    return auc(labels[test], whole) - auc(labels[test], part)


def differences(
    generator: np.random.Generator, tests: int, *, folds: bool, splits: int = SPLITS
) -> list[float]:
    """Differences of the splits of one new data set."""
    features, labels = data(generator)
    order = generator.permutation(IMAGES)
    found = []
    for number in range(splits):
        if not folds:
            order = generator.permutation(IMAGES)
        test = order[number::SPLITS] if folds else order[:tests]
        found.append(difference(features, labels, test))
    return found


def coverage(rows: NDArray[np.float64], truth: float) -> float:
    """Share of the replicates whose interval contains the true difference."""
    inside = [low <= truth <= high for low, high in map(t_interval, rows)]
    return float(np.mean(inside))


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    generator = np.random.default_rng(0)
    print(f"{IMAGES} images, {SPLITS} splits, {REPLICATES} replicates; coverage of 95 % intervals")
    for name, tests, folds in (
        ("random splits, 100 test images", 100, False),
        ("random splits, 60 test images", 60, False),
        ("cross-validation, 30 test images", 30, True),
    ):
        splits = [differences(generator, tests, folds=folds) for _ in range(REPLICATES)]
        rows = np.array(splits)
        truth = float(rows.mean())
        fresh = [
            [differences(generator, tests, folds=folds, splits=1)[0] for _ in range(SPLITS)]
            for _ in range(REPLICATES)
        ]
        print(
            f"{name}: {100 * coverage(rows, truth):.0f} %; independent data of this size: "
            f"{100 * coverage(np.array(fresh), truth):.0f} %"
        )


if __name__ == "__main__":
    main()
