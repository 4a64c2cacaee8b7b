"""Displacement of each annotator, from those of the pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Step = tuple[float, float]


def displacements(
    people: Sequence[str], between: Mapping[tuple[str, str], Step]
) -> dict[str, Step]:
    """Displacement of each annotator against the others.

    The displacements of the pairs are explained by one displacement of each person, by least
    squares; of these, the median over persons is subtracted, so that it is the position of the
    majority. With two annotators it is not known whose hand is displaced, and nothing is returned.
    Annotators who are connected by no common images are compared apart.

    Args:
        people: Annotators.
        between: Displacement (dx, dy) of the first of two annotators against the second; NaN = not
            known.

    Example:
        >>> between = {("a", "b"): (6.0, 0.0), ("a", "c"): (6.0, 0.0), ("b", "c"): (0.0, 0.0)}
        >>> [abs(round(dx, 6)) for dx, _ in displacements("abc", between).values()]
        [6.0, 0.0, 0.0]
    """
    known = {pair: step for pair, step in between.items() if math.isfinite(sum(step))}
    found: dict[str, Step] = {}
    for there in _connected(people, known):
        if len(there) < 3:
            continue
        place = {name: at for at, name in enumerate(there)}
        own = {pair: step for pair, step in known.items() if pair[0] in place}
        system = np.zeros((len(own), len(there)))
        for row, (a, b) in enumerate(own):
            system[row, place[a]], system[row, place[b]] = 1, -1
        solved = np.linalg.lstsq(system, np.array(list(own.values())), rcond=None)[0]
        solved -= np.median(solved, axis=0)
        found |= {name: (float(x), float(y)) for name, (x, y) in zip(there, solved, strict=True)}
    return found


def _connected(people: Sequence[str], pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of annotators who are connected by pairs, each in the order of `people`."""
    group = {name: {name} for name in people}
    for a, b in pairs:
        if group[a] is not group[b]:
            group[a] |= group[b]
            for name in group[b]:
                group[name] = group[a]
    distinct = {id(members): members for members in group.values()}
    return [[name for name in people if name in members] for members in distinct.values()]
