"""Stratified splits by label and source, with whole groups and held-out sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.hold_out import drawn_for_missing_classes
from preceptor.data.manifest import Manifest
from preceptor.data.manifest_cells import text
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.evaluation.split_names import kind_of, split_hint
from preceptor.evaluation.units import unit_codes

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


def make_splits(
    manifest: Manifest | pd.DataFrame,
    fractions: Mapping[str, float],
    seed: int,
    hold_out: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Assign every image to a split, stratified by label and source.

    The shares apply to the images that are not held out. The size of each split is met to within
    the size of the largest group (to within one image without groups), and the shares of every
    (label, source) as closely as the groups allow.

    Args:
        manifest: Manifest with `label` and, if known, `source` and `group`. Existing splits are
            replaced. `Manifest.read(path, need=())` reads a table without splits.
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
        strata = pd.factorize(pd.MultiIndex.from_arrays([labels[free], sources[free]]))[0]
        chosen = _assign(
            pd.factorize(unit)[0].astype(np.int64),
            strata.astype(np.int64),
            np.array(list(fractions.values()), dtype=np.float64),
            np.random.default_rng(seed),
        )
        split[free] = np.array(list(fractions), dtype=object)[chosen]
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


def _assign(unit: _Ints, stratum: _Ints, shares: _Floats, generator: np.random.Generator) -> _Ints:
    """Split of each image.

    Args:
        unit: (n,) unit of each image, 0..U-1.
        stratum: (n,) stratum of each image, 0..H-1.
        shares: (S,) share of each split.
        generator: Random generator.

    Returns:
        (n,) split of each image, 0..S-1.
    """
    sizes = np.bincount(unit)
    want = np.bincount(stratum)[:, None] * shares  # images of each stratum in each split
    lack = want.copy()
    chosen = np.full(len(sizes), -1, dtype=np.int64)
    _assign_groups(unit, stratum, sizes, want, lack, chosen, generator)
    _assign_singles(unit, stratum, sizes, lack, chosen, generator)
    _level(unit, stratum, sizes, lack, chosen)
    return chosen[unit]


def _assign_groups(
    unit: _Ints,
    stratum: _Ints,
    sizes: _Ints,
    want: _Floats,
    lack: _Floats,
    chosen: _Ints,
    generator: np.random.Generator,
) -> None:
    """Assign groups, largest first, to the split whose chi-square statistic decreases most."""
    by_unit = np.argsort(unit, kind="stable")
    ends = np.cumsum(sizes)
    large = generator.permutation(np.flatnonzero(sizes > 1))
    for group in large[np.argsort(-sizes[large], kind="stable")]:
        images = by_unit[ends[group] - sizes[group] : ends[group]]
        present, counts = np.unique(stratum[images], return_counts=True)
        size, owed = sizes[group], lack.sum(axis=0)
        within = counts[:, None] * (counts[:, None] - 2 * lack[present]) / want[present]
        overall = size * (size - 2 * owed) / want.sum(axis=0)
        split = int(np.argmin(within.sum(axis=0) + overall))
        chosen[group] = split
        lack[present, split] -= counts


def _assign_singles(
    unit: _Ints,
    stratum: _Ints,
    sizes: _Ints,
    lack: _Floats,
    chosen: _Ints,
    generator: np.random.Generator,
) -> None:
    """Assign single images by stratum, in proportion to the missing counts of the splits."""
    single = np.flatnonzero(sizes[unit] == 1)
    single = generator.permutation(single)
    single = single[np.argsort(stratum[single], kind="stable")]
    starts = np.flatnonzero(np.diff(stratum[single], prepend=-1))
    carry = np.zeros(lack.shape[1])
    for images in np.split(single, starts[1:]) if len(single) else []:
        level = stratum[images[0]]
        owed = np.maximum(lack[level], 0)
        quota = owed * (len(images) / owed.sum())
        counts = np.floor(quota + 1e-9).astype(np.int64)
        rest = len(images) - int(counts.sum())
        counts[np.argsort(-(quota - counts + carry), kind="stable")[:rest]] += 1
        carry += quota - counts
        chosen[unit[images]] = np.repeat(np.arange(len(counts)), counts)
        lack[level] -= counts


def _level(unit: _Ints, stratum: _Ints, sizes: _Ints, lack: _Floats, chosen: _Ints) -> None:
    """Move units from the fullest to the emptiest split until all sizes are within the bound.

    The bound is the size of the largest unit. Each move decreases the sum of squared deviations, so
    that the loop terminates. The moved unit is the one that improves the strata most.
    """
    bound = sizes.max() + 1e-6
    while np.abs(owed := lack.sum(axis=0)).max() > bound:
        full, empty = int(np.argmin(owed)), int(np.argmax(owed))
        gain = np.bincount(unit, (lack[:, empty] - lack[:, full])[stratum]) / sizes
        moved = int(np.argmax(np.where(chosen == full, gain, -np.inf)))
        counts = np.bincount(stratum[unit == moved], minlength=len(lack))
        chosen[moved] = empty
        lack[:, full] += counts
        lack[:, empty] -= counts
