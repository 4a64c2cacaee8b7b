"""Photographs of the built-in benchmark, which are part of installed packages."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    # skin, cloth, flag, metal
    Photograph("astronaut", "skimage", "data/astronaut.png", "everyday"),
    # fur and eyes
    Photograph("chelsea", "skimage", "data/chelsea.png", "everyday"),
    # wood grain, glaze, highlights
    Photograph("coffee", "skimage", "data/coffee.png", "everyday"),
    # chrome, shelves, concrete: the busiest of all
    Photograph("motorcycle", "skimage", "data/motorcycle_left.png", "everyday"),
    # dusk sky with lights and lattice masts, from a JPEG
    Photograph("rocket", "skimage", "data/rocket.jpg", "everyday"),
    # roofs, trees, haze, from a JPEG
    Photograph("china", "sklearn", "datasets/images/china.jpg", "everyday"),
    # petals before an unsharp background, from a JPEG
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "everyday"),
    # stained tissue under a microscope
    Photograph("ihc", "skimage", "data/ihc.png", "scientific"),
    # vessels on a smooth ground
    Photograph("retina", "skimage", "data/retina.jpg", "scientific", reduce=2),
    # galaxies: small objects on black
    Photograph("hubble", "skimage", "data/hubble_deep_field.jpg", "scientific", reduce=2),
    # a man, a lawn, a skyline
    Photograph("camera", "skimage", "data/camera.png", "grey"),
    # embossed metal on dark cloth
    Photograph("coins", "skimage", "data/coins.png", "grey"),
    # regular texture
    Photograph("brick", "skimage", "data/brick.png", "grey"),
    # fine irregular texture
    Photograph("grass", "skimage", "data/grass.png", "grey"),
    # coarse irregular texture
    Photograph("gravel", "skimage", "data/gravel.png", "grey"),
    # craters on a smooth ground
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


def read_photograph(photograph: Photograph) -> NDArray[np.uint8]:
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

    Args:
        generator: Random generator; the same state gives the same pools.

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
