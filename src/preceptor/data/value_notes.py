"""Notes on the values of images and maps that are decoded, and probably not as they were meant."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from preceptor.data.images import ImageError, decode_map, load_image, read_file
from preceptor.data.locations.read import reading_threads
from preceptor.data.manifest import Manifest
from preceptor.data.pixel_formats import open_image
from preceptor.runtime.cores import core_count

EXAMINED = 64
"""Number of images, and of maps, that are examined at most: a file format is that of many files."""
# Values of 14 bits in files of 16 bits are decoded as 64 of 256 gray levels.
_FEW_BITS = 2**14
# Difference of the channels of a pixel, and share of such pixels, from which on a map is in color:
# the lossy colors of JPEG files of gray images differ less.
_COLOR, _COLORED = 32, 0.01

_Found = TypeVar("_Found")


def value_notes(manifest: Manifest) -> list[str]:
    """Notes on 16-bit images of few bits, invisible images and maps in color, one line each.

    Args:
        manifest: Manifest whose files are valid; at most `EXAMINED` images and maps are read.
    """
    images = _examined(manifest.table["path"], _image_values)
    return [*_deep_notes(images), *_invisible_notes(images), *_color_notes(manifest)]


@dataclass(frozen=True)
class _ImageValues:
    """Values of an image.

    Args:
        largest: Largest value of an image of 16 bits; None for others.
        is_invisible: Whether all pixels are transparent.
    """

    largest: int | None
    is_invisible: bool


def _deep_notes(found: Sequence[_ImageValues]) -> list[str]:
    deep = [one.largest for one in found if one.largest is not None]
    if not deep or (largest := max(deep)) >= _FEW_BITS:
        return []
    levels = round(largest / 65535 * 255) + 1
    return [
        f"{_of(len(deep), len(found), 'image')} 16 bits and no value above {largest:,}: 16 bits "
        f"are decoded by their full range, so that {levels} gray levels are left; scale the images "
        "to the full range"
    ]


def _invisible_notes(found: Sequence[_ImageValues]) -> list[str]:
    count = sum(one.is_invisible for one in found)
    if not count:
        return []
    return [
        f"{_of(count, len(found), 'image')} no pixel that is visible, so that pure white is "
        "decoded: some programs write an alpha channel of zeros; save the images without it"
    ]


def _color_notes(manifest: Manifest) -> list[str]:
    maps = manifest.table["saliency"]
    found = _examined(maps[maps != ""], _is_colored)
    if not any(found):
        return []
    return [
        f"{_of(sum(found), len(found), 'human map')} colors: a map is read by its luminance, which "
        "does not increase with the value in heat maps (the red of jet is darker than its yellow); "
        "save maps as grayscale, bright in the relevant regions"
    ]


def _of(count: int, examined: int, what: str) -> str:
    """Beginning of a note: the number of files, and of which."""
    return f"{count:,} of {examined:,} examined {what}s {'has' if count == 1 else 'have'}"


def _examined(paths: pd.Series, look: Callable[[str], _Found]) -> list[_Found]:
    """What is found of files at equal distances; files that are gone meanwhile are left out."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), EXAMINED)).round())
    chosen = [str(paths.iloc[int(at)]) for at in places]

    def found(path: str) -> list[_Found]:
        try:
            return [look(path)]
        except ImageError:
            return []

    with ThreadPoolExecutor(reading_threads(chosen, core_count())) as pool:
        return [one for several in pool.map(found, chosen) for one in several]


def _image_values(path: str) -> _ImageValues:
    content = read_file(path)
    with open_image(io.BytesIO(content)) as image:
        is_deep = image.mode.startswith("I")
        is_invisible = False
        if image.has_transparency_data:
            is_invisible = image.convert("RGBA").getchannel("A").getextrema()[1] == 0
    largest = round(float(decode_map(path, content).max()) * 65535) if is_deep else None
    return _ImageValues(largest, is_invisible)


def _is_colored(path: str) -> bool:
    """Whether a map has more colors than those of a compressed gray image."""
    pixels = np.asarray(load_image(path)).astype(np.int16)
    return bool((np.ptp(pixels, axis=2) > _COLOR).mean() > _COLORED)
