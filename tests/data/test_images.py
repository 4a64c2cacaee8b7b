import io
import struct
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from preceptor.annotations.masks import open_mask
from preceptor.config.settings import Fit
from preceptor.data.geometry import render
from preceptor.data.images import (
    ImageError,
    decode_image,
    decode_map,
    image_size,
    load_image,
    pixel_formats,
)
from tests.data.sound_manifest import dicom

ORIENTATION = 0x0112
no_fixture_check = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def corners(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture whose four quarters tell how it was turned."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (250, 10, 10)
    picture[: height // 2, width // 2 :] = (10, 250, 10)
    picture[height // 2 :, : width // 2] = (10, 10, 250)
    picture[height // 2 :, width // 2 :] = (240, 240, 240)
    return picture


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The array that a file of this EXIF orientation holds for an upright picture."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    options |= {"lossless": True} if suffix == "webp" else {}
    stored = Image.fromarray(stored_as(corners(), orientation))
    stored.save(path, exif=exif(orientation), **options)
    tolerance = 12 if suffix == "jpg" else 0
    np.testing.assert_allclose(decode_image(path).astype(int), corners(), atol=tolerance)
    assert image_size(path) == (40, 24)
    assert decode_map(path).shape == (24, 40)


def test_damaged_exif_does_not_condemn_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(corners()).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    assert decode_image(path).shape == (24, 40, 3)
    assert image_size(path) == (40, 24)


def deep(mode: str) -> Image.Image:
    """A grayscale picture of 16 bits or of reals."""
    grey = np.asarray(Image.fromarray(corners()).convert("L"))
    values = grey * np.uint16(257) if mode == "I;16" else grey / np.float32(255)
    return Image.fromarray(values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "F", "RGB", "RGBA", "CMYK"])
def test_images_of_pillow_have_the_pixels_of_arrays(
    tmp_path: Path, mode: str, channels: int
) -> None:
    path = tmp_path / "image.tiff"
    picture = deep(mode) if mode in ("I;16", "F") else Image.fromarray(corners()).convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(100)
    picture.save(path)
    loaded, decoded = load_image(path, channels), decode_image(path, channels)
    assert loaded.mode == ("RGB" if channels == 3 else "L")
    assert np.array_equal(np.asarray(loaded).reshape(decoded.shape), decoded)
    for fit in get_args(Fit):
        assert np.array_equal(render(loaded, fit, 16), render(decoded, fit, 16))


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "bits.png", 1)[..., 0], np.eye(8) * 255)
    np.testing.assert_array_equal(decode_map(tmp_path / "bits.png"), np.eye(8))


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(corners()).quantize(8)
    picture.save(tmp_path / "palette.png")
    picture.save(tmp_path / "palette.gif")
    for name in ("palette.png", "palette.gif"):
        np.testing.assert_allclose(decode_image(tmp_path / name).astype(int), corners(), atol=2)


def test_transparency_is_white_in_images_and_black_in_maps(tmp_path: Path) -> None:
    clear = np.full((2, 3, 4), (80, 80, 80, 0), np.uint8)
    clear[0, 0, 3] = 255
    clear[0, 1, 3] = 102
    Image.fromarray(clear).save(tmp_path / "rgba.png")
    Image.fromarray(clear[..., 2:]).save(tmp_path / "la.png")
    for name in ("rgba.png", "la.png"):
        image, saliency = decode_image(tmp_path / name), decode_map(tmp_path / name)
        assert image[0, 0].tolist() == [80] * 3
        assert image[0, 1].tolist() == [185] * 3  # 0.4 · 80 + 0.6 · 255
        assert image[1, 2].tolist() == [255] * 3
        assert saliency[0] == pytest.approx([80 / 255, 0.4 * 80 / 255, 0])


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_colour_counts_as_transparency(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (2, 1), 0)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 0), (255, 0, 0) if mode == "RGB" else 1)
    picture.save(tmp_path / "key.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert decode_image(tmp_path / "key.png")[0, 0].tolist() == [255] * 3
    assert decode_image(tmp_path / "key.png")[0, 1].tolist() != [255] * 3
    assert decode_map(tmp_path / "key.png")[0, 0] == 0


@pytest.mark.parametrize("name", ["ink.jpg", "ink.tif"])
def test_inks_become_colors(tmp_path: Path, name: str) -> None:
    options = {"quality": 98} if name.endswith("jpg") else {}
    Image.fromarray(corners()).convert("CMYK").save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as image:
        assert image.mode == "CMYK"
    inner = (slice(2, 10), slice(2, 18))
    decoded = decode_image(tmp_path / name)[inner].astype(int)
    np.testing.assert_allclose(decoded, corners()[inner], atol=12)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "big.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path: Path, name: str) -> None:
    deep = np.array([[0, 257, 300, 32768, 65535]], np.uint16)
    if name == "big.tif":
        Image.frombytes("I;16B", (5, 1), deep.astype(">u2").tobytes()).save(tmp_path / name)
    else:
        Image.fromarray(deep).save(tmp_path / name)
    expected = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(tmp_path / name, 1)[..., 0], expected)
    np.testing.assert_array_equal(decode_image(tmp_path / name)[..., 2], expected)
    np.testing.assert_array_equal(
        decode_map(tmp_path / name), deep.astype(np.float32) / np.float32(65535)
    )


