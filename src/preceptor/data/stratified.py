"""Stratified assignment of units to splits: overall, by label, and by label and source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

_CLOSE = 1e-9


@dataclass(frozen=True)
class Strata:
    """Units and strata of the images that are assigned.

    Args:
        unit: (n,) unit of each image, 0..U-1: a group, or an image that has none.
        stratum: (n,) stratum of each image, 0..H-1.
        label: (H,) label of each stratum, 0..L-1.
        shares: (S,) share of each split.
        train: Split that gets the only unit of a label; None = no such split.
    """

    unit: _Ints
    stratum: _Ints
    label: _Ints
    shares: _Floats
    train: int | None


class _Lack:
    """Images that each split lacks, by stratum, by label and overall.

    Args:
        strata: Units and strata.

    Attributes:
        by_stratum: (H, S).
        by_label: (L, S).
        overall: (S,).
    """

    def __init__(self, strata: Strata) -> None:
        sizes = np.bincount(strata.stratum, minlength=len(strata.label))
        self.label = strata.label
        self.by_stratum = sizes[:, None] * strata.shares
        self.by_label = np.bincount(strata.label, sizes)[:, None] * strata.shares
        self.overall = len(strata.stratum) * strata.shares

    def put(self, present: _Ints, counts: _Ints, split: int) -> None:
        """Add images to a split.

        Args:
            present: Strata of the images, each once.
            counts: Number of images of each of these strata.
            split: Split; images are removed from it if the counts are negative.
        """
        self.by_stratum[present, split] -= counts
        np.subtract.at(self.by_label[:, split], self.label[present], counts)
        self.overall[split] -= counts.sum()


def assign(strata: Strata, generator: np.random.Generator) -> _Ints:
    """Assign every unit to a split.

    Without groups, every split has the stated share of all images and of each label to within one
    image. The share of a stratum is met as closely as this allows.

    Args:
        strata: Units and strata.
        generator: Random generator.

    Returns:
        (n,) split of each image, 0..S-1.
    """
    sizes = np.bincount(strata.unit)
    lack = _Lack(strata)
    chosen = np.full(len(sizes), -1, dtype=np.int64)
    _assign_groups(strata, sizes, lack, chosen, generator)
    _assign_singles(strata, sizes, lack, chosen, generator)
    _level(strata, sizes, lack, chosen)
    return chosen[strata.unit]


def _assign_groups(
    strata: Strata, sizes: _Ints, lack: _Lack, chosen: _Ints, generator: np.random.Generator
) -> None:
    """Assign groups, the largest first, so that the shares are met after each of them.

    The owed images of a level (a stratum, a label, all) are those that a split would have by its
    share of the images assigned so far, less those that it has. A group is assigned to the split
    for which the sum of their squares over the levels of the group is smallest. Labels with too few
    groups for all splits come first, and the first group of each to the training split.
    """
    large = generator.permutation(np.flatnonzero(sizes > 1))
    if not len(large):
        return
    by_unit = np.argsort(strata.unit, kind="stable")
    ends = np.cumsum(sizes)
    labels, shares, train = strata.label, strata.shares, strata.train
    owed_stratum, owed_label = np.zeros_like(lack.by_stratum), np.zeros_like(lack.by_label)
    owed = np.zeros_like(shares)
    pairs = np.unique(np.stack([labels[strata.stratum], strata.unit]), axis=1)
    few = np.bincount(pairs[0], minlength=len(lack.by_label)) * shares.min() < 1
    rare = np.zeros(len(sizes), bool)
    rare[pairs[1, few[pairs[0]]]] = True
    untrained = few.copy()
    for group in large[np.lexsort((-sizes[large], ~rare[large]))]:
        images = strata.stratum[by_unit[ends[group] - sizes[group] : ends[group]]]
        present, counts = np.unique(images, return_counts=True)
        own, index = np.unique(labels[present], return_inverse=True)
        within = np.bincount(index, counts).astype(np.int64)
        owed_stratum[present] += counts[:, None] * shares
        owed_label[own] += within[:, None] * shares
        owed += sizes[group] * shares
        gain = counts @ owed_stratum[present] + within @ owed_label[own] + sizes[group] * owed
        split = int(np.argmax(gain))
        if train is not None and untrained[own].any() and lack.overall[train] >= sizes[group]:
            split = train
        if split == train:
            untrained[own] = False
        chosen[group] = split
        owed_stratum[present, split] -= counts
        owed_label[own, split] -= within
        owed[split] -= sizes[group]
        lack.put(present, counts, split)


def _assign_singles(
    strata: Strata, sizes: _Ints, lack: _Lack, chosen: _Ints, generator: np.random.Generator
) -> None:
    """Assign the images without group: first their number by label, then by stratum."""
    single = generator.permutation(np.flatnonzero(sizes[strata.unit] == 1))
    if not len(single):
        return
    # Strata in random order within each label, so that none is always the first.
    order = generator.permutation(len(strata.label))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    own = strata.stratum[single]
    single = single[np.lexsort((place[own], strata.label[own]))]
    own = strata.stratum[single]
    number = np.bincount(strata.label[own], minlength=len(lack.by_label))
    left = _label_counts(strata, number, lack, generator)
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    levels, lengths = own[starts], np.diff(starts, append=len(own))
    quotas = _scaled(lack.by_stratum[levels], lengths)
    rest = np.zeros_like(lack.by_label)  # quotas of the strata of each label that come later
    np.add.at(rest, strata.label[levels], quotas)
    for level, start, length, quota in zip(levels, starts, lengths, quotas, strict=True):
        label = strata.label[level]
        free, wish = left[label], quota + left[label] - rest[label]
        counts = np.minimum(np.floor(quota + _CLOSE).astype(np.int64), free)
        while missing := int(length - counts.sum()):
            open_ = np.flatnonzero(free > counts)
            best = open_[np.argsort(counts[open_] - wish[open_], kind="stable")[:missing]]
            counts[best] += 1
        rest[label] -= quota
        left[label] = free - counts
        chosen[strata.unit[single[start : start + length]]] = np.repeat(
            np.arange(len(counts)), counts
        )
        lack.by_stratum[level] -= counts
        lack.by_label[label] -= counts
        lack.overall -= counts


def _label_counts(
    strata: Strata, number: _Ints, lack: _Lack, generator: np.random.Generator
) -> _Ints:
    """(L, S) number of single images of each label in each split.

    Every share is rounded up or down such that the splits have their shares of all images, to
    within one image, as far as the groups allow. Preferred are splits without an image of the
    label, the training split before the others, then those with the largest remainder. The integer
    program is that of a flow in a network, whose linear relaxation is integral.

    Args:
        strata: Units and strata.
        number: (L,) number of single images of each label.
        lack: Images that each split lacks after the groups.
        generator: Random generator.
    """
    quota = _scaled(lack.by_label, number)
    counts = np.floor(quota + _CLOSE).astype(np.int64)
    total = np.bincount(strata.label[strata.stratum], minlength=len(number))
    empty = (counts == 0) & (total[:, None] * strata.shares - lack.by_label < 0.5) & (quota > 0)
    wish = quota - counts + empty + generator.random(quota.shape) * 1e-3
    if strata.train is not None:
        wish[:, strata.train] += empty[:, strata.train]
    labels, splits = quota.shape
    rest = number - counts.sum(axis=1)
    owed = lack.overall - counts.sum(axis=0)
    # Variables: whether a share is rounded up, and images too few and too many in each split, at a
    # cost above all others.
    cell, split = np.arange(quota.size), np.arange(splits)
    few, many = quota.size + split, quota.size + splits + split
    size = quota.size + 2 * splits
    by_label = sparse.csr_array((np.ones(quota.size), (cell // splits, cell)), shape=(labels, size))
    by_split = sparse.csr_array(
        (
            np.concatenate([np.ones(quota.size + splits), np.full(splits, -1.0)]),
            (np.concatenate([cell % splits, split, split]), np.concatenate([cell, few, many])),
        ),
        shape=(splits, size),
    )
    most = np.concatenate([(quota > counts + _CLOSE).ravel(), np.full(2 * splits, np.inf)])
    found = milp(
        np.concatenate([-wish.ravel(), np.full(2 * splits, 100.0)]),
        integrality=np.ones(size),
        bounds=Bounds(0, most),
        constraints=[
            LinearConstraint(by_label, rest, rest),
            LinearConstraint(by_split, np.floor(owed + _CLOSE), np.ceil(owed - _CLOSE)),
        ],
    )
    assert found.x is not None  # every rounding of the shares of a label is allowed, at a cost
    rounded_up: _Ints = np.rint(found.x[: quota.size]).astype(np.int64).reshape(quota.shape)
    return counts + rounded_up


def _scaled(lack: _Floats, number: _Ints) -> _Floats:
    """Lacking images above 0, scaled to a number of images for each row."""
    owed = np.maximum(lack, 0)
    total = owed.sum(axis=1, keepdims=True)
    scaled: _Floats = np.divide(
        owed * number[:, None], total, out=np.zeros_like(owed), where=total > 0
    )
    return scaled


def _level(strata: Strata, sizes: _Ints, lack: _Lack, chosen: _Ints) -> None:
    """Move units from the fullest to the emptiest split until all sizes are within the bound.

    The bound is the size of the largest unit. Each move decreases the sum of squared deviations, so
    that the loop terminates. The moved unit is the one that improves labels and strata most.
    """
    bound = sizes.max() + 1e-6
    while np.abs(lack.overall).max() > bound:
        full, empty = int(np.argmin(lack.overall)), int(np.argmax(lack.overall))
        by_stratum = lack.by_stratum[:, empty] - lack.by_stratum[:, full]
        by_label = lack.by_label[:, empty] - lack.by_label[:, full]
        gain = np.bincount(strata.unit, (by_stratum + by_label[strata.label])[strata.stratum])
        moved = int(np.argmax(np.where(chosen == full, gain / sizes, -np.inf)))
        present, counts = np.unique(strata.stratum[strata.unit == moved], return_counts=True)
        chosen[moved] = empty
        lack.put(present, -counts, full)
        lack.put(present, counts, empty)
