"""Held-out evaluation sets: images of the classes that a held-out source does not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


def drawn_for_missing_classes(
    labels: pd.Series, groups: pd.Series, held: NDArray[np.object_], seed: int
) -> dict[str, _Ints]:
    """Draw the images that give each held-out set the classes it lacks.

    A class that a set lacks gets the share that it has in the whole table, relative to the set's
    own classes, of the images that are not held out: at most half of them, for all sets together,
    and whole groups. A group that also has images of a class that the set has is not drawn: these
    would be of a source that is not held out.

    Args:
        labels: Of all images, shape (n,).
        groups: Of all images, "" for none.
        held: The held-out set of each image, None where it is not held out.
        seed: Of the draw.

    Returns:
        The rows that join each set. A class that cannot be drawn stays missing.
    """
    codes, classes = pd.factorize(labels, sort=True)
    rows = np.flatnonzero([name is None for name in held])
    sets = sorted({str(name) for name in held if name is not None})
    inside = {name: np.bincount(codes[held == name], minlength=len(classes)) for name in sets}
    room = np.bincount(codes[rows], minlength=len(classes)) // 2
    wanted = _wanted(inside, np.bincount(codes, minlength=len(classes)), room)
    own = groups.to_numpy(object)[rows]
    alone = np.array([f"\0{row}" for row in rows], dtype=object)
    units = pd.factorize(np.where(own == "", alone, own))[0].astype(np.int64)
    counts = np.zeros((int(units.max(initial=-1)) + 1, len(classes)), np.int64)
    np.add.at(counts, (units, codes[rows]), 1)
    generator = np.random.default_rng([seed, 1])  # apart from the draw of the other splits
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
    """How many images of each class each set is to get, within the room that they share; (C,)."""
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
    """The units that bring a set the images it wants.

    Where the groups of a class are all larger than what is wanted of it, the smallest is taken if
    there is room for it.

    Args:
        counts: Images of each class in each unit, shape (U, C).
        order: Units to choose from, in random order.
        wanted: Images of each class, shape (C,).
        lacking: Which classes the set does not have, shape (C,).
        room: Images of each class that may be drawn at most, shape (C,).
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
    """How many images of each class a held-out set got from sources that are not held out.

    Args:
        table: Of `make_splits`.
        hold_out: As given to it.
    """
    sources = table["source"] if "source" in table else pd.Series("", index=table.index)
    moved = table[~sources.isin(list(hold_out)) & table["split"].isin(list(hold_out.values()))]
    found: dict[str, dict[str, int]] = {}
    for (name, label), part in moved.groupby(["split", "label"]):
        found.setdefault(str(name), {})[str(label)] = len(part)
    return found
