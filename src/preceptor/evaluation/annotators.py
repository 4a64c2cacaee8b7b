"""Agreement of annotators who marked the same images.

An image counts for a pair of annotators if both looked at it. Dice and IoU compare the regions with
a value of one half or more; where both are empty they are undefined, and it is counted apart.
Pearson's correlation compares the maps, and is undefined where one is constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from preceptor.evaluation.displacements import displacements
from preceptor.evaluation.shift import cross_correlation, peak

_Floats = NDArray[np.float64]

REACH = 32
"""Largest displacement that is looked for, in cells."""
SHIFT, GAIN = 2.0, 0.05
"""Smallest displacement in cells that is reported, and the smallest rise of the correlation."""
GAP = 0.05
"""Smallest difference of the mean Dice that counts as disagreement, for any number of images."""


@dataclass(frozen=True)
class Pair:
    """Agreement of two annotators.

    Args:
        a, b: Annotators.
        images: Images that both looked at.
        empty: Those where neither marked anything.
        dice, iou, correlation: Means over images where they are defined; NaN = nowhere.
        dx, dy: Displacement of a against b with the highest correlation, in cells.
        shifted: Correlation with a moved back by it.
    """

    a: str
    b: str
    images: int
    empty: int
    dice: float
    iou: float
    correlation: float
    dx: float
    dy: float
    shifted: float


@dataclass(frozen=True)
class Person:
    """One annotator against the others.

    Args:
        name: Annotator.
        images: Images that this person looked at; shared: those that somebody else looked at too.
        dice, iou, correlation: Means over the pairs with this person.
        others: Mean Dice of the pairs without this person.
        gap: Mean over images of the Dice of the pairs without this person minus those with.
        low: Lower end of the t interval of the gap, at 95 % for all annotators together.
        area: Median ratio of the marked area to the mean of the others'.
        disagrees: Whether this person disagrees with all others, see `disagreement_rule`.
        dx, dy: Displacement against the others in cells, see `displacements`; NaN with two
            annotators.
        gain: Rise of the mean correlation with the others if it is undone.
    """

    name: str
    images: int
    shared: int
    dice: float
    iou: float
    correlation: float
    others: float
    gap: float
    low: float
    area: float
    disagrees: bool
    dx: float
    dy: float
    gain: float

    @property
    def is_shifted(self) -> bool:
        """Whether the displacement is large enough to be reported."""
        return math.hypot(self.dx, self.dy) >= SHIFT and self.gain >= GAIN


@dataclass(frozen=True)
class ImageAgreement:
    """Agreement on one image.

    Args:
        name: Image.
        annotators: Persons who looked at it.
        dice, iou, correlation: Means over pairs where they are defined, else NaN.
        empty: Whether nobody marked anything.
    """

    name: str
    annotators: tuple[str, ...]
    dice: float
    iou: float
    correlation: float
    empty: bool


@dataclass(frozen=True)
class Agreement:
    """Agreement of all annotators.

    Args:
        pairs: Pairs with a common image.
        people: Annotators, in order of their names.
        images: Images with two or more annotators, the least agreement first.
        single: Number of images with one annotator.
    """

    pairs: list[Pair]
    people: list[Person]
    images: list[ImageAgreement]
    single: int


def disagreement_rule() -> str:
    """Rule by which a person disagrees with all others, in words."""
    return (
        "A person disagrees with all others if the mean Dice of every pair with this person is "
        f"below that of every pair without, the difference over images is {GAP:g} or more, and its "
        "95 % interval, corrected for the number of annotators, lies above 0. It needs three "
        "annotators and five images."
    )


@dataclass
class _Sums:
    """Values of a pair, one an image, and the sum of the cross-correlations."""

    dice: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    correlation: list[float] = field(default_factory=list)
    empty: int = 0
    surface: _Floats = field(default_factory=lambda: np.zeros((2 * REACH + 1, 2 * REACH + 1)))
    surfaces: int = 0


class AgreementCounter:
    """Agreement of annotators, image by image."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], _Sums] = {}
        self._images: list[tuple[ImageAgreement, dict[tuple[str, str], float]]] = []
        self._areas: dict[str, list[float]] = {}
        self._seen: dict[str, int] = {}
        self._single = 0

    def add(
        self,
        name: str,
        maps: Mapping[str, NDArray[np.uint8]],
        cells: Mapping[str, _Floats] | None = None,
    ) -> None:
        """Add an image.

        Args:
            name: Image.
            maps: uint8 map of each person who looked at it, all of one shape.
            cells: The same maps on a coarser grid, for displacements; None = `maps`. The cells of
                all images have one size in pixels.
        """
        for person in maps:
            self._seen[person] = self._seen.get(person, 0) + 1
        if len(maps) < 2:
            self._single += len(maps)
            return
        coarse = {one: np.asarray(grid, np.float64) for one, grid in (cells or maps).items()}
        marked = {person: map_ >= 128 for person, map_ in maps.items()}
        sizes = {person: int(mask.sum()) for person, mask in marked.items()}
        found: dict[tuple[str, str], float] = {}
        rows = []
        for pair in combinations(sorted(maps), 2):
            sums = self._pairs.setdefault(pair, _Sums())
            a, b = pair
            both = int((marked[a] & marked[b]).sum())
            total = sizes[a] + sizes[b]
            dice = 2 * both / total if total else math.nan
            iou = both / (total - both) if total else math.nan
            r = pearson(maps[a], maps[b])
            sums.empty += not total
            sums.dice.append(dice)
            sums.iou.append(iou)
            sums.correlation.append(r)
            found[pair] = dice
            rows.append((dice, iou, r))
            surface = cross_correlation(coarse[a], coarse[b], REACH)
            if surface is not None:
                sums.surface += surface
                sums.surfaces += 1
        for person, size in sizes.items():
            rest = [other for one, other in sizes.items() if one != person]
            if sum(rest):
                self._areas.setdefault(person, []).append(size * len(rest) / sum(rest))
        dice, iou, r = (mean_of(column) for column in zip(*rows, strict=True))
        whole = ImageAgreement(name, tuple(sorted(maps)), dice, iou, r, not any(sizes.values()))
        self._images.append((whole, found))

    def result(self) -> Agreement:
        """Agreement of the images added so far."""
        pairs = []
        for (a, b), sums in sorted(self._pairs.items()):
            dx, dy, top = math.nan, math.nan, math.nan
            if sums.surfaces:
                dx, dy, top = peak(sums.surface / sums.surfaces)
            dice, iou, r = map(mean_of, (sums.dice, sums.iou, sums.correlation))
            pairs.append(Pair(a, b, len(sums.dice), sums.empty, dice, iou, r, dx, dy, top))
        steps = {(one.a, one.b): (one.dx, one.dy) for one in pairs}
        moved = displacements(sorted(self._seen), steps)
        people = [self._person(name, pairs, moved) for name in sorted(self._seen)]
        images = sorted(
            (one for one, _ in self._images),
            key=lambda one: (math.isnan(one.dice), one.dice, one.correlation, one.name),
        )
        return Agreement(pairs, people, images, self._single)

    def _person(
        self, name: str, pairs: Sequence[Pair], moved: dict[str, tuple[float, float]]
    ) -> Person:
        mine = [one for one in pairs if name in (one.a, one.b)]
        rest = [one for one in pairs if name not in (one.a, one.b)]
        gaps = []
        for _, found in self._images:
            with_me = mean_of([dice for pair, dice in found.items() if name in pair])
            without = mean_of([dice for pair, dice in found.items() if name not in pair])
            if math.isfinite(with_me) and math.isfinite(without):
                gaps.append(without - with_me)
        low = _low(gaps, len(self._seen))
        own = [one.dice for one in mine if math.isfinite(one.dice)]
        other = [one.dice for one in rest if math.isfinite(one.dice)]
        apart = bool(own and other) and max(own) < min(other)
        dx, dy = moved.get(name, (math.nan, math.nan))
        area = self._areas.get(name)
        return Person(
            name,
            self._seen[name],
            sum(name in one.annotators for one, _ in self._images),
            mean_of(own),
            mean_of([one.iou for one in mine]),
            mean_of([one.correlation for one in mine]),
            mean_of(other),
            mean_of(gaps),
            low,
            float(np.median(area)) if area else math.nan,
            apart and low > 0 and mean_of(gaps) >= GAP,
            dx,
            dy,
            self._gain(name, mine, dx, dy),
        )

    def _gain(self, name: str, mine: Sequence[Pair], dx: float, dy: float) -> float:
        """Rise of the mean correlation with the others if a displacement is undone."""
        if not math.isfinite(dx + dy):
            return math.nan
        rises = []
        for one in mine:
            sums = self._pairs[one.a, one.b]
            if sums.surfaces:
                sign = 1 if one.a == name else -1
                row, column = (REACH + round(sign * step) for step in (dy, dx))
                if 0 <= row <= 2 * REACH and 0 <= column <= 2 * REACH:
                    rise = sums.surface[row, column] - sums.surface[REACH, REACH]
                    rises.append(float(rise) / sums.surfaces)
        return mean_of(rises)


def pearson(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Pearson's correlation of two maps; NaN if one is constant.

    Example:
        >>> pearson(np.array([0, 1, 2]), np.array([4, 2, 0]))
        -1.0
    """
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x -= x.mean()
    y -= y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return min(1.0, max(-1.0, float(x @ y) / norm)) if norm > 1e-12 else math.nan


def mean_of(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN if there is none."""
    known = [one for one in values if math.isfinite(one)]
    return sum(known) / len(known) if known else math.nan


def _low(values: Sequence[float], looks: int) -> float:
    """Lower end of the t interval of a mean; NaN for fewer than five values.

    One of three equal annotators always has the two lower pairs: the level of 95 % is for all of
    them (Bonferroni).
    """
    if len(values) < 5:
        return math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values) - stats.t.ppf(1 - 0.025 / looks, len(values) - 1) * spread)
