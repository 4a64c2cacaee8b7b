"""Folders of mask images, and class folders with masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from preceptor.annotations import read_folders, read_masks, read_yolo
from preceptor.annotations.masks import VOID
from preceptor.annotations.shapes import AnnotatedImage, Pixels
from preceptor.data.images import decode_image
from preceptor.errors import PreceptorError
from tests.annotations.trees import ORIENTATION, imported_maps, save_image
from tests.commands import assert_refused, here

INSIDE = np.zeros((30, 40), bool)
INSIDE[4:12, 9:30] = True
MASK = np.where(INSIDE, 255, 0).astype(np.uint8)
SPOT = np.zeros((200, 240), np.uint8)
SPOT[60:140, 70:170] = 1
RANDOM = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "abc":
        save_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def maps_of(root: Path, to: str = "out", **options: Any) -> dict[str, Pixels]:
    """Maps of the masks in the folder `m` by the stem of the image."""
    options = {"unmarked": "unknown"} | options
    _, maps = imported_maps(read_masks(root / "m"), root / "images", root / to, **options)
    return {Path(name).stem: pixels for name, pixels in maps.items()}


def labels_of(root: Path) -> list[str]:
    """Classes of the shapes of the first mask."""
    first: AnnotatedImage = next(iter(read_masks(root / "m")))
    return [one.label for one in first.annotations]


@pytest.mark.parametrize(
    ("value", "mode"),
    [(1, None), (128, None), (255, None), (1, "RGB"), (255, "RGB"), (255, "1"), (128, "LA")],
)
def test_binary_masks(root: Path, value: int, mode: str | None) -> None:
    save(root / "m" / "a_mask.png", np.where(INSIDE, value, 0).astype(np.uint8), mode)
    save(root / "m" / "b.png", np.zeros((30, 40), np.uint8), mode)
    maps = maps_of(root)
    assert list(maps) == ["a"]
    assert (maps["a"] == MASK).all()
    rows = [row.split(",") for row in (root / "out" / "manifest.csv").read_text().splitlines()]
    assert [(row[2], row[5]) for row in rows[1:]] == [("positive", "1"), ("negative", "1")]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_of_16_bits_keep_marks_of_small_values(root: Path, suffix: str) -> None:
    """As sensors and programs write that use a part of the 16 bits."""
    numbers = np.where(INSIDE, 1, 0).astype(np.uint16)
    save(root / "m" / f"a.{suffix}", numbers)
    numbers *= 300
    numbers[20:, :5] = 900
    save(root / "m" / f"b.{suffix}", numbers)
    save(root / "m" / f"c.{suffix}", np.zeros_like(numbers))
    maps = maps_of(root)
    assert sorted(maps) == ["a", "b"]
    assert (maps["a"] == MASK).all()
    assert (maps["b"] == numbers // 300 * 85).all()


def save_levels(folder: Path, files: dict[str, tuple[int, ...]], type_: Any = np.uint8) -> None:
    """Masks of background, an object and perhaps its border, with these values."""
    for name, values in files.items():
        pixels = np.full((30, 40), values[0], type_)
        pixels[INSIDE] = values[1]
        pixels[20:, :5] = values[-1]
        save(folder / f"{name}.png", pixels)


@pytest.mark.parametrize(
    ("files", "type_"),
    [
        ({"a": (0, 1, 2), "b": (0, 2)}, np.uint8),
        ({"a": (0, 1, 255)}, np.uint8),
        ({"a": (0, 1), "b": (0, 2), "c": (0, 0)}, np.uint8),
        ({"a": (0, 1, 3)}, np.uint16),
        ({"a": (0, 7, 33), "b": (1, 26, 255)}, np.uint8),
    ],
    ids=["classes", "border", "one class a file", "16 bits", "labelIds"],
)
def test_numbers_of_classes_are_no_strengths(
    root: Path, files: dict[str, tuple[int, ...]], type_: type[np.generic]
) -> None:
    save_levels(root / "m", files, type_)
    with pytest.raises(PreceptorError, match=r"numbers of classes.* 0 outside and 255 inside"):
        maps_of(root)


@pytest.mark.parametrize(
    "files",
    [
        {"a": (0, 128, 255)},
        {"a": (0, 100, 200)},
        {"a": (0, 10, 20), "b": (0, 50, 100), "c": (0, 70, 90)},  # percent
        {"a": (0, 13, 26), "b": (0, 14, 28), "c": (0, 255, 128)},  # means of people
    ],
)
def test_few_strengths_are_kept(root: Path, files: dict[str, tuple[int, ...]]) -> None:
    save_levels(root / "m", files)
    for name, pixels in maps_of(root).items():
        assert np.unique(pixels).tolist() == sorted(files[name])


def jpeg(pixels: Pixels, path: Path, quality: int = 75) -> np.ndarray:
    save(path / "a.jpg", pixels, quality=quality)
    return np.asarray(Image.open(path / "a.jpg"))


def test_strengths_of_many_levels_are_kept(tmp_path: Path) -> None:
    """Maps of more than 40 levels as people, eye trackers and programs make them."""
    heat = gaussian_filter(RANDOM.random((200, 240)), 12)
    heat = (heat - heat.min()) / np.ptp(heat)
    grid = np.kron(RANDOM.integers(0, 256, (14, 14)), np.ones((14, 16), int))
    people = sum(np.roll(SPOT, 3 * n, 1).astype(int) for n in range(50))
    edges = zoom(zoom(SPOT.astype(float), 0.31, order=1), 3.3, order=3).clip(0, 1) * 255
    save_levels(tmp_path / "m", {"few": (0, 1, 2)})  # beside maps of many levels
    save_image(tmp_path / "images" / "few.png")
    maps = {
        "heat": (heat * 255).astype(np.uint8),
        "faint": (heat * 59).astype(np.uint8),
        "deep": (heat * 300).astype(np.uint16),
        "cut": (heat * SPOT * 99).astype(np.uint8),
        "noise": (heat * 59 + RANDOM.integers(0, 3, heat.shape)).astype(np.uint8),
        "grid": grid.astype(np.uint8),
        "distances": distance_transform_edt(SPOT).astype(np.uint8),
        "edges": edges.astype(np.uint8),
        "jpeg": jpeg(jpeg(SPOT * 255, tmp_path, 30), tmp_path, 60),
        **{f"j{top}": jpeg((heat * top).astype(np.uint8), tmp_path, 40) for top in (50, 99)},
        "people": people.astype(np.uint8) * 5,
    }
    for name, pixels in maps.items():
        save(tmp_path / "m" / f"{name}.png", pixels)
        save_image(tmp_path / "images" / f"{name}.png", pixels.shape[1], pixels.shape[0])
    for name, pixels in maps_of(tmp_path).items():
        if name in maps:
            top = maps[name].max() if maps[name].dtype == np.uint16 else 255
            assert (pixels == np.rint(maps[name] * (255 / top))).all(), name


@pytest.mark.parametrize("type_", [np.uint8, np.uint16])
def test_a_mask_of_one_faint_level_is_refused(type_: type[np.generic], tmp_path: Path) -> None:
    save(tmp_path / "m" / "a.png", np.full((30, 40), 1, type_))
    with pytest.raises(PreceptorError, match="all of its pixels are 1, which may be outside or in"):
        labels_of(tmp_path)


@pytest.mark.parametrize("palette", [False, True])
def test_a_color_is_inside_and_several_are_refused(root: Path, palette: bool) -> None:
    colors = np.array([[0, 0, 0], [250, 0, 0], [0, 200, 10], VOID], np.uint8)
    values = np.where(INSIDE, 1, 0).astype(np.uint8)

    def write() -> None:
        image = Image.fromarray(values, "P") if palette else Image.fromarray(colors[values])
        if palette:
            image.putpalette(colors.reshape(-1).tolist())
        (root / "m").mkdir(exist_ok=True)
        image.save(root / "m" / "a.png")

    values[29] = 3
    write()
    assert (maps_of(root)["a"] == MASK).all()
    values[20:, :5] = 2
    write()
    with pytest.raises(PreceptorError, match=r"it has 4 colors; save masks of one class"):
        labels_of(root)


def test_what_is_wrong_is_refused_by_file(root: Path) -> None:
    save(root / "m" / "z.png", MASK)
    save(root / "m" / "a.png", MASK[:-1])
    (root / "m" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(root / "m" / "c.png", RANDOM.integers(0, 256, (30, 40, 3), np.uint8))
    with pytest.raises(PreceptorError) as caught:
        maps_of(root)
    for expected in (
        "4 problems",
        "a.png: the annotations are for 40×29, the image is 40×30",
        "b.png: cannot be decoded",
        "c.png: it has",
        "there is no image 'z.*'",
    ):
        assert expected in str(caught.value)
    assert not (root / "out").exists()


# Transparency and orientation


def strokes(stroke: tuple[int, ...], around: tuple[int, ...], path: Path) -> None:
    """Strokes with a smooth edge of a pixel."""
    pixels = np.empty((30, 40, 4), np.uint8)
    pixels[:] = around
    pixels[3:13, 8:31] = (*stroke[:3], stroke[3] // 3)
    pixels[INSIDE] = stroke
    save(path, pixels)


@pytest.mark.parametrize("around", [(255, 255, 255, 0), (255, 0, 0, 0)])
def test_white_strokes_on_transparent_are_gray(root: Path, around: tuple[int, ...]) -> None:
    strokes((255, 255, 255, 255), around, root / "m" / "a.png")
    assert labels_of(root) == ["positive"]
    pixels = maps_of(root)["a"]
    assert (pixels[INSIDE] == 255).all()
    assert pixels[0, 0] == 0


def test_black_strokes_on_transparent_are_refused(root: Path) -> None:
    strokes((0, 0, 0, 255), (255, 255, 255, 0), root / "m" / "a.png")
    with pytest.raises(PreceptorError, match="it is black where it is visible"):
        labels_of(root)
    for pixels in ((0, 0, 0, 255), (0, 0, 0, 0), (255, 255, 255, 0)):  # nothing is marked
        Image.new("RGBA", (40, 30), pixels).save(root / "m" / "a.png")
        assert labels_of(root) == []


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_of_a_mask(root: Path, orientation: int, deep: bool) -> None:
    """A mask that is stored as its image is, with the same orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    mask = np.where(INSIDE, 200, 0).astype(np.uint8)
    save(root / "images" / "a.png", np.repeat(mask[..., None], 3, 2), exif=exif)
    save(root / "m" / "a.png", mask.astype(np.uint16) * 9 if deep else mask, exif=exif)
    upright = decode_image(root / "images" / "a.png")[..., 0]
    assert ((maps_of(root)["a"] > 0) == (upright > 0)).all()


