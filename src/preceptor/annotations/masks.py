"""Mask images, binary or gray: folders of them, and class folders with masks."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.annotations.files import ImageFiles, split_of, split_of_folders
from preceptor.annotations.shapes import (
    MAX_PIXELS,
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Mask,
)
from preceptor.data.images import decode_map, open_image, stored_size, upright
from preceptor.errors import InputError, reason

VOID = (224, 224, 192)  # the borders of Pascal VOC
_WORDS = r"(mask|masks|seg|segmentation|label|labels|gt|map|heatmap)"
_ENDING = re.compile(rf"[ _.-]{_WORDS}$", re.I)
_NUMBERED = re.compile(rf"[ _.-]{_WORDS}(?:[ _.-]?\d+)?$", re.I)
_ONE_CLASS = "save masks of one class, 0 outside and 255 inside"
LABEL = "positive"
"""Class of the masks of a folder."""
# A gray mask with more levels is a map. Cityscapes numbers 34 classes, VOC 21 and the border 255.
_MOST_LEVELS, _CLASSES = 40, {*range(64), 255}


def read_masks(source: Path | str, images: Path | str | None = None) -> ImportedAnnotations:
    """A folder of mask images, each named as its image, else with `_mask` and the like behind.

    Images with two values are masks, the larger one inside; with more they are maps, but for
    numbers of classes or regions, which are problems. A color is inside, several are a problem.
    Masks among the images are the files with such an ending beside one without it.
    """
    root = Path(source)
    real = Path(os.path.realpath(root))
    pictures = None if images is None else Path(os.path.realpath(images))
    mixed = pictures == real
    inside = pictures is not None and not mixed and pictures.is_relative_to(real)
    names = ImageFiles(root, pictures if inside else None).names
    if not names:
        raise InputError(f"{root}: there is no image in it; name the folder of the masks")
    pairs = mask_pairs(names) if mixed else {}
    if mixed and not pairs:
        raise InputError(
            f"{root}: it has both the masks and the images, and no file is named as the mask of "
            "another one (a_mask.png beside a.png); name the folder of the masks"
        )
    lone = lone_masks(names, pairs) if mixed else names
    files = [*_by_image(pairs).items(), *(("", [mask]) for mask in lone)]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        masks = _Masks(root, log)
        for image, own in files:
            if (record := masks.joined(own, LABEL)) is not None:
                yield replace(record, name=image, other_name="") if image else record
        masks.check()

    return ImportedAnnotations(
        "masks",
        root,
        read,
        [LABEL],
        (),
        len(files),
        whole_folder=True,
        masks=None if mixed or inside else root,
        mask_files=frozenset([*pairs, *lone]) if mixed else frozenset(),
    )


def read_folders(source: Path | str, masks: Path | str | None = None) -> ImportedAnnotations:
    """Class folders of images, in folders of splits or not: `train/crack/a.png`, `crack/a.png`.

    A mask lies at the same place in the folder of masks, with or without the folder of the split,
    with any suffix and with an ending or none: `a_mask.png` for `a.png`. The folder of masks may be
    that of the images.
    """
    root = Path(source)
    other = None if masks is None else Path(masks)
    mixed = other is not None and os.path.realpath(other) == os.path.realpath(root)
    every = ImageFiles(root, None if mixed else other).names
    if not every:
        what = "there is no file with the suffix of an image in it"
        raise InputError(f"{root}: {what}; name the folder of the class folders")
    pairs = mask_pairs(every)
    own = [*pairs, *lone_masks(every, pairs)] if mixed else []
    mask_names = ImageFiles(other).names if other is not None and not mixed else own
    names = [name for name in every if name not in set(own)]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if pairs and not mixed:
            first, image = next(iter(pairs.items()))
            where = f"{len(pairs):,} files (such as {first})"
            fix = f"add --masks {shlex.quote(str(root))}, or rename or move them"
            log.problem(where, f"they are named as masks of images beside them ({image})", fix)
        given = _by_image(pairs)
        if not mixed:
            by_place = {_base(mask)[0]: mask for mask in mask_names}
            by_place |= {place_of(mask): mask for mask in mask_names}
            # As in MVTec AD: test/broken/000.png has the mask ground_truth/broken/000_mask.png.
            placed = {
                name: by_place.get(place_of(name)) or by_place.get(place_of(_without_split(name)))
                for name in names
            }
            given = {name: [mask] for name, mask in placed.items() if mask}
            for mask, count in Counter(filter(None, placed.values())).items():
                if count > 1:
                    what = f"{count} images have its place, which differ in suffix or split"
                    log.problem(mask, what, "rename all but one of them, and their masks")
        records = _Masks(root if other is None else other, log)
        for name in names:
            folders = PurePosixPath(name).parts[:-1]
            label = next((part for part in reversed(folders) if not split_of(part)), "")
            split = split_of_folders(PurePosixPath(name))
            if not label:
                log.problem(name, "it lies in no class folder", "move it into one")
            elif name not in given:
                yield AnnotatedImage(name, None, (), (label,), split, of=name)
            elif (record := records.joined(given[name], label)) is not None:
                yield replace(record, name=name, labels=(label,), split=split, of=name)
        records.check()
        for mask in sorted({*mask_names}.difference(*given.values())):
            what = f"no image of {root} has its place, or another mask has it"
            log.problem(mask, what, "put masks into the same folders as their images")

    return ImportedAnnotations(
        "folders",
        root,
        read,
        annotators=(),
        count=len(names),
        masks=None if mixed else other,
        mask_files=frozenset(own),
    )


def _without_split(name: str) -> str:
    """Path of an image without folders of splits."""
    return "/".join(part for part in name.split("/") if not split_of(part))


def _by_image(pairs: Mapping[str, str]) -> dict[str, list[str]]:
    """Sorted masks of each image."""
    given: dict[str, list[str]] = {image: [] for image in sorted(set(pairs.values()))}
    for mask in sorted(pairs):
        given[pairs[mask]].append(mask)
    return given


def place_of(name: str) -> str:
    """Path without the suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def open_mask(path: Path) -> Image.Image:
    """Decoded mask image, turned upright by its own orientation."""
    try:
        with path.open("rb") as stream, open_image(stream) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise ValueError("too large to decode safely")
            return upright(image)
    except Exception as error:  # Pillow's plugins raise many types of exceptions
        what = f"cannot be decoded ({reason(error, 120)}); replace or remove the file"
        raise ValueError(what) from None