def test_integers_without_a_scale_are_refused(tmp_path: Path) -> None:
    """A scale of 16 bits would turn values from 0 to 255 into a picture that is nearly black."""
    Image.fromarray(np.array([[0, 32_767]], np.uint16)).save(
        tmp_path / "signed.tif", tiffinfo={339: 2}
    )
    Image.fromarray(np.array([[0, 255]], np.int32)).save(tmp_path / "wide.tif")
    for name in ("signed.tif", "wide.tif"):
        for decode in (decode_image, decode_map):
            with pytest.raises(ImageError, match=r"no known scale.*16 bits without a sign"):
                decode(tmp_path / name)


def test_a_grey_file_whose_header_has_its_largest_value_is_scaled_by_it(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 1000\n" + np.array([500, 1000], ">u2").tobytes())
    assert decode_image(tmp_path / "a.pgm", 1).ravel().tolist() == [128, 255]


@pytest.mark.parametrize("worst", [1.5, -0.1, np.nan, np.inf])
def test_reals_in_the_unit_range_only(tmp_path: Path, worst: float) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "good.tif")
    Image.fromarray(np.array([[0, 0.5, worst]], np.float32)).save(tmp_path / "bad.tif")
    assert decode_image(tmp_path / "good.tif", 1).ravel().tolist() == [0, 128, 255]
    assert decode_map(tmp_path / "good.tif").ravel().tolist() == [0, 0.5, 1]
    for decode in (decode_image, decode_map):
        with pytest.raises(ImageError, match="no known scale"):
            decode(tmp_path / "bad.tif")


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert decode_image(tmp_path / f"film.{suffix}")[0, 0].tolist() == [255, 0, 0]


