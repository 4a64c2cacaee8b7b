"""Stratified splits with whole groups and held-out sources; draws of annotated images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from preceptor.data.checks import text
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.evaluation.delong import unit_codes
from preceptor.evaluation.split_names import kind_of, split_hint

_Ints = NDArray[np.int64]


def drawn_for_missing_classes(
    labels: pd.Series, groups: pd.Series, held: NDArray[np.object_], seed: int
) -> dict[str, _Ints]:
    """Draw images of the classes that held-out sets lack from the sources that are not held out.

    The number of images of a missing class is such that its ratio to the classes of the set is the
    same as in the whole table, but at most half of the available images for all sets together. Only
    whole groups are drawn. Groups that also have images of a class of the set are not drawn, since
    these images would be from a source that is not held out.

    Args:
        labels: (n,) labels of all images.
        groups: (n,) groups of all images, "" for none.
        held: (n,) held-out set of each image; None = not held out.
        seed: Random seed.

    Returns:
        Rows to add to each set. Classes that cannot be drawn stay missing.
    """
    codes, classes = pd.factorize(labels, sort=True)
    rows = np.flatnonzero([name is None for name in held])
    sets = sorted({str(name) for name in held if name is not None})
    inside = {name: np.bincount(codes[held == name], minlength=len(classes)) for name in sets}
    room = np.bincount(codes[rows], minlength=len(classes)) // 2
    wanted = _wanted(inside, np.bincount(codes, minlength=len(classes)), room)
    known = unit_codes(groups.to_numpy(object)[rows], len(rows))
    units = pd.factorize(known)[0].astype(np.int64)  # in the order of the rows
    counts = np.zeros((int(units.max(initial=-1)) + 1, len(classes)), np.int64)
    np.add.at(counts, (units, codes[rows]), 1)
    generator = np.random.default_rng([seed, 1])  # independent of the other splits
    taken = np.zeros(len(counts), bool)
    found = {}
    for name in sets:
        pure = ~taken & (counts[:, inside[name] > 0] == 0).all(axis=1)
        order = generator.permutation(np.flatnonzero(pure))
        chosen = _draw(counts, order, wanted[name], inside[name] == 0, room)
        taken[chosen] = True
        room = room - counts[chosen].sum(axis=0)
        found[name] = rows[np.isin(units, chosen)]
    return found


def _wanted(inside: Mapping[str, _Ints], overall: _Ints, room: _Ints) -> dict[str, _Ints]:
    """(C,) number of images of each class to add to each set, within the common limit."""
    asked = {}
    for name, own in inside.items():
        share = overall / overall[own > 0].sum()
        asked[name] = np.where(own > 0, 0, np.maximum(np.rint(own.sum() * share), 1))
    total = np.sum(list(asked.values()), axis=0)
    scale = np.minimum(1, room / np.maximum(total, 1))
    return {name: np.floor(want * scale + 1e-9).astype(np.int64) for name, want in asked.items()}


def _draw(
    counts: _Ints, order: _Ints, wanted: _Ints, lacking: NDArray[np.bool_], room: _Ints
) -> _Ints:
    """Units with the wanted numbers of images.

    If all groups of a class are larger than the wanted number, the smallest one is taken if the
    limit allows it.

    Args:
        counts: (U, C) number of images of each class in each unit.
        order: Candidate units, in random order.
        wanted: (C,) wanted number of images of each class.
        lacking: (C,) bool, classes that the set lacks.
        room: (C,) maximum number of images of each class.
    """
    left, chosen = wanted.copy(), []
    for unit in order:
        if not left.any():
            break
        if (counts[unit] <= left).all():
            left -= counts[unit]
            chosen.append(int(unit))
    for one in np.flatnonzero(lacking):
        drawn = counts[chosen].sum(axis=0)
        fits = order[(counts[order, one] > 0) & (counts[order] + drawn <= room).all(axis=1)]
        if not drawn[one] and len(fits):
            chosen.append(int(fits[np.argmin(counts[fits].sum(axis=1))]))
    return np.array(chosen, np.int64)


def added_classes(table: pd.DataFrame, hold_out: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Number of images of each class that were added to a held-out set from other sources.

    Args:
        table: Table returned by `make_splits`.
        hold_out: Held-out sources, as passed to `make_splits`.
    """
    sources = table["source"] if "source" in table else pd.Series("", index=table.index)
    moved = table[~sources.isin(list(hold_out)) & table["split"].isin(list(hold_out.values()))]
    found: dict[str, dict[str, int]] = {}
    for (name, label), part in moved.groupby(["split", "label"]):
        found.setdefault(str(name), {})[str(label)] = len(part)
    return found


_Floats = NDArray[np.float64]

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