def levels_of(image: Image.Image) -> NDArray[Any]:
    """(H, W) gray levels of a mask as stored, on black where it is transparent; a color is 255."""
    deep = image.mode == "F" or image.mode.startswith("I")
    rgba = np.asarray((image.convert("RGB") if deep else image).convert("RGBA"))
    seen = rgba[rgba[..., 3] > 0]
    if seen.size and len(seen) < rgba[..., 3].size and not seen[:, :3].any():
        what = "it is black where it is visible and transparent elsewhere, and black is outside"
        raise ValueError(f"{what}; draw in white")
    if (seen[:, :3] == seen[:, :1]).all():
        if deep:
            return np.asarray(image)
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        on_black = Image.alpha_composite(black, Image.fromarray(rgba))
        return np.asarray(on_black.convert("RGB").convert("L"))
    colors = np.unique(seen[:, :3], axis=0)
    inside = [one for one in colors.tolist() if any(one) and tuple(one) != VOID]
    if len(inside) != 1:
        raise ValueError(f"it has {len(colors):,} colors; {_ONE_CLASS}")
    is_inside = (rgba[..., :3] == np.array(inside, np.uint8)).all(2) & (rgba[..., 3] > 0)
    return np.where(is_inside, 255, 0).astype(np.uint8)


def mask_pairs(names: Sequence[str]) -> dict[str, str]:
    """Image of each file that is named as the mask of another one in the same folder.

    Several masks of an image have numbers behind the ending. A file that has a mask itself is an
    image, whatever its name ends with.

    Example:
        >>> mask_pairs(["a.png", "a_mask.png", "a_mask_1.png", "world_map.png"])
        {'a_mask.png': 'a.png', 'a_mask_1.png': 'a.png'}
    """
    by_stem = {place_of(name): name for name in names}
    pairs = {name: by_stem.get(_base(name)[0], "") for name in names}
    images = {image for image in pairs.values() if image}
    return {name: image for name, image in pairs.items() if image and name not in images}