# Class folders, and masks among the images


def test_class_folders_with_a_parallel_tree_of_masks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("train/fake/a.png", "train/real/a.png", "test/fake/b.png", "test/real/c.jpg"):
        save_image(data / name)
    save(tmp_path / "marks" / "train/fake/a_mask.bmp", MASK)
    save(tmp_path / "marks" / "test/fake/b.bmp", np.zeros((30, 40), np.uint8))
    imported = read_folders(data, tmp_path / "marks")
    with pytest.raises(PreceptorError, match="2 of 4 images"):
        imported_maps(imported, data, tmp_path / "out")
    _, maps = imported_maps(imported, data, tmp_path / "out", unmarked="unknown")
    assert list(maps) == ["train/fake/a.png"]
    assert (maps["train/fake/a.png"] == MASK).all()
    cells = [row.split(",") for row in (tmp_path / "out" / "manifest.csv").read_text().split()]
    assert {row[1]: (row[2], row[3], row[5]) for row in cells[1:]} == {
        "train/fake/a.png": ("fake", "train", "1"),
        "train/real/a.png": ("real", "train", "0"),
        "test/fake/b.png": ("fake", "test", "1"),
        "test/real/c.jpg": ("real", "test", "0"),
    }
    save(tmp_path / "marks" / "real" / "z.png", MASK)
    save(tmp_path / "marks" / "train/fake/a.png", MASK)
    with pytest.raises(PreceptorError, match=r"data: 2 problems") as caught:
        list(read_folders(data, tmp_path / "marks"))
    for expected in (
        "train/fake/a_mask.bmp: no image of ",
        "or another mask has it; put masks into the same folders as their images",
        "real/z.png: no image of ",
    ):
        assert expected in str(caught.value)
    save(tmp_path / "two" / "fake" / "a.png", MASK)
    for suffix in ("png", "jpg"):
        save(tmp_path / "twins" / "fake" / f"a.{suffix}", MASK)
    with pytest.raises(PreceptorError, match="2 images have its place"):
        list(read_folders(tmp_path / "twins", tmp_path / "two"))
    save_levels(tmp_path / "numbers" / "train" / "fake", {"a": (0, 1, 2)})
    with pytest.raises(PreceptorError, match="taken for numbers of classes"):
        list(read_folders(data, tmp_path / "numbers"))


