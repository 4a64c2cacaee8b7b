"""Mask images: one class by value or color, or one map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import open_image, upright
from preceptor.data.importers.color_names import Color
from preceptor.data.importers.shapes import MAX_PIXELS, Mask, Pixels

# More colors in one image are those of a picture, not of classes.
_MOST = 256


def open_mask(path: Path) -> Image.Image | str:
    """Decoded mask image, turned upright by its own orientation, or what is wrong with the file."""
    try:
        with path.open("rb") as stream, open_image(stream) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                return "too large to decode safely"
            return upright(image)
    except Exception as error:  # Pillow's plugins raise many types of exceptions
        return f"cannot be decoded ({' '.join(str(error).split())[:120]})"


def is_gray(image: Image.Image) -> bool:
    """Whether a mask has no colors: gray, or a palette or color image of gray pixels only.

    The color of a pixel that is transparent altogether does not count.
    """
    if image.mode in ("1", "L", "LA", "La") or is_deep(image):
        return True
    rgb, opacity = colors_of(image)
    if opacity is not None:
        rgb = rgb[opacity > 0]
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all())


def colors_of(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Colors of the pixels of an image, and their opacity.

    Returns:
        (H, W, 3) red, green and blue, and (H, W) opacity; None if the image has none.
    """
    if not _is_transparent(image):
        return np.asarray(image.convert("RGB")), None
    rgba = np.asarray(_with_opacity(image))
    return rgba[..., :3], rgba[..., 3]


def visible(opacity: Pixels) -> NDArray[np.bool_]:
    """Pixels of a drawing: opaque by half as much as its most opaque pixel, or more.

    Args:
        opacity: (H, W) opacity. That of the smoothed edge of a stroke decreases to 0; that of a
            whole overlay may be below half.
    """
    return (opacity > 0) & (2 * opacity.astype(np.int64) >= int(opacity.max()))


def is_black_on_transparent(image: Image.Image) -> bool:
    """Whether all visible pixels of an image are black, and others are transparent."""
    rgb, opacity = colors_of(image)
    if opacity is None:
        return False
    seen = visible(opacity)
    return bool(seen.any() and not seen.all() and not rgb[seen].any())


def levels_of(image: Image.Image) -> NDArray[Any]:
    """(H, W) gray levels of an image as stored, with transparent pixels composited on black."""
    if is_deep(image):
        return np.asarray(image)
    if _is_transparent(image):
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, _with_opacity(image))
    return np.asarray(image.convert("RGB").convert("L"))


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits or reals."""
    return image.mode == "F" or image.mode.startswith("I")


def _with_opacity(image: Image.Image) -> Image.Image:
    """Image in mode RGBA; that of gray with premultiplied opacity has no direct way."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _is_transparent(image: Image.Image) -> bool:
    return not is_deep(image) and (image.has_transparency_data or image.mode == "PA")


def masks_by_value(image: Image.Image) -> Iterator[tuple[Color, Mask]]:
    """Mask of each color of the visible pixels of an image, cropped, in the order of the colors.

    Raises:
        ValueError: There are more colors than classes can have.
    """
    rgb, opacity = colors_of(image)
    parts = rgb.astype(np.int32)
    codes = parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
    if opacity is not None:
        codes = np.where(visible(opacity), codes, -1)
    found = np.unique(codes)
    found = found[found >= 0]
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