def lone_masks(names: Sequence[str], pairs: Mapping[str, str]) -> list[str]:
    """Files whose names end as the masks in pairs do, and whose images are missing."""
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


class _Masks:
    """Mask files of a folder: their shapes, and what can be told only after the last one."""

    def __init__(self, root: Path, log: Log) -> None:
        self.root, self.log = root, log
        self._levels: dict[float, str] = {}  # first file of each level of the gray masks
        self._has_map = False

    def joined(self, files: Sequence[str], label: str) -> AnnotatedImage | None:
        """Image of one or several mask files; None after a problem."""
        records = [record for of in files if (record := self.record(of, label)) is not None]
        for one in records[1:]:
            if one.size != records[0].size:
                what = f"it has another size than {records[0].of}, the other mask of its image"
                self.log.problem(one.of, what, "correct it")
        if not records:
            return None
        shapes = tuple(shape for one in records for shape in one.annotations)
        is_upright = any(one.upright for one in records)
        return replace(records[0], annotations=shapes, upright=is_upright)

    def record(self, of: str, label: str) -> AnnotatedImage | None:
        """Image of a mask file; None after a problem."""
        path = self.root / of
        with self.log.part(of, "save it as PNG", path):
            image = open_mask(path)
            mask = self._mask(image, of)
            shapes = () if mask is None else (Annotation(mask, label),)
            stem = PurePosixPath(of).with_suffix("")
            short = stem.with_name(_ENDING.sub("", stem.name) or stem.name)
            return AnnotatedImage(
                f"{stem}.*",
                image.size,
                shapes,
                split=split_of_folders(stem),
                examined=True,
                of=of,
                other_name="" if short == stem else f"{short}.*",
                upright=stored_size(path)[1] != 1,
            )
        return None

    def check(self) -> None:
        """Note numbers of classes, after the last mask."""
        # Numbers of classes cannot be told from strengths by one file, which need not have all.
        if len(self._levels) > 2 and not self._has_map and self._levels.keys() <= _CLASSES:
            levels = [f"{level:g} ({of})" for level, of in sorted(self._levels.items())]
            what = f"the levels {', '.join(levels[:4])}{', …' if len(levels) > 4 else ''}"
            what += " are taken for numbers of classes, not for strengths of a map"
            self.log.problem("the masks", what, _ONE_CLASS)

    def _mask(self, image: Image.Image, of: str) -> Mask | None:
        """Mask of an image as stored, or None if nothing is inside."""
        levels = levels_of(image)
        values = stored = np.unique(levels)
        largest, middle = 255.0, 128.0
        if levels.dtype != np.uint8:  # read as maps are
            levels = decode_map(self.root / of)
            # Divided by the largest: as levels of 255, 0 and 1 or numbers of classes would be 0.
            values, largest, middle = np.unique(levels), float(levels.max()), 0.5
        self._has_map |= len(stored) > _MOST_LEVELS
        for level in stored.tolist() if not self._has_map else ():
            self._levels.setdefault(level, of)
        if len(values) > 2:
            self.log.note("gray masks of more than two values are read as strengths of a map")
            return Mask(np.rint(levels * (255 / largest)).astype(np.uint8)).cropped()
        if values[-1] == 0:
            return None
        if len(values) == 1 and values[0] < middle:
            what = f"all of its pixels are {float(stored[0]):g}, which may be outside or inside"
            raise ValueError(f"{what}; save what is outside as 0 and what is inside as 255")
        return Mask(np.where(levels == values[-1], 255, 0).astype(np.uint8)).cropped()