def test_folders_without_masks_are_labels_only(tmp_path: Path) -> None:
    for name in ("real/a.png", "fake/a.png"):
        save_image(tmp_path / "data" / name)
    _, maps = imported_maps(read_folders(tmp_path / "data"), tmp_path / "data", tmp_path / "out")
    assert maps == {}
    save_image(tmp_path / "data" / "b.png")
    with pytest.raises(PreceptorError, match="it lies in no class folder"):
        list(read_folders(tmp_path / "data"))


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("ending", ["", "_mask"])
def test_masks_below_the_folder_of_images_are_no_images(
    root: Path, linked: bool, ending: str
) -> None:
    source = root / "images" / "masks"
    for name in "ab":
        save(source / f"{name}{ending}.png", MASK)
    if linked:
        (root / "link").symlink_to(source)
    imported = read_masks(root / "link" if linked else source)
    summary, maps = imported_maps(imported, root / "images", root / "out", unmarked="examined")
    assert (summary.images, sorted(maps)) == (3, ["a.png", "b.png"])


def test_masks_may_lie_outside_of_the_split(tmp_path: Path) -> None:
    for name in ("train/good/000", "test/good/000", "test/broken/000"):
        save(tmp_path / "bottle" / f"{name}.png", MASK)
    save(tmp_path / "bottle" / "ground_truth" / "broken" / "000_mask.png", MASK)
    found = read_folders(tmp_path / "bottle", tmp_path / "bottle" / "ground_truth")
    assert {one.name: len(one.annotations) for one in found} == {
        "train/good/000.png": 0,
        "test/good/000.png": 0,
        "test/broken/000.png": 1,
    }


