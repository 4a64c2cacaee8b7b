"""Swapped images: the inside of the marks of one image on the outside of another.

    x' = a_i · x_i + (1 − a_i) · e_j,        e_j = (1 − a_j) · x_j + a_j · fill

a_i is the region of the marks of image i: cut at half of their maximum, wider by up to one 64th of
the side, with a soft edge. The label is the class of i. The class of j is drawn independently of
it, so that the outside tells nothing about the label. Images of a class without marks get the
region of a random marked image, and are cut, pasted and filled in the same way. A fill is the same
region of a third image that has no mark there, whose class is drawn at random; if fewer than 95 %
of the marked images have such a third image, all fills are blurred from around the region instead.

Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object Recognition", ICLR 2021,
swap foregrounds and backgrounds of ImageNet (MIXED-RAND), whose images all have an object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from preceptor.errors import Problem, ProblemsError
from preceptor.metrics.auc import Array, macro_auc, macro_auc_weighted
from preceptor.metrics.bootstrap import percentiles

LEAST = 20
"""Images with marks, or examined without any, below which nothing can be said."""
MOST_MARKED = 0.6
"""Share of an image that its marks cover in the median, above which no outside is left."""
_TRIES = 25  # third images of a class that are tried for a fill
_FILLED = 0.95  # share of marked images that must have a third image
_CELLS = 8  # of a side, for the features of the editing check
_EDITS = 300  # least number of images of the editing check

Pixels = NDArray[np.uint8]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """Estimate with its 95 % interval; NaN if it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MarkedImages:
    """Images that people have examined, with their marks."""

    pixels: Pixels  # (n, H, W, C)
    masks: NDArray[np.float32]  # (n, H, W) in [0, 1]; all zero = examined, nothing marked
    labels: Index  # (n,)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class SwappedImages:
    """Insides on outsides, m = n · per_image, in the order of the insides."""

    pixels: Pixels  # (m, H, W, C)
    labels: Index  # (m,) class of the inside
    inside: Index  # (m,) position of the image that gives the inside
    outside: Index  # (m,) position of the image that gives the outside
    outside_labels: Index  # (m,) class of the outside


def check_marks(images: MarkedImages, source: str) -> None:
    """Check that there is something to swap.

    Raises:
        ProblemsError: Fewer than 20 images, one class, no marks, or marks that cover more than 60 %
            of the images.
    """
    count, shares = len(images), binary(images.masks).mean((1, 2))
    found = []
    if count < LEAST:
        what = f"{count} with marks or examined, and swaps need {LEAST}"
        found.append(Problem("images", what, f"mark {LEAST - count} more"))
    if len(set(images.labels.tolist())) < 2:
        found.append(Problem("label", "fewer than two classes", "examine images of each class"))
    if not shares.any():
        fix = "mark what decides (preceptor label), or give maps"
        found.append(Problem("saliency", "no image has a mark", fix))
    elif (share := float(np.median(shares[shares > 0]))) > MOST_MARKED:
        fix = "mark only what decides; no outside is left to swap"
        found.append(Problem("saliency", f"marks cover {share:.0%} of the image", fix))
    if found:
        raise ProblemsError(source, found)


