"""Importer of mask images: binary, gray, palette, or one color a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from preceptor.data.importers.color_names import read_labelmap
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.mask_pairs import lone_masks, mask_pairs, masks_by_image
from preceptor.data.importers.mask_records import MaskRecords
from preceptor.data.importers.shapes import AnnotatedImage, ImportedAnnotations, Log
from preceptor.errors import InputError

_NAME_CLASSES = (
    "name the classes in labelmap.txt in the folder of the masks (lines background:0,0,0:: and "
    "crack:1,1,1::) or save masks of 0 and 255"
)


def read_masks(
    source: Path | str, images: Path | str | None = None, *, label: str = "positive"
) -> ImportedAnnotations:
    """A folder of mask images, each named as its image, else with `_mask` and the like behind.

    Gray images with two values are masks: the larger value is inside; the only value of a mask of
    ones is inside if others have it as their larger value. Gray images with more values are maps,
    kept as they are; those of more than 8 bits are divided by their largest value. Values that are
    numbers of classes (0, 1, 2; or 0, 1, 255) or of regions are a problem. Of palette and color
    images each color except black and that of the borders of Pascal VOC (224, 224, 192) is a
    class; its name is that of `labelmap.txt` (lines `name:red,green,blue::`) in the folder, or the
    color; with this file, the same holds for gray images. Transparent pixels are outside. A mask
    without a pixel inside says that the image was examined.

    If the masks are in the folder of images, they are the files with such an ending beside one
    without it: `a_mask.png`, or several with numbers behind, is the mask of `a.png`.

    Args:
        source: Folder of the masks.
        images: Folder of the images, to tell masks from images where both are in one folder; None
            = no image is in the folder of the masks.
        label: Class of gray masks.

    Raises:
        InputError: It is not a folder, has no image, `labelmap.txt` is wrong, or no file is named
            as the mask of another one although the images are in the folder.
    """
    root = Path(source)
    real, own = os.path.realpath(root), os.path.realpath(root if images is None else images)
    mixed = images is not None and own == real
    inside = images is not None and not mixed and Path(own).is_relative_to(real)
    names = ImageFiles(root, Path(own) if inside else None).names
    if not names:
        raise InputError(f"{root}: there is no image in it; name the folder of the masks")
    pairs = mask_pairs(names) if mixed else {}
    if mixed and not pairs:
        raise InputError(
            f"{root}: it has both the masks and the images, and no file is named as the mask of "
            "another one (a_mask.png beside a.png); name the folder of the masks"
        )
    lone = lone_masks(names, pairs) if mixed else names
    colors = read_labelmap(root / "labelmap.txt") if (root / "labelmap.txt").is_file() else {}
    classes = [name for name in colors.values() if name != "background"]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        records = MaskRecords(root, [*pairs, *lone], colors, log)
        for image, masks in masks_by_image(pairs).items():
            record = records.joined(masks, label)
            if record is not None:
                yield replace(record, name=image, other_name="")
        for of in lone:
            record = records.record(of, label)
            if record is not None:
                yield record
        records.check_levels(_NAME_CLASSES)
        records.check_colors()

    return ImportedAnnotations(
        "masks",
        root,
        read,
        classes=classes or [label],
        annotators=(),
        count=len(set(pairs.values())) + len(lone),
        whole_folder=True,
        masks=None if mixed or inside else root,
        mask_files=frozenset([*pairs, *lone]) if mixed else frozenset(),
    )
