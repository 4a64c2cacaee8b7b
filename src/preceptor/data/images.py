"""Decoding of image files of all usual modes to arrays; no scale is guessed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from preceptor.errors import InputError

_BITS_PER_SAMPLE = 258  # TIFF tags
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
_WHITE_IS_ZERO = 0
_SIGNED = 2


def as_opaque(image: Image.Image, channels: int) -> Image.Image:
    """Image of mode RGB (3 channels) or L (1), on white where it is transparent."""
    deep = _deep_grey(image)
    if deep is not None:
        image = Image.fromarray(np.rint(deep * np.float32(255)).astype(np.uint8))
    if image.has_transparency_data:
        image = _on_white(image)
    if channels == 1:
        return _to_grey(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies, too


def as_map(image: Image.Image) -> NDArray[np.float32]:
    """(H, W) luminance in [0, 1], with transparent pixels composited on black."""
    deep = _deep_grey(image)
    if deep is not None:
        return deep
    if image.has_transparency_data:
        color = image.convert("RGBA")
        luminance = np.asarray(color.convert("RGB").convert("L"), dtype=np.float32)
        opacity = np.asarray(color.getchannel("A"), dtype=np.float32)
        return luminance * opacity / np.float32(255 * 255)
    return np.asarray(_to_grey(image), dtype=np.float32) / np.float32(255)


def _deep_grey(image: Image.Image) -> NDArray[np.float32] | None:
    """Grayscale of 9 to 16 bits or of reals as float32 in [0, 1]; None for 8 bits and colors."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        tags = getattr(image, "tag_v2", {})
        # Pillow opens 16-bit files of these formats in mode I, scaled where they have fewer.
        usual = 16 if image.mode != "I" or image.format in ("PPM", "PNG") else 32
        bits = tags.get(_BITS_PER_SAMPLE, (usual,))[0]
        if bits > 16 or _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
            raise ValueError(
                "integers of 32 bits or with a sign have no known scale; save it with 8 bits, or "
                "with 16 bits without a sign"
            )
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


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _to_grey(image: Image.Image) -> Image.Image:
    """Luminance, computed from RGB, since Pillow's direct conversions differ by mode."""
    return image if image.mode == "L" else image.convert("RGB").convert("L")


# Formats of pixels. Others of Pillow run programs (EPS), need a program (HDF5), are written only
# (PDF), or are no images (MPEG).
_USUAL = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_FORMATS = (*_USUAL, "AVIF", "DIB", "PCX", "QOI", "SGI", "TGA", "DICOM")


@cache
def pixel_formats() -> list[str]:
    """Formats of images that are decoded, as far as this installation of Pillow knows them."""
    Image.init()
    return [one for one in _FORMATS if one in Image.OPEN]


def open_image(stream: IO[bytes]) -> Image.Image:
    """Image whose header was read, as from `Image.open`."""
    Image.init()
    opened = [
        one
        for one in Image.ID
        if one in _FORMATS or not Image.OPEN[one][0].__module__.startswith("PIL.")
    ]
    opened.sort(key="DICOM".__eq__)  # the last: it has no first bytes of its own
    return Image.open(stream, formats=opened)


class DicomFile(ImageFile.ImageFile):
    """DICOM file as Pillow opens it: the first frame.

    Values are rescaled, and cut by the linear window of the file; without one, by their smallest
    and largest value. MONOCHROME1 is inverted. pydicom is read by the extra `dicom`.
    """

    format = "DICOM"

    def _open(self) -> None:
        file: Any = self.fp
        file.seek(128)
        if file.read(4) != b"DICM":
            raise SyntaxError("not a DICOM file")  # Pillow then tries other formats
        try:
            import pydicom
            from pydicom.filereader import read_dataset
        except ModuleNotFoundError as error:
            raise ValueError(
                "pydicom is not installed; pip install '.[dicom]' in the source folder"
            ) from error
        # A deflated file of some kilobytes may be many gigabytes, all of which pydicom inflates.
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if getattr(meta.get("TransferSyntaxUID"), "is_deflated", False):
            raise ValueError("the DICOM file is deflated; save it uncompressed")
        file.seek(0)
        self.dataset = pydicom.dcmread(file)
        if "PixelData" not in self.dataset:
            raise ValueError("the DICOM file has no image")
        self._size = int(self.dataset.Columns), int(self.dataset.Rows)
        self._mode = "RGB" if self.dataset.SamplesPerPixel == 3 else "L"

    def load(self) -> Any:
        """Decode the pixels."""
        if self._im is None:
            self._im = self._picture().im
        return Image.Image.load(self)

    def _check_size(self) -> None:
        """Refuse a compressed image of another size than in the header: it may be of any size."""
        from pydicom.encaps import get_frame

        if self.dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            frames = int(self.dataset.get("NumberOfFrames") or 1)
            frame = get_frame(self.dataset.PixelData, 0, number_of_frames=frames)
            with (
                contextlib.suppress(UnidentifiedImageError),
                Image.open(io.BytesIO(frame)) as image,
            ):
                if image.size != self._size:
                    raise ValueError("the size of the DICOM image is not the one in its header")

    def _picture(self) -> Image.Image:
        from pydicom.pixels.processing import apply_modality_lut
        from pydicom.pixels.utils import pixel_array

        self._check_size()
        pixels = pixel_array(self.dataset, index=0)
        if self._mode == "RGB":
            if pixels.dtype != np.uint8:
                raise ValueError(f"DICOM colors of {pixels.dtype} are not read; save 8 bits")
            return Image.fromarray(pixels)
        if self.dataset.PhotometricInterpretation == "PALETTE COLOR":
            raise ValueError("DICOM images with a palette are not read; save it as RGB")
        values = apply_modality_lut(pixels, self.dataset).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        tags = self.dataset.get("WindowCenter"), self.dataset.get("WindowWidth")
        if None not in tags:  # the first of several
            center, width = (float(np.atleast_1d(np.asarray(tag, float))[0]) for tag in tags)
            low, high = center - width / 2, center + width / 2 - 1  # PS3.3 C.11.2.1.2
        shown = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
        if self.dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        return Image.fromarray(np.rint(255 * shown).astype(np.uint8))