def test_maps_of_colour_are_their_luminance(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / "map.png")
    expected = np.asarray(Image.fromarray(corners()).convert("L")) / 255
    np.testing.assert_allclose(decode_map(tmp_path / "map.png"), expected, atol=1e-6)
    assert decode_map(tmp_path / "map.png").dtype == np.float32


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"plain text", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|cannot"),
        (b"\xff\xd8\xff\xe0", "not an image|cannot|truncated"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "odd.png"
    if content is not None:
        path.write_bytes(content)
    for read in (decode_image, decode_map, image_size):
        with pytest.raises(ImageError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bombs_are_refused_without_decoding(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ImageError, match="too large"):
        decode_image(tmp_path / "bomb.png")


def noise(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif", "webp", "ppm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise("P" if suffix == "gif" else "RGB").save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for decode in (decode_image, decode_map):
        with pytest.raises(ImageError):
            decode(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@no_fixture_check
@given(
    suffix=st.sampled_from(["jpg", "png", "tif", "gif", "webp"]),
    at=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
def test_a_damaged_byte_gives_an_image_or_an_image_error(
    tmp_path: Path, suffix: str, at: float, value: int
) -> None:
    path = tmp_path / f"hurt.{suffix}"
    noise("P" if suffix == "gif" else "RGB").save(path, exif=exif(6)) if suffix in (
        "jpg",
        "png",
        "tif",
    ) else noise().save(path)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        array = decode_image(path)
    except ImageError:
        return
    assert array.dtype == np.uint8
    assert array.ndim == 3


@pytest.mark.parametrize("name", ["a.png", "a.eps"])
def test_formats_that_run_a_program_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    content = file.read_bytes()
    for read in (decode_image, decode_map, load_image, image_size):
        with pytest.raises(ImageError, match="not an image in a known format"):
            read(file)
    with pytest.raises(ImageError, match="not an image in a known format"):
        decode_image("https://host/a.png", 3, content)
    with pytest.raises(ValueError, match="cannot identify image file"):
        open_mask(file)


def test_the_formats_of_the_documentation_are_read(tmp_path: Path) -> None:
    picture = corners()
    formats = "AVIF BMP GIF JPEG JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP MPO"
    for name in {*formats.split()} & {*pixel_formats(), "MPO"}:
        Image.fromarray(picture).save(tmp_path / name, name)
        found = decode_image(tmp_path / name)
        assert np.abs(found.astype(int) - picture).mean() < 12, name


# DICOM


def test_a_dicom_file_is_rescaled_and_shown_in_its_window(tmp_path: Path) -> None:
    stored = np.array([[0, 1000, 1024], [1064, 1104, 3000]], np.int16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    file = dicom(tmp_path / "ct.dcm", stored, WindowCenter=[40, 9], WindowWidth=[80, 9], **tags)
    assert image_size(file) == (3, 2)
    expected = np.clip((stored - 1024.0) / 79, 0, 1) * 255  # −1,024 to 1,976 HU, window 0 to 79
    assert np.array_equal(decode_image(file, 1)[..., 0], np.rint(expected))
    inverted = dicom(
        tmp_path / "x.dcm", stored.view(np.uint16), PhotometricInterpretation="MONOCHROME1"
    )
    whole = 255 - stored / 3000 * 255  # no window: from the smallest to the largest value
    assert np.array_equal(decode_image(inverted)[..., 0], np.rint(whole))
    empty = dicom(tmp_path / "e.dcm", stored.view(np.uint16), WindowCenter=None, WindowWidth=None)
    assert np.array_equal(decode_image(empty)[..., 0], np.rint(stored / 3000 * 255))
    palette = dicom(
        tmp_path / "p.dcm", stored.view(np.uint16), PhotometricInterpretation="PALETTE COLOR"
    )
    deep = dicom(tmp_path / "d.dcm", np.zeros((2, 3, 3), np.uint16))
    for file, why in ((palette, "with a palette"), (deep, "colors of uint16")):
        with pytest.raises(ImageError, match=why):
            decode_image(file)


def test_a_dicom_file_in_color_and_damaged_ones(tmp_path: Path) -> None:
    picture = corners()
    assert np.array_equal(decode_image(dicom(tmp_path / "rgb.dcm", picture)), picture)
    file = dicom(tmp_path / "cut.dcm", picture)
    whole = file.read_bytes()
    for size in (140, 400, len(whole) - 1000):
        file.write_bytes(whole[:size])
        with pytest.raises(ImageError):
            decode_image(file)
    file.write_bytes(bytes(500))
    with pytest.raises(ImageError, match="not an image in a known format"):
        decode_image(file)


def test_a_compressed_dicom_file_has_the_size_of_its_header(tmp_path: Path) -> None:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, RLELossless

    data = pydicom.dcmread(dicom(tmp_path / "a.dcm", np.full((16, 16), 90, np.uint8)))
    for side in (16, 400):
        Image.new("L", (side, side), 90).save(pixels := io.BytesIO(), "JPEG")
        data.PixelData = encapsulate([pixels.getvalue()])
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.save_as(tmp_path / f"{side}.dcm", enforce_file_format=True)
    assert decode_image(tmp_path / "16.dcm").shape == (16, 16, 3)
    with pytest.raises(ImageError, match="the size of the DICOM image is not the one in its"):
        decode_image(tmp_path / "400.dcm")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.compress(RLELossless)
    data.save_as(tmp_path / "rle.dcm")
    assert decode_image(tmp_path / "rle.dcm").shape == (16, 16, 3)


def test_a_deflated_dicom_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    data = pydicom.dcmread(dicom(tmp_path / "a.dcm", np.zeros((4000, 4000), np.uint8)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert (tmp_path / "b.dcm").stat().st_size < 40_000
    with pytest.raises(ImageError, match="deflated; save it uncompressed"):
        decode_image(tmp_path / "b.dcm")
