"""Importer of mask images: binary, gray, palette, or one color a class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from preceptor.data.images import ImageError, decode_map
from preceptor.data.importers.class_masks import cropped, is_gray, masks_by_value, open_mask
from preceptor.data.importers.color_names import Color, read_labelmap
from preceptor.data.importers.gray_levels import GrayLevels
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Mask,
)
from preceptor.data.importers.split_words import split_of
from preceptor.errors import InputError

_ENDING = re.compile(r"[ _.-](mask|masks|seg|segmentation|label|labels|gt|map|heatmap)$", re.I)
_VOID = (224, 224, 192)
_NAME_CLASSES = (
    "name the classes in labelmap.txt in the folder of the masks (lines background:0,0,0:: and "
    "crack:1,1,1::) or save masks of 0 and 255"
)


def read_masks(source: Path | str, *, label: str = "positive") -> ImportedAnnotations:
    """A folder of mask images, each named as its image, else with `_mask` and the like behind.

    Gray images with two values are masks: the larger value is inside. Gray images with more values
    are maps, kept as they are; those of more than 8 bits are divided by their largest value. If
    the values of all gray images are numbers of classes (0, 1, 2; or 0, 1, 255), they are a
    problem. Of palette and color images each color except black is a class; its name is that of
    `labelmap.txt` (lines `name:red,green,blue::`) in the folder, or the color; with this file, the
    same holds for gray images. A mask without a pixel inside says that the image was examined.

    Args:
        source: Folder of the masks.
        label: Class of gray masks.

    Raises:
        InputError: It is not a folder, has no image, or `labelmap.txt` is wrong.
    """
    root = Path(source)
    files = ImageFiles(root)
    if not files.names:
        raise InputError(f"{root}: there is no image in it; name the folder of the masks")
    colors = read_labelmap(root / "labelmap.txt") if (root / "labelmap.txt").is_file() else {}
    names = [name for name in colors.values() if name != "background"]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        levels = GrayLevels()
        for of in files.names:
            record = mask_record(root / of, of, label, colors, levels, log)
            if record is not None:
                yield record
        levels.check(log, _NAME_CLASSES)

    return ImportedAnnotations(
        "masks",
        root,
        read,
        classes=names or [label],
        annotators=(),
        count=len(files.names),
        whole_folder=True,
        masks=root,
    )


def mask_record(
    path: Path, of: str, label: str, colors: dict[Color, str], levels: GrayLevels, log: Log
) -> AnnotatedImage | None:
    """Image of a mask file; None if the file is wrong.

    Args:
        path: File.
        of: Its name in messages, a path from the folder of the masks.
        label: Class of a gray mask.
        colors: Classes by color; empty = gray masks have no numbers of classes.
        levels: Levels of the gray masks so far, to which those of the file are added.
        log: Collects the problems.
    """
    opened = open_mask(path)
    if isinstance(opened, str):
        log.problem(of, opened, "replace or remove the file")
        return None
    try:
        if is_gray(opened) and not colors:
            mask = gray_mask(opened, path, of, levels)
            shapes = [] if mask is None else [Annotation(mask, label)]
        else:
            shapes = list(_classes(opened, colors))
    except (ValueError, ImageError) as error:
        log.error(of, error, "save it as PNG", path)
        return None
    stem = PurePosixPath(of).with_suffix("")
    short = stem.with_name(_ENDING.sub("", stem.name) or stem.name)
    splits = [split for part in stem.parts[:-1] if (split := split_of(part))]
    return AnnotatedImage(
        f"{stem}.*",
        opened.size,
        tuple(shapes),
        split=splits[-1] if splits else "",
        examined=True,
        of=of,
        other_name="" if short == stem else f"{short}.*",
    )


def _classes(image: Image.Image, colors: dict[Color, str]) -> Iterator[Annotation]:
    """Mask of each class of an image."""
    for color, mask in masks_by_value(image):
        name = colors.get(color)
        if name == "background" or (name is None and color in ((0, 0, 0), _VOID)):
            continue
        if name is None and colors:
            raise ValueError(f"the color {color} is of no class; add it to labelmap.txt")
        yield Annotation(mask, name or "#{:02x}{:02x}{:02x}".format(*color))


def gray_mask(image: Image.Image, path: Path, of: str, seen: GrayLevels) -> Mask | None:
    """Mask of a gray image as stored, or None if nothing is inside.

    Args:
        image: Image.
        path: Its file.
        of: Name of the file in messages.
        seen: Levels so far, to which those of the image are added.
    """
    if "A" in image.mode or image.has_transparency_data:
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")
        ).convert("L")
    if image.mode in ("1", "L", "P", "RGB"):
        levels = np.asarray(image.convert("RGB").convert("L"))
        values = stored = np.unique(levels)
        middle, largest = 128.0, 255.0
    else:  # 16 bits and reals, read as maps are; they have no orientation
        levels = decode_map(path)
        # Divided by the largest: as levels of 255, 0 and 1 or the numbers of regions would be 0.
        middle, largest = 0.5, float(levels.max())
        values, stored = np.unique(levels), np.unique(np.asarray(image))
    seen.add(stored, of)
    if len(values) <= 2:
        if values[-1] == 0 or (len(values) == 1 and values[0] < middle):
            return None
        return cropped(np.where(levels == values[-1], 255, 0).astype(np.uint8))
    return cropped(np.rint(levels * (255 / largest)).astype(np.uint8))
