"""Photographs of installed packages, and crops of them with their forged versions."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from preceptor.benchmark.forged_settings import SPLITS, ForgedSettings, Split
from preceptor.benchmark.forgeries import (
    Kind,
    Pixels,
    draw_region,
    forge,
    is_grey,
    visible_change,
)
from preceptor.errors import InputError

Sort = Literal["everyday", "scientific", "grey"]


@dataclass(frozen=True)
class Photograph:
    """Photograph that is distributed with a package.

    Args:
        name: Name in groups and messages.
        package: Installed package that contains the photograph.
        file: Path inside the package.
        sort: everyday (color), scientific (color) or grey; every pool has all sorts.
        reduce: Divisor of width and height, for photographs whose crops at full size would show
            mainly sensor noise.
    """

    name: str
    package: str
    file: str
    sort: Sort
    reduce: int = 1


# Photographs of real scenes, with enough texture for a forgery to be seen in. Left out, though
# they ship too: drawings and test charts (chessboards, color wheel, logo, horse, phantom), sheets
# of text (page, text), nearly flat or blurred frames (cell, clock_motion), thumbnails
# (microaneurysms, the LFW faces), and motorcycle_right, the same scene as motorcycle_left.
PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "everyday"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "everyday"),
    Photograph("coffee", "skimage", "data/coffee.png", "everyday"),
    Photograph("motorcycle", "skimage", "data/motorcycle_left.png", "everyday"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "everyday"),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "everyday"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "everyday"),
    Photograph("ihc", "skimage", "data/ihc.png", "scientific"),
    Photograph("retina", "skimage", "data/retina.jpg", "scientific", reduce=2),
    Photograph("hubble", "skimage", "data/hubble_deep_field.jpg", "scientific", reduce=2),
    Photograph("camera", "skimage", "data/camera.png", "grey"),
    Photograph("coins", "skimage", "data/coins.png", "grey"),
    Photograph("brick", "skimage", "data/brick.png", "grey"),
    Photograph("grass", "skimage", "data/grass.png", "grey"),
    Photograph("gravel", "skimage", "data/gravel.png", "grey"),
    Photograph("moon", "skimage", "data/moon.png", "grey"),
)

Pool = Literal["training", "development", "test"]

# Number of photographs of each sort for development and for tests; the others are for training: 8,
# 3 and 5 of 16. Every pool has two in color, so that splices have donors.
DEVELOPMENT: dict[Sort, int] = {"everyday": 1, "scientific": 1, "grey": 1}
TEST: dict[Sort, int] = {"everyday": 2, "scientific": 1, "grey": 2}


def photograph_path(photograph: Photograph) -> Path:
    """Path of a photograph in the installed package.

    Raises:
        InputError: The package is not installed, or does not contain the file.
    """
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[photograph.package]
        raise InputError(
            f"{name} is not installed, and the forged photographs are made from its photographs; "
            "run: pip install '.[demo]' in the source folder"
        )
    path = Path(spec.submodule_search_locations[0]) / photograph.file
    if not path.is_file():
        raise InputError(
            f"{path}: the photograph '{photograph.name}' is missing from the installed package; "
            "run: pip install --force-reinstall scikit-image scikit-learn"
        )
    return path


def photograph_checksums() -> dict[str, str]:
    """SHA-256 of the file of every photograph, by name; equal files give equal benchmarks.

    Raises:
        InputError: Same as in `photograph_path`.
    """
    return {
        photograph.name: hashlib.sha256(photograph_path(photograph).read_bytes()).hexdigest()
        for photograph in PHOTOGRAPHS
    }


def read_photograph(photograph: Photograph) -> Pixels:
    """Pixels of a photograph: (H, W, 3) uint8, with equal channels for grayscale.

    Raises:
        InputError: Same as in `photograph_path`.

    Example:
        >>> read_photograph(PHOTOGRAPHS[0]).shape
        (512, 512, 3)
    """
    with Image.open(photograph_path(photograph)) as image:
        color = image.convert("RGB")
    return np.asarray(color.reduce(photograph.reduce))


def draw_pools(generator: np.random.Generator) -> dict[Pool, list[Photograph]]:
    """Assign the photographs at random to disjoint pools, each with photographs of every sort.

    Example:
        >>> pools = draw_pools(np.random.default_rng(0))
        >>> {pool: len(photographs) for pool, photographs in pools.items()}
        {'training': 8, 'development': 3, 'test': 5}
    """
    pools: dict[Pool, list[Photograph]] = {"training": [], "development": [], "test": []}
    for sort, development in DEVELOPMENT.items():
        ours = [photograph for photograph in PHOTOGRAPHS if photograph.sort == sort]
        order = [ours[i] for i in generator.permutation(len(ours))]
        first_training = development + TEST[sort]
        pools["development"] += order[:development]
        pools["test"] += order[development:first_training]
        pools["training"] += order[first_training:]
    return pools


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
