"""Images in all forms that a predictor accepts, decoded as in training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import ImageFormat
from preceptor.data.geometry import render
from preceptor.data.images import ImageError, load_image, opaque_of, read_file
from preceptor.data.remote import is_plain
from preceptor.errors import InputError, one_line

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""Path or URL, content of a file, image of Pillow, or uint8 array (H, W), (H, W, 1), (H, W, 3) or
RGBA."""

# An opened image of Pillow is decoded when it is used first, which two threads cannot do at once.
# Images share a lock by chance, which is harmless.
_LOCKS = [Lock() for _ in range(64)]


@dataclass(frozen=True)
class BadImage:
    """Input that cannot be decoded.

    Args:
        source: Path, or the kind of the input.
        reason: Reason in one line, without the source.
    """

    source: str
    reason: str


class Canvas(NamedTuple):
    """Decoded image on the canvas of a model.

    Args:
        size: Width and height of the upright image in pixels.
        pixels: (side, side, channels) uint8.
    """

    size: tuple[int, int]
    pixels: NDArray[np.uint8]


def read_pixels(image: ImageInput, channels: int = 3) -> NDArray[np.uint8]:
    """Pixels of an input, upright, with transparent pixels composited on white.

    Args:
        image: Path or URL, content of a file, image of Pillow, or array.
        channels: 3 for RGB or 1 for grayscale (luminance).

    Returns:
        uint8 of shape (H, W, channels).

    Raises:
        ImageError: The image cannot be decoded.
        InputError: It is of another type, shape or data type.

    Example:
        >>> read_pixels(np.zeros((2, 5), np.uint8)).shape
        (2, 5, 3)
    """
    pixels = np.array(_opaque(image, channels))
    return pixels if channels == 3 else pixels[..., None]


def _opaque(image: ImageInput, channels: int) -> Image.Image:
    """Image in mode RGB or L: a large one takes memory twice, decoded and on white, not more."""
    if isinstance(image, bytes | bytearray | memoryview):
        return load_image(Path("bytes"), channels, bytes(image))
    if isinstance(image, Image.Image):
        with _LOCKS[(id(image) >> 4) % len(_LOCKS)]:
            return opaque_of(image, channels, source_of(image))
    if isinstance(image, np.ndarray):
        return opaque_of(_from_array(image), channels, "array")
    if isinstance(image, str | os.PathLike):
        return load_image(_path(image), channels)
    raise InputError(
        f"an image is of type {type(image).__name__}; give a path, bytes, an image of Pillow, or a "
        "uint8 array (H, W, 3)"
    )


def is_remote(image: ImageInput) -> bool:
    """Whether an input is a URL or a member of a tar or Parquet file, which waits for a network."""
    return isinstance(image, str | os.PathLike) and not is_plain(os.fspath(image))


def fetched(image: ImageInput) -> bytes | BadImage:
    """Content of a remote input, or the reason why it cannot be read."""
    assert isinstance(image, str | os.PathLike)
    try:
        return read_file(_path(image))
    except ImageError as error:
        return BadImage(source_of(image), one_line(error.reason))


def canvas_of(image: ImageInput, form: ImageFormat) -> Canvas | BadImage:
    """Input on the canvas of a format, or the reason why it cannot be decoded.

    Raises:
        InputError: The input is of another type, shape or data type.
    """
    try:
        opaque = _opaque(image, form.channels)
    except ImageError as error:
        return BadImage(source_of(image), one_line(error.reason))
    return Canvas(opaque.size, render(opaque, form.fit, form.size))


def source_of(image: ImageInput) -> str:
    """Name of an input in messages: its path, or its kind."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return "array" if isinstance(image, np.ndarray) else "bytes"


def _path(image: str | os.PathLike[str]) -> str:
    text = os.fspath(image)
    if "\0" in text:
        raise ImageError(text.replace("\0", "\\0"), "a path cannot contain a null character")
    return text


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"an array has the data type {array.dtype}; convert it to uint8, 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise InputError(
            f"an array has the shape {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if 0 in array.shape:
        raise ImageError(Path("array"), f"{array.shape[1]} × {array.shape[0]} pixels")
    return Image.fromarray(np.ascontiguousarray(array))
