"""Stratified splits with whole groups and held-out sources; draws of annotated images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.checks import text
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.metrics.paired_tests import unit_codes
from preceptor.metrics.split_names import kind_of, split_hint

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def make_splits(
    manifest: Manifest | pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    hold_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The table with every image in a split, stratified by label and source.

    Groups are assigned greedily, the largest first; single images fill up what is missing. Without
    groups, every split has its share of each label to within one image. Sources in `hold_out` get
    a split of their own, with images of other sources for the classes that it lacks.
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
    units = pd.factorize(unit_codes(groups.to_numpy(object), len(table)))[0].astype(np.int64)
    if held:
        _add_missing_classes(split, pd.factorize(labels, sort=True)[0], units, seed)
    free = np.array([name is None for name in split])
    if free.any():
        strata, cells = pd.factorize(pd.MultiIndex.from_arrays([labels[free], sources[free]]))
        names = list(fractions)
        chosen = _assign(
            pd.factorize(units[free])[0],
            strata,
            pd.factorize(cells.get_level_values(0))[0],
            np.array(list(fractions.values()), dtype=np.float64),
            names.index("train") if "train" in names else None,
            np.random.default_rng(seed),
        )
        split[free] = np.array(names, dtype=object)[chosen]
    return table.assign(split=pd.Series(split, index=table.index).astype("str"))


def _check_request(
    fractions: Mapping[str, float], held: Mapping[str, str], sources: pd.Series, groups: pd.Series
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
        for group, rows in pairs[pairs["group"].duplicated(keep=False)].groupby("group"):
            to = " and ".join(rows["to"].astype(str))
            fix = "hold out all of its sources, or remove its other rows"
            add(f"group {group!r}", f"it would go to {to}", fix)
    if problems:
        raise ProblemsError("splits", problems)


def _assign(
    unit: _Ints,
    stratum: _Ints,
    label: _Ints,
    shares: _Floats,
    train: int | None,
    generator: np.random.Generator,
) -> _Ints:
    """(n,) split of each image, by its unit and stratum; (H,) label of each stratum."""
    sizes = np.bincount(unit)
    counts = np.bincount(stratum, minlength=len(label))
    # Images that each split lacks: by stratum, by label and overall.
    lack_stratum = counts[:, None] * shares
    lack_label = np.bincount(label, counts)[:, None] * shares
    lack = len(unit) * shares
    units = np.unique(np.stack([label[stratum], unit]), axis=1)[0]  # labels, once for each unit
    is_rare = np.bincount(units) * shares.min() < 1
    untrained = is_rare.copy()
    chosen = np.full(len(sizes), -1, dtype=np.int64)
    by_unit, ends = np.argsort(unit, kind="stable"), np.cumsum(sizes)
    large = generator.permutation(np.flatnonzero(sizes > 1))
    rare = np.zeros(len(sizes), bool)
    rare[unit[is_rare[label[stratum]]]] = True
    # Shares of the images assigned so far, less what the splits have: squares of these stay small.
    owed_stratum, owed_label = np.zeros_like(lack_stratum), np.zeros_like(lack_label)
    owed = np.zeros_like(lack)
    for group in large[np.lexsort((-sizes[large], ~rare[large]))]:
        images = stratum[by_unit[ends[group] - sizes[group] : ends[group]]]
        present, many = np.unique(images, return_counts=True)
        own, position = np.unique(label[present], return_inverse=True)
        within = np.bincount(position, many)
        owed_stratum[present] += many[:, None] * shares
        owed_label[own] += within[:, None] * shares
        owed += sizes[group] * shares
        gain = many @ owed_stratum[present] + within @ owed_label[own] + sizes[group] * owed
        split = int(np.argmax(gain))
        if train is not None and untrained[own].any() and lack[train] >= sizes[group]:
            split = train
        if split == train:
            untrained[own] = False
        chosen[group] = split
        for levels in (owed_stratum, lack_stratum):
            levels[present, split] -= many
        for levels in (owed_label, lack_label):
            levels[own, split] -= within
        for levels in (owed, lack):
            levels[split] -= sizes[group]
    single = generator.permutation(np.flatnonzero(sizes[unit] == 1))
    left = _label_counts(
        lack_label, lack, np.bincount(label[stratum[single]], minlength=len(is_rare)), train
    )
    order = np.argsort(generator.permutation(len(label))[stratum[single]], kind="stable")
    single = single[order]
    for level in pd.unique(stratum[single]):
        images = single[stratum[single] == level]
        free = left[label[level]]
        take = _rounded(_scaled(lack_stratum[level], len(images)), len(images), free)
        left[label[level]] = free - take
        chosen[unit[images]] = np.repeat(np.arange(len(shares)), take)
    return chosen[unit]


def _label_counts(lack_label: _Floats, lack: _Floats, number: _Ints, train: int | None) -> _Ints:
    """(L, S) number of single images of each label in each split."""
    quotas = np.stack([_scaled(*pair) for pair in zip(lack_label, number.tolist(), strict=True)])
    floors = np.floor(quotas + 1e-9).astype(np.int64)
    counts, can_rise = floors.copy(), quotas > floors + 1e-9
    owed = lack - counts.sum(0)
    for label in np.argsort(number, kind="stable"):
        empty = counts[label] == 0
        wish = quotas[label] - counts[label] + np.clip(owed, -1, 1) + 2.0 * empty
        if train is not None:
            wish[train] += 2.0 * empty[train]
        wish[~can_rise[label]] = -np.inf
        up = np.argsort(-wish, kind="stable")[: number[label] - counts[label].sum()]
        counts[label, up] += 1
        owed[up] -= 1
    # Splits that are off by more than an image exchange one that was rounded up.
    for _ in range(counts.size):
        for full, lacking in product(np.argsort(owed), np.argsort(-owed)):
            risen = counts > floors
            rows = np.flatnonzero(risen[:, full] & (can_rise & ~risen)[:, lacking])
            off = max(owed[lacking], -owed[full])
            if off > 1 and owed[lacking] - owed[full] > 1 and len(rows):
                row = rows[np.argmax(counts[rows, full])]
                counts[row, [full, lacking]] += (-1, 1)
                owed[[full, lacking]] += (1, -1)
                break
        else:
            break
    return counts


def _scaled(lack: _Floats, number: int) -> _Floats:
    """Lacking images above 0, scaled to a number of images."""
    owed = np.maximum(lack, 0)
    return (
        owed * (number / owed.sum()) if owed.sum() > 0 else np.full(len(lack), number / len(lack))
    )


def _rounded(quota: _Floats, number: int, free: _Ints) -> _Ints:
    """Whole numbers near the quotas that add up to `number`, each at most `free`."""
    counts = np.minimum(np.floor(quota + 1e-9).astype(np.int64), free)
    while missing := int(number - counts.sum()):
        open_ = np.flatnonzero(free > counts)
        counts[open_[np.argsort(counts[open_] - quota[open_], kind="stable")[:missing]]] += 1
    return counts


def _add_missing_classes(
    split: NDArray[np.object_], classes: _Ints, units: _Ints, seed: int
) -> None:
    """Draw whole groups with the classes that held-out sets lack, from the other sources."""
    generator = np.random.default_rng([seed, 1])  # independent of the other splits
    rows = np.flatnonzero([name is None for name in split])
    overall = np.bincount(classes)
    counts = np.zeros((units.max() + 1, len(overall)), np.int64)
    np.add.at(counts, (units[rows], classes[rows]), 1)
    room = counts.sum(0) // 2
    names = sorted({str(name) for name in split if name is not None})
    inside = {name: np.bincount(classes[split == name], minlength=len(overall)) for name in names}
    asked = {
        name: np.where(own, 0, np.maximum(np.rint(own.sum() * overall / overall[own > 0].sum()), 1))
        for name, own in inside.items()
    }
    scale = np.minimum(1, room / np.maximum(np.sum(list(asked.values()), axis=0), 1))
    for name, own in inside.items():
        wanted, drawn = np.floor(asked[name] * scale + 1e-9), np.zeros(len(overall), np.int64)
        pure = counts.any(1) & (counts[:, own > 0] == 0).all(1)
        order = generator.permutation(np.flatnonzero(pure))
        taken = []
        for one in order:
            if (drawn + counts[one] <= wanted).all():
                drawn += counts[one]
                taken.append(one)
        for missing in np.flatnonzero((own == 0) & (drawn == 0)):  # all of its groups are larger
            fits = order[(counts[order, missing] > 0) & (counts[order] + drawn <= room).all(1)]
            if len(fits):
                taken.append(fits[np.argmin(counts[fits].sum(1))])
                drawn += counts[taken[-1]]
        room = room - drawn
        counts[taken] = 0
        split[rows[np.isin(units[rows], taken)]] = name


def added_classes(table: pd.DataFrame, hold_out: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Number of images of each class that were added to a held-out set from other sources."""
    sources = table["source"] if "source" in table else pd.Series("", index=table.index)
    moved = table[~sources.isin(list(hold_out)) & table["split"].isin(list(hold_out.values()))]
    added: dict[str, dict[str, int]] = {}
    for (name, label), part in moved.groupby(["split", "label"]):
        added.setdefault(str(name), {})[str(label)] = len(part)
    return added


def draw_annotated(manifest: Manifest, amount: int | float | None, seed: int) -> NDArray[np.bool_]:
    """(n,) annotated training images: all, a number, or a share, the same of every class.

    For the same seed, a smaller draw is part of a larger one. The draw does not depend on the
    order of rows or on other splits.
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
    # Divisors of Webster: a larger number takes no image from any class.
    takes = np.ones_like(counts)
    for _ in range(amount - len(counts)):
        takes[np.argmax(np.where(takes < counts, counts / (2 * takes + 1), -1))] += 1
    return takes
