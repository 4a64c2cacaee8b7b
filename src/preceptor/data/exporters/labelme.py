"""Exporter of LabelMe's JSON files, one per image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preceptor.data.exporters.images import ExportedImage, ExportOptions, Region, regions_of
from preceptor.data.exporters.names import FileNames
from preceptor.data.locations.location import is_local
from preceptor.errors import InputError
from preceptor.runtime.relative_paths import RelativePaths
from preceptor.runtime.strict_json import strict_json

# Version of LabelMe whose format this is.
_VERSION = "5.5.0"


def write_labelme(images: Iterable[ExportedImage], folder: Path, options: ExportOptions) -> None:
    """Write `NAME.json` for each image; the class of the image is a flag that is set.

    Args:
        images: Images with their maps.
        folder: Folder that is written.
        options: Options.

    Raises:
        InputError: An image is no local file.
    """
    names = FileNames(".json")
    for image in images:
        path = folder / names.of(image.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = image.size
        content = {
            "version": _VERSION,
            "flags": {image.label: True},
            "shapes": [
                _shape(one, image.shape_label, options) for one in regions_of(image, options)
            ],
            "imagePath": _from(image.path, path.parent),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        path.write_text(strict_json(content) + "\n", encoding="utf-8")


def _from(image: Path | str, folder: Path) -> str:
    """Path of an image from a folder; absolute on another drive.

    Raises:
        InputError: It is no local file.
    """
    if not is_local(str(image)):
        raise InputError(
            f"{image}: LabelMe opens local files only; copy the images to a folder, or export to "
            "another format"
        )
    try:
        return Path(RelativePaths(folder).of(str(image))).as_posix()
    except ValueError:
        return Path(image).as_posix()


def _shape(region: Region, label: str, options: ExportOptions) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "label": label,
        "group_id": None,
        "description": options.model,
        "flags": {},
    }
    if options.form == "polygons":
        return shape | {"shape_type": "polygon", "points": region.ring.tolist(), "mask": None}
    high, wide = region.mask.shape
    buffer = io.BytesIO()
    Image.fromarray(region.mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return shape | {
        "shape_type": "mask",
        # The corners are the first and the last pixel.
        "points": [[region.x, region.y], [region.x + wide - 1, region.y + high - 1]],
        "mask": base64.b64encode(buffer.getvalue()).decode("ascii"),
    }
