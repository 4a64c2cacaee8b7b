"""Mask images: one class by value or color, or one map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from preceptor.data.importers.color_names import Color
from preceptor.data.importers.shapes import MAX_PIXELS, Mask, Pixels
from preceptor.data.pixel_formats import open_image

# More colors in one image are those of a picture, not of classes.
_MOST = 256


def open_mask(path: Path) -> Image.Image | str:
    """Decoded mask image as stored, or what is wrong with the file."""
    try:
        with path.open("rb") as stream, open_image(stream) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                return "too large to decode safely"
            image.load()
            return image
    except Exception as error:  # Pillow's plugins raise many types of exceptions
        return f"cannot be decoded ({' '.join(str(error).split())[:120]})"


def is_gray(image: Image.Image) -> bool:
    """Whether a mask has no colors: gray, or a palette or color image of gray pixels only."""
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return True
    rgb = np.asarray(image.convert("RGB"))
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all())


def masks_by_value(image: Image.Image) -> Iterator[tuple[Color, Mask]]:
    """Mask of each color of an image, cropped, in the order of the colors.

    Raises:
        ValueError: There are more colors than classes can have.
    """
    rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    codes = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    found = np.unique(codes)
    if len(found) > _MOST:
        raise ValueError(f"it has {len(found):,} colors; save it without smoothing and as PNG")
    for code in found.tolist():
        color = (code >> 16, code >> 8 & 255, code & 255)
        yield color, cropped(np.where(codes == code, 255, 0).astype(np.uint8))


def cropped(pixels: Pixels) -> Mask:
    """Mask without the empty rows and columns around it."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return Mask(pixels)
    top, left = int(rows[0]), int(columns[0])
    return Mask(pixels[top : rows[-1] + 1, left : columns[-1] + 1].copy(), left, top)
