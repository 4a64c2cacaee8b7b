"""Masks in one folder with their images, told by their names: `a_mask.png` beside `a.png`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from preceptor.data.importers.class_masks import is_gray, levels_of, open_mask

_WORDS = r"(mask|masks|seg|segmentation|label|labels|gt|map|heatmap)"
_ENDING = re.compile(rf"[ _.-]{_WORDS}$", re.I)
_NUMBERED = re.compile(rf"[ _.-]{_WORDS}(?:[ _.-]?\d+)?$", re.I)
# Files that are examined; difference to the darkest or the brightest pixel by lossy compression,
# and share of the pixels that differ less.
_EXAMINED, _NOISE, _CLOSE = 16, 16, 0.95


def without_ending(stem: PurePosixPath) -> PurePosixPath:
    """Path of a mask without its suffix and without an ending such as `_mask`.

    Example:
        >>> without_ending(PurePosixPath("p1/a_mask"))
        PurePosixPath('p1/a')
    """
    return stem.with_name(_ENDING.sub("", stem.name) or stem.name)


def mask_pairs(names: Sequence[str]) -> dict[str, str]:
    """Image of each file that is named as the mask of another one in the same folder.

    Several masks of an image have numbers behind the ending. A file that has a mask itself is an
    image, whatever its name ends with.

    Args:
        names: Paths of image files.

    Example:
        >>> mask_pairs(["a.png", "a_mask.png", "a_mask_1.png", "world_map.png"])
        {'a_mask.png': 'a.png', 'a_mask_1.png': 'a.png'}
    """
    by_stem = {str(PurePosixPath(name).with_suffix("")): name for name in names}
    found = {name: by_stem.get(_base(name)[0], "") for name in names}
    images = {image for image in found.values() if image}
    return {name: image for name, image in found.items() if image and name not in images}


def masks_by_image(pairs: dict[str, str]) -> dict[str, list[str]]:
    """Masks of each image, in the order of their names.

    Args:
        pairs: Image of each mask.
    """
    found: dict[str, list[str]] = {}
    for mask in sorted(pairs):
        found.setdefault(pairs[mask], []).append(mask)
    return found


def lone_masks(names: Sequence[str], pairs: dict[str, str]) -> list[str]:
    """Files whose names end as those of the masks in pairs, and whose images are missing.

    Args:
        names: Paths of image files.
        pairs: Image of each mask in pairs.

    Example:
        >>> lone_masks(["b_mask.png", "world_map.png"], {"a_mask.png": "a.png"})
        ['b_mask.png']
    """
    words = {_base(mask)[1] for mask in pairs} - {""}
    paired = {*pairs, *pairs.values()}
    return [name for name in names if name not in paired and _base(name)[1] in words]


def _base(name: str) -> tuple[str, str]:
    """Path without the suffix and the ending, and the word of the ending; both "" without one."""
    stem = PurePosixPath(name).with_suffix("")
    match = _NUMBERED.search(stem.name)
    if match is None or match.start() == 0:
        return "", ""
    return str(stem.with_name(stem.name[: match.start()])), match[1].lower()


def are_of_two_levels(files: Sequence[Path]) -> bool:
    """Whether most of some images are gray and have a dark and a bright level, as masks have.

    Args:
        files: Images; a part of them at equal distances is examined.
    """
    places = np.unique(np.linspace(0, len(files) - 1, min(len(files), _EXAMINED)).round())
    found = [_is_of_two_levels(files[int(at)]) for at in places]
    return sum(found) * 2 > len(found)


def _is_of_two_levels(file: Path) -> bool:
    opened = open_mask(file)
    if isinstance(opened, str) or not is_gray(opened):
        return False
    values = levels_of(opened).astype(np.float64)
    low, high = values.min(), values.max()
    noise = min(_NOISE, (high - low) / 4)
    return bool((np.minimum(values - low, high - values) <= noise).mean() >= _CLOSE)
