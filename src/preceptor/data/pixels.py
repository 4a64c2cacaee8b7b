"""Values of decoded images of all usual modes, as pixels of 8 bits or as the luminance of a map.

No scale is guessed. 16-bit grayscale is scaled by its full range, so that the relative brightness
of two images is kept. Images of 32-bit or signed integers are rejected, since the file does not
define which value is white. In maps only differences matter, so that 32-bit integers are scaled by
the largest value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS_PER_SAMPLE = 258  # TIFF tags
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
_WHITE_IS_ZERO = 0
_SIGNED = 2
_STRIP = 256  # rows


def as_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """(H, W, channels) of a decoded, upright image, with transparent pixels composited on white.

    Raises:
        ValueError: Its values have no known scale.
    """
    pixels = np.array(as_opaque(image, channels))
    return pixels if channels == 3 else pixels[..., None]


def as_opaque(image: Image.Image, channels: int) -> Image.Image:
    """Image of mode RGB (3 channels) or L (1) with the pixels of `as_pixels`.

    It may be the given one.

    Raises:
        ValueError: Its values have no known scale.
    """
    deep = _deep_grey(image)
    if image.mode == "I" and deep is None:
        raise ValueError(
            "32-bit integers have no known scale (which value is white is undefined); save it "
            "with 8 or 16 bits"
        )
    if _is_signed(image):
        raise ValueError(
            "signed integers have no known scale (which value is white is undefined); save it "
            "with 8 bits, or with 16 bits without a sign"
        )
    if deep is not None:
        image = Image.fromarray(np.rint(deep * np.float32(255)).astype(np.uint8))
    if _is_transparent(image):
        image = _on_white(image)
    if channels == 1:
        return _to_grey(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies, too


def as_map(image: Image.Image) -> NDArray[np.float32]:
    """(H, W) luminance in [0, 1], with transparent pixels composited on black.

    Raises:
        ValueError: Its values have no known scale.
    """
    deep = _deep_grey(image)
    if deep is not None:
        return deep
    if image.mode == "I":
        return _scaled_by_largest(image)
    if _is_transparent(image):
        color = _to_rgba(image)
        luminance = np.asarray(color.convert("RGB").convert("L"), dtype=np.float32)
        opacity = np.asarray(color.getchannel("A"), dtype=np.float32)
        return luminance * opacity / np.float32(255 * 255)
    return np.asarray(_to_grey(image), dtype=np.float32) / np.float32(255)


def _deep_grey(image: Image.Image) -> NDArray[np.float32] | None:
    """Grayscale of 9 to 16 bits or of reals as float32 in [0, 1]; None if the scale is unknown.

    8-bit modes and 32-bit integers (mode I) return None.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (_bits(image),))[0]
        if bits > 16:
            return None
        full = 4095 if bits == 12 else 65535
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > full:
            raise ValueError(
                f"integer values from {low:,} to {high:,} have no known scale (0 to {full:,} "
                "expected); save it with 8 or 16 bits"
            )
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = full - values
        return values.astype(np.float32) / np.float32(full)
    if image.mode == "F":
        reals = np.asarray(image, dtype=np.float32)
        if not (np.isfinite(reals).all() and reals.min() >= 0 and reals.max() <= 1):
            raise ValueError(
                f"floating-point values from {reals.min():g} to {reals.max():g} have no known "
                "scale (0 to 1 expected); save it with 8 or 16 bits"
            )
        return reals
    return None


def _is_signed(image: Image.Image) -> bool:
    """Whether a TIFF has signed integers."""
    formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    return image.mode.startswith("I") and _SIGNED in (
        formats if isinstance(formats, tuple) else (formats,)
    )


def _bits(image: Image.Image) -> int:
    """Number of bits of integer grayscale in files without the TIFF tag."""
    # Pillow opens 16-bit files of these formats in mode I, scaled to 16 bits where they have fewer.
    return 16 if image.mode != "I" or image.format in ("PPM", "PNG") else 32


def _scaled_by_largest(image: Image.Image) -> NDArray[np.float32]:
    """Integers without a known scale as float32 in [0, 1], divided by the largest."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0:
        raise ValueError(
            f"the smallest value of the map is {values.min():,}; save it without values below 0"
        )
    return (values / max(int(values.max()), 1)).astype(np.float32)


def _is_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data or image.mode in ("RGBa", "La", "PA")


def _on_white(image: Image.Image) -> Image.Image:
    """Image in RGB on white, made in strips, so that a large one takes no further copies."""
    opaque = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        strip = _to_rgba(image.crop((0, top, image.width, bottom)))
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return opaque


def _to_rgba(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _to_grey(image: Image.Image) -> Image.Image:
    """Luminance, computed from RGB, since Pillow's direct conversions differ by mode."""
    return image if image.mode == "L" else image.convert("RGB").convert("L")
