"""Formats of image files that are decoded as pixels, and their suffixes."""

from __future__ import annotations

from functools import cache

from PIL import Image

# Formats of pixels. Others of Pillow run programs (EPS), need a program (HDF5), are written only
# (PDF), or are no images (MPEG).
_FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)


@cache
def pixel_formats() -> list[str]:
    """Formats of images that are decoded, as far as this installation of Pillow knows them."""
    Image.init()
    return [one for one in _FORMATS if one in Image.OPEN]


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of image files in a folder, in lower case: those of the formats that are decoded.

    Example:
        >>> sorted(image_suffixes() & {".jpeg", ".jfif", ".tga", ".pdf", ".eps", ".h5"})
        ['.jfif', '.jpeg', '.tga']
    """
    formats = {*pixel_formats(), "MPO"}  # a JPEG of several images, which is read as JPEG
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, name in suffixes.items() if name in formats)
