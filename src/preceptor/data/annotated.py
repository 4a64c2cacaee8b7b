"""Random subsets of the annotated images, stratified by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError


def draw_annotated(manifest: Manifest, amount: int | float | None, seed: int) -> NDArray[np.bool_]:
    """Draw a subset of the annotated training images with the same share of every class.

    For the same seed, a smaller share is part of a larger one, and so is a smaller number with two
    classes; with more, a class may have one image less in a larger number (the Alabama paradox of
    the largest remainder). The subset does not depend on the order of rows or on other splits.

    Args:
        manifest: Manifest.
        amount: None = all; a float in (0, 1] = share of the annotated images of each class; an int
            = total number, divided by largest remainder. Every class keeps at least one image.
        seed: Random seed.

    Returns:
        (n,) bool, the drawn rows, all in the split train.

    Raises:
        InputError: A class has no annotated images, or the amount is invalid.
    """
    table = manifest.table
    candidates = manifest.train_mask & manifest.annotated_mask
    labels = table["label"].to_numpy(object)
    classes = sorted(set(labels[manifest.train_mask]))
    counts = np.array([int((candidates & (labels == label)).sum()) for label in classes])
    if not counts.any():
        raise InputError(
            "no training image is annotated; mark some with `preceptor label`, or import masks or "
            "other annotations with `preceptor data import`"
        )
    for label, count in zip(classes, counts, strict=True):
        if count == 0:
            raise InputError(
                f"no training image of class {label!r} is annotated; add maps or, if nothing can "
                "be marked in them, add the column `annotated` with 1 for examined images"
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
    """Number of images to draw from each class."""
    total = int(counts.sum())
    if isinstance(amount, bool) or not np.isfinite(amount) or amount <= 0:
        raise InputError(f"annotated is {amount!r}; write a number of images or a share in (0, 1]")
    if isinstance(amount, float):
        if amount > 1:
            raise InputError(f"annotated is {amount!r}; a share is at most 1.0")
        # Round half up; rounding to 9 digits makes 0.1 · 35 = 3.5000000000000004 equal to 3.5.
        takes = np.floor(np.round(counts * amount, 9) + 0.5).astype(np.int64)
        return np.maximum(takes, 1)
    if amount > total:
        raise InputError(
            f"annotated is {amount:,}, but only {total:,} training images are annotated; write at "
            "most this number"
        )
    if amount < len(counts):
        raise InputError(
            f"annotated is {amount}; the {len(counts)} classes need at least one image each"
        )
    quotas = counts * amount / total
    takes = np.maximum(np.floor(quotas).astype(np.int64), 1)
    while takes.sum() < amount:
        takes[np.argmax(quotas - takes)] += 1
    while takes.sum() > amount:  # small classes keep one image
        takes[np.argmin(np.where(takes > 1, quotas - takes, np.inf))] -= 1
    return takes
