"""Formats of image files that are decoded as pixels, and their suffixes."""

from __future__ import annotations

from functools import cache
from typing import IO

from PIL import Image, UnidentifiedImageError

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


class RefusedFormatError(ValueError):
    """Image in a format of Pillow that is not decoded."""


def open_image(stream: IO[bytes]) -> Image.Image:
    """Image of which the header was read, as from `Image.open`.

    Formats that the program has added to Pillow are opened as well as those of `pixel_formats`.

    Args:
        stream: File at its start.

    Raises:
        RefusedFormatError: The image is in another format of Pillow.
        UnidentifiedImageError: It is in no known format, or its header is damaged.
    """
    Image.init()
    opened, refused = _formats(tuple(Image.ID))
    try:
        return Image.open(stream, formats=opened)
    except UnidentifiedImageError:
        stream.seek(0)
        prefix = stream.read(16)
        for name in refused:
            accepts = Image.OPEN[name][1]
            if accepts is not None and accepts(prefix) is True:
                raise RefusedFormatError(
                    f"the format {name} is not read; save the image as PNG or JPEG"
                ) from None
        raise


@cache
def _formats(known: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Formats that are opened, and the others of Pillow, in the order in which they are tried."""
    own = [one for one in known if Image.OPEN[one][0].__module__.startswith("PIL.")]
    refused = [one for one in own if one not in _FORMATS]
    return [one for one in known if one not in refused], refused


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