def make_splits(
    manifest: Manifest | pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    hold_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Assign every image to a split, stratified by label and source.

    The shares apply to the images that are not held out. The size of each split is met to within
    the size of the largest group. Without groups, it is met to within one image, and so is the
    share of each label; the shares of every (label, source) are met as closely as this and the
    groups allow. A label with too few images for all splits goes to the training split first.

    Args:
        manifest: Manifest with `label` and, if known, `source` and `group`. Existing splits are
            replaced; `Manifest.read_unsplit` reads a table for this.
        fractions: Share of each split, above 0, adding up to 1; names as in a manifest.
        seed: Random seed.
        hold_out: Sources that are assigned to a split of their own as a whole, such as
            {"lens-x": "test-unseen"}. Images of classes that such a set lacks are added from other
            sources, see `hold_out.drawn_for_missing_classes`.

    Returns:
        Copy of the table with `split` filled.

    Raises:
        InputError: A seed, share, name or source is invalid, or a held-out source would divide a
            group.

    Example:
        >>> frame = pd.DataFrame({"path": list("abcdefgh"), "label": ["real", "fake"] * 4})
        >>> splits = make_splits(frame, {"train": 0.5, "val": 0.25, "test": 0.25}, seed=0)
        >>> splits.groupby("label")["split"].value_counts().unstack().loc["fake"].to_dict()
        {'test': 1, 'train': 2, 'val': 1}
    """
    table = manifest.table if isinstance(manifest, Manifest) else manifest
    if "label" not in table:
        raise InputError("column 'label' is missing; add it, since splits are stratified by label")
    nothing = pd.Series("", index=table.index, dtype="str")
    sources = text(table["source"]).str.strip() if "source" in table else nothing
    groups = text(table["group"]).str.strip() if "group" in table else nothing
    labels = text(table["label"]).str.strip()
    held = dict(hold_out or {})
    if seed < 0:
        raise InputError(f"seed is {seed}; write a whole number, 0 or more")
    _check_request(fractions, held, sources, groups)

    split = np.array([held.get(source) for source in sources], dtype=object)
    if held:
        for name, rows in drawn_for_missing_classes(labels, groups, split, seed).items():
            split[rows] = name
    free = np.array([name is None for name in split])
    if free.any():
        # A group is one unit, and so is each image that has none.
        unit = unit_codes(groups.to_numpy(object), len(table))[free]
        stratum, cells = pd.factorize(pd.MultiIndex.from_arrays([labels[free], sources[free]]))
        names = list(fractions)
        strata = Strata(
            pd.factorize(unit)[0].astype(np.int64),
            stratum.astype(np.int64),
            pd.factorize(cells.get_level_values(0))[0].astype(np.int64),
            np.array(list(fractions.values()), dtype=np.float64),
            names.index("train") if "train" in names else None,
        )
        chosen = assign(strata, np.random.default_rng(seed))
        split[free] = np.array(names, dtype=object)[chosen]
    return table.assign(split=pd.Series(split, index=table.index).astype("str"))


def _check_request(
    fractions: Mapping[str, float],
    held: Mapping[str, str],
    sources: pd.Series,
    groups: pd.Series,
) -> None:
    problems: list[Problem] = []

    def add(where: str, what: str, fix: str) -> None:
        problems.append(Problem(where, what, fix))

    for name, share in fractions.items():
        if not (np.isfinite(share) and share > 0):
            add(f"share of {name!r}", f"{share!r} is not above 0", "leave the split out")
    total = float(sum(fractions.values()))
    if not abs(total - 1) <= 1e-6:
        add("shares", f"they add up to {total:g}", "make them add up to 1")
    for name in [*fractions, *held.values()]:
        if not kind_of(pd.Series([name], dtype="str"))[0]:
            add(f"split {name!r}", "unknown", split_hint(name))
    for source, name in held.items():
        if name in fractions:
            fix = "assign it to a split of its own, such as test-unseen"
            add(f"held-out source {source!r}", f"the split {name!r} has a share as well", fix)
        if name == "train":
            fix = "assign it to val-NAME or test-NAME"
            add(f"held-out source {source!r}", "it is assigned to train", fix)
        if source not in set(sources):
            known = ", ".join(sorted(set(sources) - {""})) or "none"
            add(f"held-out source {source!r}", "there is no such source", f"known: {known}")
    if held:
        target = sources.map(dict(held)).where(sources.isin(list(held)), "the other splits")
        pairs = pd.DataFrame({"group": groups, "to": target})[groups != ""].drop_duplicates()
        for group, found in pairs[pairs["group"].duplicated(keep=False)].groupby("group"):
            to = " and ".join(found["to"].astype(str))
            add(f"group {group!r}", f"it would go to {to}", "hold out all of its sources, or none")
    if problems:
        raise ProblemsError("splits", problems)


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
