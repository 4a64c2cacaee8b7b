"""Held-out evaluation sets: images of the classes that a held-out source lacks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.evaluation.units import unit_codes

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