Image.register_open(DicomFile.format, DicomFile)
Image.register_extensions(DicomFile.format, [".dcm", ".dicom"])


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of image files in a folder, in lower case: those of the formats that are decoded."""
    formats = {*pixel_formats(), "MPO"}  # a JPEG of several images, which is read as JPEG
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, name in suffixes.items() if name in formats)


_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EMPTY = "the file is empty (0 bytes)"


class ImageError(InputError):
    """Image file that cannot be decoded."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        # Exceptions are rebuilt from `args`, here the finished message: worker processes that
        # return one would otherwise die of it.
        return type(self), (self.path, self.reason)


def read_file(path: Path | str, content: bytes | None = None) -> bytes:
    """Content, if not given, of a file; empty = ImageError."""
    with _explained(path):
        content = Path(path).read_bytes() if content is None else content
    if not content:
        raise ImageError(path, _EMPTY)
    return content


def decode_image(
    path: Path | str, channels: int = 3, content: bytes | None = None
) -> NDArray[np.uint8]:
    """(H, W, channels) uint8 of an image file, upright, on white where it is transparent."""
    pixels = np.array(load_image(path, channels, content))
    return pixels if channels == 3 else pixels[..., None]


def load_image(path: Path | str, channels: int = 3, content: bytes | None = None) -> Image.Image:
    """Image of mode RGB (3 channels) or L (1) with the pixels of `decode_image`, not copied."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    with _explained(path):
        return as_opaque(_load(path, content), channels)


def opaque_of(image: Image.Image, channels: int = 3, name: str = "image") -> Image.Image:
    """Image of Pillow as `load_image` returns it for its file."""
    with _explained(name):  # an opened file is decoded here
        if 0 in image.size:
            raise ValueError(f"{image.width} × {image.height} pixels")
        return as_opaque(upright(image), channels)


def decode_map(path: Path | str, content: bytes | None = None) -> NDArray[np.float32]:
    """(H, W) float32 luminance of a map in [0, 1], upright, on black where it is transparent.

    16-bit files keep their 16 bits.
    """
    with _explained(path):
        return as_map(_load(path, content))


def decode_marks(path: Path | str, image: Path | str | None = None) -> NDArray[np.float32]:
    """(H, W) human map in [0, 1]; a mask of 0 and 1 is scaled to 1.

    One of the stored size of `image`, without an orientation of its own, is turned as the image is.
    """
    values = decode_map(path)
    if image is not None and stored_size(path)[1] == 1:
        stored, orientation = stored_size(image)
        if values.shape[::-1] == stored != image_size(image):
            values = np.asarray(turned(Image.fromarray(values), orientation))
    largest = float(values.max())
    # The share of one annotator is larger.
    return values / np.float32(largest) if 0 < largest < 1.5 / 255 else values


def image_size(path: Path | str) -> tuple[int, int]:
    """Width and height of the upright image, from the header of the file."""
    (width, height), orientation = stored_size(path)
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def stored_size(path: Path | str) -> tuple[tuple[int, int], int]:
    """Size as stored, and EXIF orientation (1 = upright), from the header of the file."""
    with _explained(path), Path(path).open("rb") as stream:
        if not stream.read(1):
            raise ImageError(path, _EMPTY)
        with open_image(stream) as image:
            orientation = 1 if image.format == "TIFF" else _orientation(image)
            return image.size, orientation if orientation in _TRANSPOSE else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Image as stored, turned upright by an EXIF orientation from 1 to 8."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _load(path: Path | str, content: bytes | None) -> Image.Image:
    """First frame, decoded and upright."""
    with open_image(io.BytesIO(read_file(path, content))) as image:
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Image with its pixels, turned upright; TIFF files are turned by Pillow itself."""
    orientation = 1 if image.format == "TIFF" else _orientation(image)
    image.load()
    return turned(image, orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 if there is none or the EXIF block is damaged."""
    try:
        # Not the PNG plugin's own getexif, which decodes the file.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing; the pixels may be sound
        return 1


@contextlib.contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Exceptions from opening or decoding as an ImageError, in terms of the file."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise many types on corrupt files
        raise ImageError(path, " ".join(decoding_reason(error).split())) from error


def decoding_reason(error: Exception) -> str:
    """Reason why an image cannot be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name an image file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format, or its header is damaged"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too large to decode safely (" + str(error).split(",")[0] + ")"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if "truncated" in str(error).lower():
        return f"truncated ({error})"
    return f"cannot be decoded ({error or type(error).__name__})"
