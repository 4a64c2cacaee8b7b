"""Layered layout of a graph that is drawn from top to bottom: levels, order and positions.

A connection that crosses a level has a lane (a dummy node) there, so that no line passes behind a
box. Connections to the same box share their lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

Place = tuple[str, int]
"""A box and a level: the box itself on its own level, its lane on one above."""

_SWEEPS = 24


def levels(needs: Mapping[str, Sequence[str]], most: int) -> dict[str, int]:
    """Level of each box: below all boxes that it needs, with a limited number per level.

    Among the candidates for a level, those with the longest path below them are chosen (Hu 1961,
    Parallel sequencing and assembly line problems).

    Args:
        needs: Boxes that each box needs, without cycles, in topological order.
        most: Maximum number of boxes on a level.

    Example:
        >>> levels({"a": [], "b": [], "c": ["b"], "d": ["c", "a"]}, 1)
        {'b': 0, 'a': 1, 'c': 2, 'd': 3}
    """
    way = dict.fromkeys(needs, 0)  # boxes below, along the longest way
    for name in reversed(list(needs)):
        for need in needs[name]:
            way[need] = max(way[need], way[name] + 1)
    found: dict[str, int] = {}
    level = 0
    while len(found) < len(needs):
        ready = [
            name
            for name in needs
            if name not in found and all(need in found for need in needs[name])
        ]
        found |= dict.fromkeys(sorted(ready, key=lambda name: -way[name])[:most], level)
        level += 1
    return found


def links(
    needs: Mapping[str, Sequence[str]], level: Mapping[str, int]
) -> list[tuple[Place, Place]]:
    """Connections from each level to the next; longer ones pass through lanes."""
    found: dict[tuple[Place, Place], None] = {}
    for name, before in needs.items():
        for need in before:
            chain = [(need, level[need])]
            chain += [(name, at) for at in range(level[need] + 1, level[name] + 1)]
            found |= dict.fromkeys(pairwise(chain))
    return list(found)


def ordered_rows(
    level: Mapping[str, int], joined: Sequence[tuple[Place, Place]]
) -> list[list[Place]]:
    """Order of boxes and lanes on each level, with few crossings.

    Sweeps down and up, placing each node below the mean of its neighbors (Sugiyama et al. 1981);
    the order with the fewest crossings of all sweeps is used.
    """
    places = dict.fromkeys([*level.items(), *(place for link in joined for place in link)])
    rows: list[list[Place]] = [[] for _ in range(max(level.values()) + 1)]
    for place in places:
        rows[place[1]].append(place)
    best, fewest = rows, crossings(rows, joined)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        around = _neighbours(joined, down, not down)
        rows = [list(row) for row in rows]
        for at in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            share = _shares(rows[at - 1 if down else at + 1])
            own = _shares(rows[at])
            middle = {
                place: _mean([share[other] for other in around.get(place, [])], own[place])
                for place in rows[at]
            }
            rows[at].sort(key=lambda place, middle=middle: middle[place])  # type: ignore[misc]
        count = crossings(rows, joined)
        if count < fewest:
            best, fewest = rows, count
    return best


def crossings(rows: Sequence[Sequence[Place]], joined: Sequence[tuple[Place, Place]]) -> int:
    """Number of crossing pairs of connections."""
    order = {place: position for row in rows for position, place in enumerate(row)}
    ends = [(one[1], order[one], order[other]) for one, other in joined]
    return sum(
        ends[i][0] == ends[j][0] and (ends[i][1] - ends[j][1]) * (ends[i][2] - ends[j][2]) < 0
        for i in range(len(ends))
        for j in range(i)
    )


def positions(
    rows: Sequence[Sequence[Place]],
    joined: Sequence[tuple[Place, Place]],
    widths: Mapping[Place, float],
    wide: float,
    gap: float,
) -> dict[Place, float]:
    """Horizontal center of every box and lane, near its neighbors.

    Lanes are placed above their successors, so that they are straight.

    Args:
        rows: Order on each level, from `ordered_rows`.
        joined: Connections, from `links`.
        widths: Width of each node; a row with its gaps is not wider than the figure.
        wide: Width of the figure.
        gap: Gap between two nodes of a row.
    """
    around, below = _neighbours(joined, True, True), _neighbours(joined, False, True)
    lanes = {(name, at) for name, at in widths if (name, at + 1) in widths}
    centre: dict[Place, float] = {}
    for row in rows:
        centre |= _apart(row, [wide / 2] * len(row), widths, wide, gap)
    for _ in range(_SWEEPS):
        for row in reversed(rows):
            wanted = [
                _mean(
                    [
                        centre[other]
                        for other in (below if place in lanes else around).get(place, [])
                    ],
                    wide / 2,
                )
                for place in row
            ]
            centre |= _apart(row, wanted, widths, wide, gap)
    return centre


def _apart(
    row: Sequence[Place],
    wanted: Sequence[float],
    widths: Mapping[Place, float],
    wide: float,
    gap: float,
) -> dict[Place, float]:
    """Centers near the wanted ones that keep the order and the gaps.

    The mean of packing from the left and from the right; both keep order and gaps, and so does
    their mean.
    """
    sizes = [widths[place] for place in row]
    rest = sum(sizes) + gap * (len(row) - 1)
    left, right = list(wanted), list(wanted)
    edge, room = 0.0, rest
    for at, size in enumerate(sizes):
        left[at] = min(max(wanted[at], edge + size / 2), wide - room + size / 2)
        edge = left[at] + size / 2 + gap
        room -= size + gap
    edge, room = wide, rest
    for at in reversed(range(len(row))):
        size = sizes[at]
        right[at] = max(min(wanted[at], edge - size / 2), room - size / 2)
        edge = right[at] - size / 2 - gap
        room -= size + gap
    return {place: (left[at] + right[at]) / 2 for at, place in enumerate(row)}


def _neighbours(
    joined: Sequence[tuple[Place, Place]], above: bool, below: bool
) -> dict[Place, list[Place]]:
    """Neighbors of each node on the level above, below, or both."""
    found: dict[Place, list[Place]] = {}
    for one, other in joined:
        if above:
            found.setdefault(other, []).append(one)
        if below:
            found.setdefault(one, []).append(other)
    return found


def _shares(row: Sequence[Place]) -> dict[Place, float]:
    """Relative position of each node in its row, in (0, 1)."""
    return {place: (position + 0.5) / len(row) for position, place in enumerate(row)}


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
