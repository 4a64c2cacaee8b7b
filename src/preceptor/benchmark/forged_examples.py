"""Crops of the built-in benchmark, each with its forged version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preceptor.benchmark.forged_settings import SPLITS, ForgedSettings, Split
from preceptor.benchmark.forgeries import (
    Kind,
    Pixels,
    draw_region,
    forge,
    is_grey,
    visible_change,
)
from preceptor.benchmark.photographs import PHOTOGRAPHS, Pool, draw_pools, read_photograph
from preceptor.errors import InputError

# Share of a training photograph's longer side that belongs to val.
_VAL_SHARE = 0.25
# Crops drawn for one row before the settings are rejected; usually 1 to 20 are needed.
_MOST_DRAWS = 1000


@dataclass(frozen=True)
class Area:
    """Part of a photograph from which the crops of a split are cut.

    Args:
        group: Group in the manifest: name of the photograph, and its part.
        pixels: (H, W, 3) uint8.
        grey: Whether the photograph is grayscale.
    """

    group: str
    pixels: Pixels
    grey: bool


def _halve(name: str, pixels: Pixels, size: int, val_first: bool) -> tuple[Area, Area]:
    """Divide a training photograph along its longer side into a train part and a val part."""
    grey = is_grey(pixels)
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    length = pixels.shape[axis]
    # At least one and a half crops, otherwise all val crops of a photograph would be nearly equal.
    cut = max(round(_VAL_SHARE * length), min(size * 3 // 2, length // 2))
    if val_first:
        val, train = np.split(pixels, [cut], axis=axis)
    else:
        train, val = np.split(pixels, [length - cut], axis=axis)
    return Area(f"{name}/a", train, grey), Area(f"{name}/b", val, grey)


def draw_areas(size: int, seed: int) -> dict[Split, list[Area]]:
    """Areas of each split for a seed."""
    generator = np.random.default_rng([seed, len(SPLITS), 0])
    pools = draw_pools(generator)
    pixels = {photograph.name: read_photograph(photograph) for photograph in PHOTOGRAPHS}
    halves = [
        _halve(photograph.name, pixels[photograph.name], size, bool(generator.integers(2)))
        for photograph in pools["training"]
    ]

    def whole(pool: Pool) -> list[Area]:
        return [
            Area(photograph.name, pixels[photograph.name], is_grey(pixels[photograph.name]))
            for photograph in pools[pool]
        ]

    return {
        "train": [train for train, _ in halves],
        "val": [val for _, val in halves],
        "val-noshort": whole("development"),
        "test-seen": whole("test"),
        "test-unseen": whole("test"),
    }


def _cut(area: Area, size: int, generator: np.random.Generator) -> Pixels:
    top = int(generator.integers(area.pixels.shape[0] - size + 1))
    left = int(generator.integers(area.pixels.shape[1] - size + 1))
    return area.pixels[top : top + size, left : left + size]


@dataclass(frozen=True)
class Example:
    """Crop with its forged version.

    Args:
        group: Group in the manifest.
        authentic: (size, size, 3) uint8, without stamp.
        forged: (size, size, 3) uint8, without stamp; equal to `authentic` where region is 0.
        region: (size, size) uint8 human map.
    """

    group: str
    authentic: Pixels
    forged: Pixels
    region: Pixels


def draw_example(
    areas: list[Area], kind: Kind, settings: ForgedSettings, generator: np.random.Generator
) -> Example:
    """Draw photograph, crop, region and forgery at random until the forgery is visible.

    Args:
        areas: Areas from which crops and donors of splices are drawn, with equal probability.
        kind: Kind of forgery.
        settings: Sizes and strengths.
        generator: Random generator.

    Raises:
        InputError: No visible forgery was found: the strength is too low for `least_change`.
    """
    for _ in range(_MOST_DRAWS):
        area = areas[int(generator.integers(len(areas)))]
        crop = _cut(area, settings.size, generator)
        region = draw_region(settings.size, settings.radius, settings.edge, generator)
        # A gray patch in a color photograph would be conspicuous.
        donors = [other for other in areas if other is not area and (area.grey or not other.grey)]
        donor = donors[int(generator.integers(len(donors)))]
        forged = forge(
            crop,
            region,
            kind,
            settings.strengths,
            generator,
            donor=_cut(donor, settings.size, generator),
        )
        if visible_change(crop, forged, region) >= settings.least_change:
            return Example(area.group, crop, forged, region)
    raise InputError(
        f"strengths.{kind} = {getattr(settings.strengths, kind)}: no forgery in {_MOST_DRAWS:,} "
        f"changed its region by least_change = {settings.least_change} grey levels; "
        "increase the strength or lower least_change"
    )
