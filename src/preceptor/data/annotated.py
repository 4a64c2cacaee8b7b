"""Which annotated images a study may use: a draw at the same share of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError


def draw_annotated(manifest: Manifest, amount: int | float | None, seed: int) -> NDArray[np.bool_]:
    """Draw the annotated training images that a study may use, every class at the same share.

    A smaller draw is part of a larger one of the same seed, and neither the order of rows nor other
    splits have a say in it.

    Args:
        manifest: The images.
        amount: None for all; a float in (0, 1] for that share of each class's annotated images; an
            int for so many in total, by largest remainder. A class keeps one image at least.
        seed: Of the draw.

    Returns:
        bool of shape (n,): the rows drawn, all of them in the split train.

    Raises:
        InputError: A class without annotated images, or an amount that cannot be had.
    """
    table = manifest.table
    candidates = manifest.train_mask & manifest.annotated_mask
    labels = table["label"].to_numpy(object)
    classes = sorted(set(labels[manifest.train_mask]))
    counts = np.array([int((candidates & (labels == label)).sum()) for label in classes])
    for label, count in zip(classes, counts, strict=True):
        if count == 0:
            raise InputError(
                f"no training image of class {label!r} is annotated; give it maps or, if it has "
                "nothing to point at, add the column `annotated` with 1 for those examined"
            )
    if amount is None:
        return candidates
    takes = _shares(counts, amount)
    drawn = np.zeros(len(table), dtype=bool)
    generator = np.random.default_rng(seed)
    names = table["name"].to_numpy(object)
    for label, take in zip(classes, takes, strict=True):
        inside = np.flatnonzero(candidates & (labels == label))
        ordered = inside[np.argsort(names[inside].astype(str), kind="stable")]
        drawn[generator.permutation(ordered)[:take]] = True
    return drawn


def _shares(counts: NDArray[np.int64], amount: int | float) -> NDArray[np.int64]:
    """How many to take of each class."""
    total = int(counts.sum())
    if isinstance(amount, bool) or not np.isfinite(amount) or amount <= 0:
        raise InputError(f"annotated is {amount!r}; write a number of images or a share in (0, 1]")
    if isinstance(amount, float):
        if amount > 1:
            raise InputError(f"annotated is {amount!r}; a share is at most 1.0")
        # Halves go up; rounding first keeps 0.1 · 35 = 3.5000000000000004 and 3.5 together.
        takes = np.floor(np.round(counts * amount, 9) + 0.5).astype(np.int64)
        return np.maximum(takes, 1)
    if amount > total:
        raise InputError(f"annotated is {amount:,}, but only {total:,} training images are")
    if amount < len(counts):
        raise InputError(f"annotated is {amount}; {len(counts)} classes need one image each")
    quotas = counts * amount / total
    takes = np.maximum(np.floor(quotas).astype(np.int64), 1)
    while takes.sum() < amount:
        takes[np.argmax(quotas - takes)] += 1
    while takes.sum() > amount:  # small classes were given their one image
        takes[np.argmin(np.where(takes > 1, quotas - takes, np.inf))] -= 1
    return takes
