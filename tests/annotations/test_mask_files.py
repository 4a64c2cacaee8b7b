"""Mask files with transparency, with an orientation, and of gray and color in one folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations import read_masks
from preceptor.data.images import decode_image
from preceptor.errors import PreceptorError
from tests.annotations.trees import ORIENTATION, images_of, imported_maps, save_image

INSIDE = np.zeros((30, 40), bool)
INSIDE[4:12, 9:30] = True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_image(tmp_path / "images" / "a.png")
    (tmp_path / "m").mkdir()
    return tmp_path


def strokes(stroke: tuple[int, ...], around: tuple[int, ...], path: Path) -> None:
    """Strokes with a smooth edge of a pixel."""
    pixels = np.empty((30, 40, 4), np.uint8)
    pixels[:] = around
    pixels[3:13, 8:31] = (*stroke[:3], stroke[3] // 3)
    pixels[INSIDE] = stroke
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("around", [(255, 255, 255, 0), (0, 0, 0, 0), (255, 0, 0, 0)])
@pytest.mark.parametrize("opacity", [255, 127])
@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_pixels_are_outside(
    root: Path, around: tuple[int, ...], opacity: int, mode: str
) -> None:
    strokes((255, 0, 0, opacity), around, root / "m" / "a.png")
    if mode == "P":
        with Image.open(root / "m" / "a.png") as image:
            image.quantize(8).save(root / "m" / "a.png")
    (root / "labels.csv").write_text("path,label\na.png,fake\n")
    _, maps = imported_maps(
        read_masks(root / "m"), root / "images", root / "out", labels=root / "labels.csv"
    )
    assert (maps["a.png"] == INSIDE * 255).all()
    (record,) = read_masks(root / "m")
    assert [one.label for one in record.annotations] == ["#ff0000"]


@pytest.mark.parametrize("around", [(255, 255, 255, 0), (255, 0, 0, 0)])
def test_white_strokes_on_transparent_are_gray(root: Path, around: tuple[int, ...]) -> None:
    strokes((255, 255, 255, 255), around, root / "m" / "a.png")
    (record,) = read_masks(root / "m", label="crack")
    assert [one.label for one in record.annotations] == ["crack"]
    _, maps = imported_maps(read_masks(root / "m"), root / "images", root / "out")
    assert (maps["a.png"][INSIDE] == 255).all()
    assert maps["a.png"][0, 0] == 0


def test_black_strokes_on_transparent_are_refused(root: Path) -> None:
    strokes((0, 0, 0, 255), (255, 255, 255, 0), root / "m" / "a.png")
    with pytest.raises(PreceptorError, match="it is black where it is visible"):
        list(read_masks(root / "m"))
    (root / "m" / "labelmap.txt").write_text("ink:0,0,0::\n")
    (record,) = read_masks(root / "m")
    assert [one.label for one in record.annotations] == ["ink"]
    (root / "m" / "labelmap.txt").unlink()
    for pixels in ((0, 0, 0, 255), (0, 0, 0, 0), (255, 255, 255, 0)):  # nothing is marked
        Image.new("RGBA", (40, 30), pixels).save(root / "m" / "a.png")
        (record,) = read_masks(root / "m")
        assert record.annotations == ()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_of_a_mask(root: Path, orientation: int, deep: bool) -> None:
    """A mask that is stored as its image is, with the same orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    mask = np.where(INSIDE, 200, 0).astype(np.uint8)
    Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(root / "images" / "a.png", exif=exif)
    stored = mask.astype(np.uint16) * 9 if deep else mask
    Image.fromarray(stored).save(root / "m" / "a.png", exif=exif)
    _, maps = imported_maps(read_masks(root / "m"), root / "images", root / "out")
    assert ((maps["a.png"] > 0) == (decode_image(root / "images" / "a.png")[..., 0] > 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_class_of_white_beside_colors_is_not_guessed(root: Path, mode: str) -> None:
    save_image(root / "images" / "b.png")
    white = Image.fromarray(INSIDE)
    white.convert(mode).save(root / "m" / "a.png")
    red = Image.new("RGB", (40, 30))
    red.paste((255, 0, 0), mask=white)
    red.save(root / "m" / "b.png")
    with pytest.raises(PreceptorError, match=r"1 gray masks .*a.png.* others have colors .*b.png"):
        list(read_masks(root / "m"))
    (root / "m" / "labelmap.txt").write_text("wet:255,255,255::\nhot:255,0,0::\n")
    found = images_of(read_masks(root / "m"))
    assert [one.annotations[0].label for one in found.values()] == ["wet", "hot"]
    (root / "m" / "labelmap.txt").unlink()
    Image.new("L", (40, 30)).save(root / "m" / "a.png")  # nothing is marked
    assert len(list(read_masks(root / "m"))) == 2