def binary(masks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n, H, W) masks cut at half of the maximum of each."""
    top = masks.max((1, 2), keepdims=True)
    return np.asarray((masks >= top / 2) & (top > 0), np.bool_)


def swap(
    images: MarkedImages,
    *,
    classes: int,
    per_image: int,
    seed: int,
) -> SwappedImages:
    """Swapped images, `per_image` of each image.

    Outsides are of each class equally often: for each image if `per_image` is a multiple of their
    number, else over the images of a class. No image is its own outside, unless it is the only one
    of its class.
    """
    rng = np.random.default_rng([seed, 1])
    edit = _Editor(images, rng)
    members = [np.flatnonzero(images.labels == one) for one in range(classes)]
    present = [one for one in range(classes) if len(members[one])]
    inside = np.repeat(np.arange(len(images)), per_image)
    outside = np.empty_like(inside)
    for label in range(classes):
        slots = np.flatnonzero(images.labels[inside] == label)
        for start in range(0, len(slots), len(present)):
            part = slots[start : start + len(present)]
            for slot, other in zip(part, rng.permutation(present), strict=False):
                among = members[other]
                if len(among) > 1:
                    among = among[among != inside[slot]]
                outside[slot] = rng.choice(among)
    pixels = np.empty((len(inside), *images.pixels.shape[1:]), np.uint8)
    for at, (i, j) in enumerate(zip(inside.tolist(), outside.tolist(), strict=True)):
        region = edit.region(edit.donor(i))
        around = edit.filled(j, edit.region(edit.donor(j)), i)
        pixels[at] = _blend(images.pixels[i], around, region)
    return SwappedImages(pixels, images.labels[inside], inside, outside, images.labels[outside])


def shuffled(images: MarkedImages, seed: int) -> MarkedImages:
    """The same images with the marks of other images of their class; none keeps its own."""
    masks, rng = images.masks.copy(), np.random.default_rng([seed, 9])
    for label in np.unique(images.labels):
        marked = np.flatnonzero((images.labels == label) & images.masks.any((1, 2)))
        order = rng.permutation(marked)
        masks[order] = images.masks[np.roll(order, 1)]
    return replace(images, masks=masks)


def outside_only(images: MarkedImages, *, seed: int) -> Pixels:
    """(n, H, W, C) images with their marked regions, or a borrowed one, filled."""
    edit = _Editor(images, np.random.default_rng([seed, 2]))
    made = [edit.filled(i, edit.region(edit.donor(i))) for i in range(len(images))]
    return np.rint(made).astype(np.uint8)


def inside_only(images: MarkedImages, *, seed: int) -> Pixels:
    """(n, H, W, C) marked regions, or a borrowed one, on the blurred mean of all images."""
    edit = _Editor(images, np.random.default_rng([seed, 3]))
    mean = _blurred(images.pixels.mean(0, dtype=np.float32), np.zeros((), np.float32))
    made = [(one, edit.region(edit.donor(i))) for i, one in enumerate(images.pixels)]
    return np.stack([_blend(one, mean, region) for one, region in made])


def replicates(labels: Index, scores: Array, *units: Index, seed: int) -> Array:
    """(1000,) AUC of (n, C) scores on resamples of all units that n images consist of.

    A swapped image has two of them, which are resampled independently (Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 2007): its inside and its outside. Those of the first
    units are the same at every call with a seed.
    """
    rng, counts = np.random.default_rng([seed, 5]), np.ones((1000, len(labels)))
    for of in units:
        size = int(of.max()) + 1
        counts *= rng.multinomial(size, np.full(size, 1 / size), 1000)[:, of]
    return macro_auc_weighted(labels, scores, counts)


def estimate(value: float, drawn: Array) -> Estimate:
    """Estimate with the interval of its replicates, of which some may be undefined."""
    return Estimate(value, *percentiles(drawn[~np.isnan(drawn)]))


def editing_check(images: MarkedImages, *, classes: int, seed: int) -> Estimate:
    """AUC of a classifier that sees only what the editing changes; 0.5 if that tells nothing.

    Each image lends its region, or a borrowed one, and its class to random other images, whose
    region is filled. A balanced ridge classifier has the size of the change in 8 × 8 cells, in gray
    and in edges, and is tested on regions that it was not trained with (five folds; the interval
    resamples regions and images). It sees more than a model does, since it knows the image before.
    An AUC above 0.5 shows that outlines of regions differ by class (places, sizes), which a model
    could read in the fill. An AUC of 0.5 does not show that marks cover all evidence inside them,
    or that a network sees no finer trace.
    """
    rng = np.random.default_rng([seed, 4])
    edit = _Editor(images, rng)
    lenders = np.tile(np.arange(len(images)), -(-_EDITS // len(images)))
    donors = np.array([edit.donor(one) for one in lenders.tolist()])
    bases = (lenders + rng.integers(1, len(images), len(lenders))) % len(images)
    features = []
    for base, donor in zip(bases.tolist(), donors.tolist(), strict=True):
        before = images.pixels[base].astype(np.float32)
        after = edit.filled(base, edit.region(donor))
        features.append(np.concatenate([_change(before, after, edge) for edge in (False, True)]))
    values, labels = np.stack(features), images.labels[lenders]
    units, codes = np.unique(donors, return_inverse=True)
    folds = (rng.permutation(len(units)) % 5)[codes]
    scores = np.zeros((len(labels), classes))
    for fold in range(5):
        train = folds != fold
        scores[~train] = _ridge(values[train], labels[train], values[~train], classes)
    return estimate(macro_auc(labels, scores), replicates(labels, scores, codes, bases, seed=seed))


class _Editor:
    """Regions and fills of images."""

    def __init__(self, images: MarkedImages, rng: np.random.Generator) -> None:
        self.images, self.rng = images, rng
        self.reach = max(1, round(images.pixels.shape[1] / 128))
        self.marks = binary(images.masks)
        self.marked = np.flatnonzero(self.marks.any((1, 2)))
        labels = images.labels
        self.members = [np.flatnonzero(labels == one) for one in np.unique(labels)]
        tested = rng.permutation(self.marked)[:200].tolist()
        found = [self._third(self.region(one), (one,)) is not None for one in tested]
        self.thirds = bool(np.mean(found or [False]) >= _FILLED)

    def donor(self, at: int) -> int:
        """Image whose marks are the region of an image: itself, or a random marked one."""
        return at if self.marks[at].any() else int(self.rng.choice(self.marked))

    def region(self, donor: int) -> NDArray[np.float32]:
        """(H, W) region: 1 on the marks, 0 from 2 · reach pixels on."""
        size = 2 * self.reach + 1
        wide = maximum_filter(self.marks[donor], size).astype(np.float32)
        soft: NDArray[np.float32] = uniform_filter(wide, size, mode="nearest")
        soft[soft > 0.9999] = 1  # sums of a moving window have rounding errors
        soft[soft < 0.0001] = 0
        return soft

    def filled(
        self, at: int, region: NDArray[np.float32], without: int = -1
    ) -> NDArray[np.float32]:
        """(H, W, C) image with a filled region."""
        own: NDArray[np.float32] = self.images.pixels[at].astype(np.float32)
        third = self._third(region, (at, without)) if self.thirds else None
        fill = _blurred(own, region) if third is None else self.images.pixels[third]
        own += region[..., None] * (fill - own)
        return own

    def _third(self, region: NDArray[np.float32], without: tuple[int, ...]) -> int | None:
        """Image without a mark in a region, of a random class; None if none is found."""
        place = region > 0
        for of in self.rng.permutation(len(self.members)):
            for one in self.rng.permutation(self.members[of])[:_TRIES].tolist():
                if one not in without and not self.marks[one][place].any():
                    return int(one)
        return None


def _blend(inside: NDArray[np.generic], around: NDArray[np.float32], region: object) -> Pixels:
    share = np.asarray(region, np.float32)[..., None]
    return np.rint(around + share * (inside.astype(np.float32) - around)).astype(np.uint8)


def _blurred(pixels: NDArray[np.float32], region: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, C) blurred image, of the pixels outside a region."""
    weight = np.broadcast_to((region == 0)[..., None], pixels.shape).astype(np.float32)
    mean = (pixels * weight).sum((0, 1)) / np.maximum(weight.sum((0, 1)), 1)
    total, share = pixels * weight, weight
    size = (*(1 + 2 * (side // 16) for side in pixels.shape[:2]), 1)
    for _ in range(2):
        total, share = (uniform_filter(one, size, mode="nearest") for one in (total, share))
    # Far inside of a wide region the mean of the outside takes over.
    return np.asarray((total + 1e-3 * mean) / (share + 1e-3), np.float32)


def _change(
    before: NDArray[np.float32], after: NDArray[np.float32], edge: bool
) -> NDArray[np.float32]:
    """(64,) size of the change of gray levels, or of edges, in cells."""
    grays = [one.mean(2) for one in (before, after)]
    grays = [np.hypot(*np.gradient(one)) for one in grays] if edge else grays
    size = np.abs(grays[1] - grays[0])
    starts = [np.arange(_CELLS) * side // _CELLS for side in size.shape]
    cells = np.add.reduceat(np.add.reduceat(size, starts[0], 0), starts[1], 1)
    return np.asarray(cells.ravel(), np.float32)


def _ridge(
    train: NDArray[np.float32], labels: Index, test: NDArray[np.float32], classes: int
) -> NDArray[np.float64]:
    """(n, classes) scores of a ridge classifier with balanced classes."""
    counts = np.bincount(labels, minlength=classes)
    # Balanced: an intercept that follows the frequencies of a fold lowers the AUC below 0.5.
    weight = (1 / counts[labels] / (counts > 0).sum())[:, None]
    mean = (weight * train).sum(0)
    spread = np.sqrt((weight * (train - mean) ** 2).sum(0)) + 1e-6
    own, target = (train - mean) / spread, np.eye(classes)[labels] - (counts > 0) / classes
    matrix = own.T @ (weight * own) + np.eye(own.shape[1])
    scores: NDArray[np.float64] = (
        (test - mean) / spread @ np.linalg.solve(matrix, own.T @ (weight * target))
    )
    return scores
