"""Exporter of mask images, one PNG for each image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.data.exporters.images import ExportedImage, ExportOptions, mask_of
from preceptor.data.exporters.names import FileNames


def write_masks(images: Iterable[ExportedImage], folder: Path, options: ExportOptions) -> None:
    """Write `masks/NAME.png`: 255 inside and 0 outside, or gray levels without a threshold.

    Args:
        images: Images with their maps.
        folder: Folder that is written.
        options: Options.
    """
    names = FileNames(".png")
    (folder / "masks").mkdir()
    for image in images:
        if options.threshold is not None or image.pixels is None:
            pixels = mask_of(image, options).astype(np.uint8) * 255
        else:
            pixels = np.rint(image.pixels * 255).astype(np.uint8)
        path = folder / "masks" / names.of(image.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG", compress_level=1)
