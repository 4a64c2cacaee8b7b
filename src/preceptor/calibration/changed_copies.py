"""Changed copies of images, which no model of these images should be familiar with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from preceptor.predictor.inputs import ImageInput, read_pixels

Pixels = NDArray[np.uint8]

_TILES = 4  # per side
_LEAST = 8  # pixels of a side: smaller images have no tiles


def _tiles(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Permuted tiles: the colors and textures, without the structure."""
    height, width = (side // _TILES * _TILES for side in pixels.shape[:2])
    if min(height, width) < _LEAST:
        return _negative(pixels, generator)
    cut = pixels[:height, :width]
    high, wide = height // _TILES, width // _TILES
    tiles = cut.reshape(_TILES, high, _TILES, wide, -1).swapaxes(1, 2).reshape(-1, high, wide, 3)
    mixed = tiles[generator.permutation(len(tiles))].reshape(_TILES, _TILES, high, wide, 3)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


def _blur(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Blurred by a twentieth of the shorter side: the structure, without textures."""
    radius = min(pixels.shape[:2]) / 20
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _negative(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Inverted colors: the structure, with other colors."""
    return np.asarray(255 - pixels, np.uint8)


def _noise(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Mean of the image and noise."""
    noise = generator.integers(0, 256, pixels.shape)
    return ((pixels.astype(np.int64) + noise) // 2).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "tiles": _tiles,
    "blur": _blur,
    "negative": _negative,
    "noise": _noise,
}
"""Function of RGB pixels and a random generator, by the name of the change."""


def changed_copies(images: Sequence[ImageInput], change: str) -> Iterator[Pixels]:
    """Copies with a change of `CHANGES`, whose random numbers depend on the position only.

    Example:
        >>> [copy.tolist() for copy in changed_copies([np.zeros((1, 1), np.uint8)], "negative")]
        [[[[255, 255, 255]]]]
    """
    for place, image in enumerate(images):
        yield CHANGES[change](read_pixels(image), np.random.default_rng(place))