def test_images_beside_their_labels_stay_images(tmp_path: Path) -> None:
    """The source of another format has its images in it."""
    for name in "ab":
        save_image(tmp_path / "all" / "set" / f"{name}.png")
    (tmp_path / "all" / "set" / "a.txt").write_text("0 0.5 0.5 0.25 0.2\n")
    imported = read_yolo(tmp_path / "all" / "set")
    summary, _ = imported_maps(imported, tmp_path / "all", tmp_path / "out", unmarked="examined")
    assert summary.images == 2


@pytest.mark.parametrize("ending", ["_map", "_gt", ".mask"])
def test_an_image_whose_name_ends_as_that_of_a_mask(tmp_path: Path, ending: str) -> None:
    """Its mask has the whole name, or the name with an ending behind; others are shortened."""
    for name in (f"a{ending}.jpg", f"b{ending}.jpg", "b.jpg", f"c{ending}.jpg", "d.jpg"):
        save_image(tmp_path / "images" / name)
    for name in (f"a{ending}", f"b{ending}", f"c{ending}_mask", f"d{ending}"):
        save(tmp_path / "m" / f"{name}.png", MASK)
    assert sorted(maps_of(tmp_path)) == [f"a{ending}", f"b{ending}", f"c{ending}", "d"]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Gray images, as of ultrasound, with masks beside them; one image has two."""
    folder = tmp_path / "all"
    for name in ("benign/1", "benign/2", "benign/3", "benign/world_map", "normal/1"):
        save(folder / f"{name}.png", RANDOM.integers(0, 256, (30, 40), np.uint8))
    save(folder / "benign" / "1_mask.png", MASK)
    save(folder / "benign" / "2_mask.png", MASK)
    save(folder / "benign" / "2_mask_1.png", MASK[::-1].copy())
    save(folder / "normal" / "1_mask.png", np.zeros_like(MASK))
    return folder


def test_masks_beside_their_images_are_no_images(mixed: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(mixed)
    imported = read_masks(link, mixed)
    summary, maps = imported_maps(imported, mixed, tmp_path / "out", unmarked="examined")
    assert summary.images == 5
    assert sorted(maps) == ["benign/1.png", "benign/2.png"]
    assert (maps["benign/1.png"] == MASK).all()
    assert (maps["benign/2.png"] == np.maximum(MASK, MASK[::-1])).all()


def test_images_are_not_their_own_masks(mixed: Path, tmp_path: Path) -> None:
    def refused(message: str, read: Callable[[], Any]) -> None:
        with pytest.raises(PreceptorError, match=message):
            imported_maps(read(), mixed, tmp_path / "out", unmarked="examined")

    refused("every image would be its own mask", lambda: read_masks(mixed))
    refused("every image would be its own mask", lambda: read_folders(mixed / "benign", mixed))
    (mixed / "benign" / "3.png").rename(mixed / "benign" / "3_mask.png")
    refused(r"there is no image 'benign/3.*'", lambda: read_masks(mixed, mixed))
    Image.new("L", (30, 40)).save(mixed / "benign" / "3.png")
    Image.new("L", (8, 9)).save(mixed / "benign" / "2_mask_1.png")
    refused("it has another size than", lambda: read_masks(mixed, mixed))


def test_the_folder_of_images_of_the_command(tmp_path: Path) -> None:
    save_image(tmp_path / "all" / "images" / "a.png")
    save(tmp_path / "all" / "masks" / "a_mask.png", MASK)
    command = ["data", "import", "masks", tmp_path / "all", "--to", tmp_path / "out", "--images"]
    assert_refused(
        here(*command, tmp_path / "all"), ["no file is named as the mask of another one"]
    )
    done = here(*command, tmp_path / "all" / "images")
    assert done.code == 0, done
    assert "1 images, 1 with a map" in done.out


def test_class_folders_with_masks_beside_the_images(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(PreceptorError, match=r"1_mask\.png\): they are named as masks of "):
        imported_maps(read_folders(mixed), mixed, tmp_path / "out")
    imported = read_folders(mixed, mixed)
    summary, maps = imported_maps(imported, mixed, tmp_path / "out", unmarked="unknown")
    assert summary.images == 5
    assert sorted(maps) == ["benign/1.png", "benign/2.png"]
    assert [one.labels for one in imported] == [("benign",)] * 4 + [("normal",)]
    assert [one.examined for one in imported] == [True, True, None, None, True]
    (mixed / "normal" / "1.png").unlink()
    with pytest.raises(PreceptorError, match=r"1_mask.png: no image of "):
        list(read_folders(mixed, mixed))
