"""Random numbers of augmentation, and the changes of each image that they decide.

Each image has a row of uniform numbers that depends only on (seed, epoch, position in the epoch),
not on the device, batch borders, number of processes or interruptions. `changes_of` computes the
changes of each image from these numbers; `preceptor.data.augment` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preceptor.config.training import Augmentation

# Streams of the generator, and uniform numbers an image in each: a stream of its own for what was
# added later leaves the numbers of the other changes as they are.
_OF_THE_IMAGE, _OF_THE_OUTSIDE = (2, 12), (4, 2)
SIGMAS = 0.1, 2.0  # of a blur


def draw(seed: int, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1) for positions in an epoch.

    `positions` (n,); returns (n, 14).
    """
    parts = []
    for stream, count in (_OF_THE_IMAGE, _OF_THE_OUTSIDE):
        start = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
        counters = (positions[:, None] * count + np.arange(count)).astype(np.uint64)
        numbers = split_mix(start, counters) >> np.uint64(11)
        parts.append(numbers.astype(np.float64) * np.float64(2.0**-53))
    return np.concatenate(parts, axis=1)


def split_mix(
    start: np.uint64 | NDArray[np.uint64], counters: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The outputs of SplitMix64 at these positions, from 0, of the sequences of these starts."""
    with np.errstate(over="ignore"):  # all arithmetic is modulo 2⁶⁴
        value = start + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Changes:
    """Changes of each image of a batch."""

    # (B, 3) int64 left, top and side of the cropped square, in canvas pixels
    crops: NDArray[np.int64]
    flips: NDArray[np.bool_]  # (B,) bool, left-right flips, after the crop
    # (B,) int64, number of counter-clockwise quarter turns after the flip, 0 to 3
    quarters: NDArray[np.int64]
    # (B, 3) factors of brightness, contrast and saturation; None = no change of color
    factors: NDArray[np.float64] | None
    # (B,) standard deviation of the Gaussian blur, in pixels of the result; 0 = no blur
    sigmas: NDArray[np.float64]
    qualities: NDArray[np.int64]  # (B,) int64 quality of the JPEG compression; 0 = no compression
    # (B,) bool, whether the outside of the image's map is changed, if it has a map
    outside: NDArray[np.bool_]
    keys: NDArray[np.uint64]  # (B,) uint64 below 2⁵³, starts of the random numbers of this change

    def boxes(self, canvases: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        """(B, 4) boxes of the crops, given the boxes of their canvases of `side` pixels."""
        left_top, part = self.crops[:, :2] / side, self.crops[:, 2:] / side
        low, extent = canvases[:, :2], canvases[:, 2:] - canvases[:, :2]
        return np.concatenate([low + left_top * extent, low + (left_top + part) * extent], axis=1)

    def geometry(self, which: NDArray[np.int64]) -> Changes:
        """Crops, flips and quarter turns of some of the images, and no other change."""
        none = np.zeros(len(which))
        return Changes(
            self.crops[which],
            self.flips[which],
            self.quarters[which],
            None,
            none,
            none.astype(np.int64),
            none.astype(bool),
            none.astype(np.uint64),
        )


def changes_of(settings: Augmentation, numbers: NDArray[np.float64], side: int) -> Changes:
    """Changes of a batch. `numbers` (B, 14)."""
    sizes = np.full(len(numbers), side)
    if settings.crop_area < 1:
        areas = settings.crop_area + (1 - settings.crop_area) * numbers[:, 2]
        sizes = np.rint(side * np.sqrt(areas)).astype(np.int64).clip(1)
    left_top = (numbers[:, 3:5] * (side - sizes + 1)[:, None]).astype(np.int64)
    factors = 1 + settings.color * (2 * numbers[:, 5:8] - 1) if settings.color else None
    blurred = numbers[:, 8] < settings.blur
    least, most = SIGMAS
    compressed = numbers[:, 10] < settings.jpeg
    outside, keys = np.zeros(len(numbers), bool), np.zeros(len(numbers), np.uint64)
    if settings.outside != "none":
        outside = numbers[:, 12] < settings.outside_rate
        keys = (numbers[:, 13] * 2.0**53).astype(np.uint64)
    return Changes(
        np.concatenate([left_top, sizes[:, None]], axis=1),
        (numbers[:, 0] < 0.5) & settings.flip,
        (numbers[:, 1] * 4).astype(np.int64) * settings.quarter_turns,
        factors,
        np.where(blurred, least + (most - least) * numbers[:, 9], 0.0),
        np.where(compressed, 30 + (66 * numbers[:, 11]).astype(np.int64), 0),
        outside,
        keys,
    )
