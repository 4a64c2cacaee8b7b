from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.importers import read_folders, read_masks
from preceptor.data.importers.color_names import read_labelmap
from preceptor.data.importers.shapes import Pixels
from preceptor.errors import PreceptorError
from tests.data.importers.trees import imported_maps, save_image

INSIDE = np.zeros((30, 40), bool)
INSIDE[4:12, 9:30] = True


def save(path: Path, pixels: Pixels, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in "abc":
        save_image(tmp_path / "images" / f"{name}.jpg")
    return tmp_path / "images"


@pytest.mark.parametrize("value", [1, 128, 255])
@pytest.mark.parametrize("mode", [None, "RGB", "1", "LA"])
def test_binary_masks(tmp_path: Path, images: Path, value: int, mode: str | None) -> None:
    if mode == "1" and value < 255:
        pytest.skip("one bit has no other value")
    save(tmp_path / "m" / "a_mask.png", np.where(INSIDE, value, 0).astype(np.uint8), mode)
    save(tmp_path / "m" / "b.png", np.zeros((30, 40), np.uint8), mode)
    imported = read_masks(tmp_path / "m", label="crack")
    _, maps = imported_maps(imported, images, tmp_path / "out", unmarked="unknown")
    assert list(maps) == ["a.jpg"]
    assert (maps["a.jpg"] == INSIDE * 255).all()
    rows = (tmp_path / "out" / "manifest.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    assert [row[2] for row in cells[1:]] == ["crack", "negative", "negative"]
    assert [row[5] for row in cells[1:]] == ["1", "1", "0"]


def test_gray_maps_are_kept(tmp_path: Path, images: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    save(tmp_path / "m" / "a.png", gray)
    deep = (gray.astype(np.uint16) * 257)[::-1]
    Image.fromarray(deep).save(tmp_path / "m" / "b.png")
    imported = read_masks(tmp_path / "m")
    _, maps = imported_maps(imported, images, tmp_path / "out", unmarked="unknown")
    assert (maps["a.jpg"] == gray).all()
    assert (maps["b.jpg"] == gray[::-1]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_of_16_bits_keep_marks_of_small_values(
    tmp_path: Path, images: Path, suffix: str
) -> None:
    """As programs write that number the regions of an image."""
    numbers = np.where(INSIDE, 1, 0).astype(np.uint16)
    (tmp_path / "m").mkdir()
    Image.fromarray(numbers).save(tmp_path / "m" / f"a.{suffix}")
    numbers[20:, :5] = 3
    Image.fromarray(numbers).save(tmp_path / "m" / f"b.{suffix}")
    Image.fromarray(np.zeros_like(numbers)).save(tmp_path / "m" / f"c.{suffix}")
    imported = read_masks(tmp_path / "m")
    _, maps = imported_maps(imported, images, tmp_path / "out")
    assert sorted(maps) == ["a.jpg", "b.jpg"]
    assert (maps["a.jpg"] == INSIDE * 255).all()
    assert (maps["b.jpg"] == numbers * 85).all()


@pytest.mark.parametrize("palette", [False, True])
def test_one_color_a_class(tmp_path: Path, images: Path, palette: bool) -> None:
    values = np.where(INSIDE, 1, 0).astype(np.uint8)
    values[20:, :5] = 2
    colors = np.array([[0, 0, 0], [250, 0, 0], [0, 200, 10]], np.uint8)
    if palette:
        image = Image.fromarray(values, "P")
        image.putpalette(colors.reshape(-1).tolist())
    else:
        image = Image.fromarray(colors[values])
    (tmp_path / "m").mkdir()
    image.save(tmp_path / "m" / "a.png")
    (shown,) = read_masks(tmp_path / "m")
    assert [one.label for one in shown.annotations] == ["#00c80a", "#fa0000"]
    (tmp_path / "m" / "labelmap.txt").write_text(
        "background:0,0,0::\ncrack:250,0,0::\nrust:0,200,10::\n"
    )
    imported = read_masks(tmp_path / "m")
    _, maps = imported_maps(
        imported, images, tmp_path / "out", positive=("crack",), unmarked="unknown"
    )
    assert (maps["a.jpg"] == INSIDE * 255).all()
    (tmp_path / "m" / "labelmap.txt").write_text("background:0,0,0::\ncrack:250,0,0::\n")
    with pytest.raises(PreceptorError, match=r"color \(0, 200, 10\) is of no class"):
        list(read_masks(tmp_path / "m"))


@pytest.mark.parametrize("color", ["1,2", "1,2,256", "1,2,-3", "1,2,٣", "1,2," + "9" * 5000])
def test_a_color_that_is_none_is_refused_by_line(color: str, tmp_path: Path) -> None:
    save(tmp_path / "m" / "a.png", INSIDE.astype(np.uint8))
    (tmp_path / "m" / "labelmap.txt").write_text(f"background:0,0,0::\ncrack:{color}::\n")
    with pytest.raises(PreceptorError, match=r"line 2: .* is not name:red,green,blue::"):
        list(read_masks(tmp_path / "m"))


def test_blanks_around_the_parts_of_a_color_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("crack: 1,2 ,\x1f55::\n")  # also a separator of units
    assert read_labelmap(tmp_path / "labelmap.txt") == {(1, 2, 55): "crack"}


def test_what_is_wrong_is_refused_by_file(tmp_path: Path, images: Path) -> None:
    save(tmp_path / "m" / "z.png", INSIDE.astype(np.uint8))
    save(tmp_path / "m" / "a.png", INSIDE.astype(np.uint8)[:-1])
    (tmp_path / "m" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    many = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    save(tmp_path / "m" / "c.png", many)
    with pytest.raises(PreceptorError) as caught:
        imported_maps(read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown")
    for expected in (
        "4 problems",
        "a.png: the annotations are for 40×29, the image is 40×30",
        "b.png: cannot be decoded",
        "c.png: it has",
        "there is no image 'z'",
    ):
        assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_class_folders_with_a_parallel_tree_of_masks(tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = ["train/fake/a.png", "train/real/a.png", "test/fake/b.png", "test/real/c.jpg"]
    for name in names:
        save_image(root / name)
    save(tmp_path / "marks" / "train/fake/a.bmp", np.where(INSIDE, 255, 0).astype(np.uint8))
    save(tmp_path / "marks" / "test/fake/b.png", np.zeros((30, 40), np.uint8))
    imported = read_folders(root, tmp_path / "marks")
    with pytest.raises(PreceptorError, match="2 of 4 images"):
        imported_maps(imported, root, tmp_path / "out")
    _, maps = imported_maps(imported, root, tmp_path / "out", unmarked="unknown")
    assert list(maps) == ["train/fake/a.png"]
    assert (maps["train/fake/a.png"] == INSIDE * 255).all()
    cells = [row.split(",") for row in (tmp_path / "out" / "manifest.csv").read_text().split()]
    table = {row[1]: (row[2], row[3], row[5]) for row in cells[1:]}
    assert table == {
        "train/fake/a.png": ("fake", "train", "1"),
        "train/real/a.png": ("real", "train", "0"),
        "test/fake/b.png": ("fake", "test", "1"),
        "test/real/c.jpg": ("real", "test", "0"),
    }


def test_folders_without_masks_are_labels_only(tmp_path: Path) -> None:
    for name in ("real/a.png", "fake/a.png"):
        save_image(tmp_path / "data" / name)
    _, maps = imported_maps(read_folders(tmp_path / "data"), tmp_path / "data", tmp_path / "out")
    assert maps == {}
    save_image(tmp_path / "data" / "b.png")
    with pytest.raises(PreceptorError, match="it lies in no class folder"):
        list(read_folders(tmp_path / "data"))


def test_a_mask_without_an_image_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "real" / "a.png")
    save(tmp_path / "marks" / "real" / "b.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(PreceptorError, match="no image at its place"):
        list(read_folders(tmp_path / "data", tmp_path / "marks"))
