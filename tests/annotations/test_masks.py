from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations import read_folders, read_masks, read_yolo
from preceptor.annotations.shapes import Pixels
from preceptor.errors import PreceptorError
from tests.annotations.trees import imported_maps, save_image

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
    assert [row[2] for row in cells[1:]] == ["crack", "negative"]
    assert [row[5] for row in cells[1:]] == ["1", "1"]


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
    """As sensors and programs write that use a part of the 16 bits."""
    numbers = np.where(INSIDE, 1, 0).astype(np.uint16)
    (tmp_path / "m").mkdir()
    Image.fromarray(numbers).save(tmp_path / "m" / f"a.{suffix}")
    numbers *= 300
    numbers[20:, :5] = 900
    Image.fromarray(numbers).save(tmp_path / "m" / f"b.{suffix}")
    Image.fromarray(np.zeros_like(numbers)).save(tmp_path / "m" / f"c.{suffix}")
    imported = read_masks(tmp_path / "m")
    _, maps = imported_maps(imported, images, tmp_path / "out")
    assert sorted(maps) == ["a.jpg", "b.jpg"]
    assert (maps["a.jpg"] == INSIDE * 255).all()
    assert (maps["b.jpg"] == numbers // 300 * 85).all()


CLASSES = [
    ("classes", {"a": (0, 1, 2), "b": (0, 2)}, np.uint8),
    ("border", {"a": (0, 1, 255)}, np.uint8),
    ("one class a file", {"a": (0, 1), "b": (0, 2), "c": (0, 0)}, np.uint8),
    ("16 bits", {"a": (0, 1, 3)}, np.uint16),
    ("labelIds", {"a": (0, 7, 33), "b": (1, 26, 255)}, np.uint8),
]


def save_levels(folder: Path, files: dict[str, tuple[int, ...]], type_: type[np.generic]) -> None:
    """Masks of background, an object and perhaps its border, with these values."""
    folder.mkdir()
    for name, values in files.items():
        pixels = np.full((30, 40), values[0], type_)
        pixels[INSIDE] = values[1]
        pixels[20:, :5] = values[-1]
        Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.mark.parametrize(
    ("files", "type_"), [one[1:] for one in CLASSES], ids=[c[0] for c in CLASSES]
)
def test_numbers_of_classes_are_no_strengths(
    tmp_path: Path, images: Path, files: dict[str, tuple[int, ...]], type_: type[np.generic]
) -> None:
    save_levels(tmp_path / "m", files, type_)
    with pytest.raises(PreceptorError, match="taken for numbers of classes") as caught:
        imported_maps(read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown")
    assert "labelmap.txt" in str(caught.value)
    assert "masks of 0 and 255" in str(caught.value)
    levels = sorted({level for values in files.values() for level in values} - {0, 255})
    lines = [f"class{level}:{level},{level},{level}::" for level in levels]
    lines += ["background:0,0,0::", "background:255,255,255::"]
    (tmp_path / "m" / "labelmap.txt").write_text("\n".join(lines) + "\n")
    wanted = f"class{files['a'][1]}"
    _, maps = imported_maps(
        read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown", positive=(wanted,)
    )
    expected = INSIDE.copy()
    if files["a"][1] == files["a"][-1]:
        expected[20:, :5] = True
    assert (maps["a.jpg"] == expected * 255).all()


def test_names_of_classes_with_a_byte_order_mark(tmp_path: Path, images: Path) -> None:
    """As the editor of Windows writes them: the background was drawn as a class."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[INSIDE] = (255, 0, 0)
    save(tmp_path / "m" / "a.png", pixels)
    file = tmp_path / "m" / "labelmap.txt"
    file.write_text("background:0,0,0::\nRiß:255,0,0::\n", encoding="utf-8-sig")
    assert read_masks(tmp_path / "m").classes == ["Riß"]
    _, maps = imported_maps(
        read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown"
    )
    assert (maps["a.jpg"] == INSIDE * 255).all()
    file.write_text(file.read_text(encoding="utf-8-sig"), encoding="latin-1")
    with pytest.raises(PreceptorError, match=r"labelmap.txt: it is not UTF-8 text; save it so"):
        read_masks(tmp_path / "m")


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 85, 170), (0, 100, 200)])
def test_few_strengths_are_kept(tmp_path: Path, images: Path, values: tuple[int, ...]) -> None:
    save_levels(tmp_path / "m", {"a": values}, np.uint8)
    _, maps = imported_maps(
        read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown"
    )
    assert np.unique(maps["a.jpg"]).tolist() == list(values)


def test_faint_maps_of_many_levels_are_kept(tmp_path: Path, images: Path) -> None:
    save_levels(tmp_path / "m", {"b": (0, 1, 2)}, np.uint8)
    faint = np.arange(1200).reshape(30, 40).astype(np.uint8) % 60
    save(tmp_path / "m" / "a.png", faint)
    _, maps = imported_maps(
        read_masks(tmp_path / "m"), images, tmp_path / "out", unmarked="unknown"
    )
    assert (maps["a.jpg"] == faint).all()


def test_numbers_of_classes_in_the_masks_of_class_folders(tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "fake" / "a.png")
    (tmp_path / "marks").mkdir()
    save_levels(tmp_path / "marks" / "fake", {"a": (0, 1, 2)}, np.uint8)
    with pytest.raises(PreceptorError, match="taken for numbers of classes"):
        list(read_folders(tmp_path / "data", tmp_path / "marks"))


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
        "there is no image 'z.*'",
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


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("ending", ["", "_mask"])
def test_masks_below_the_folder_of_images_are_no_images(
    tmp_path: Path, linked: bool, ending: str
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save_image(tmp_path / "all" / name)
    for name in "ab":
        pixels = np.where(INSIDE, 255, 0).astype(np.uint8)
        save(tmp_path / "all" / "masks" / f"{name}{ending}.png", pixels)
    source = tmp_path / "all" / "masks"
    if linked:
        source = tmp_path / "link"
        source.symlink_to(tmp_path / "all" / "masks")
    summary, maps = imported_maps(
        read_masks(source), tmp_path / "all", tmp_path / "out", unmarked="examined"
    )
    assert (summary.images, sorted(maps)) == (3, ["a.png", "b.png"])


def test_images_beside_their_labels_stay_images(tmp_path: Path) -> None:
    """The source of another format has its images in it."""
    for name in "ab":
        save_image(tmp_path / "all" / "set" / f"{name}.png")
    (tmp_path / "all" / "set" / "a.txt").write_text("0 0.5 0.5 0.25 0.2\n")
    summary, _ = imported_maps(
        read_yolo(tmp_path / "all" / "set"), tmp_path / "all", tmp_path / "out", unmarked="examined"
    )
    assert summary.images == 2


@pytest.mark.parametrize("ending", ["_map", "_label", "_gt", "_seg", ".mask"])
def test_an_image_whose_name_ends_as_that_of_a_mask(tmp_path: Path, ending: str) -> None:
    """Its mask has the whole name, or the name with an ending behind; others are shortened."""
    for name in (f"a{ending}.jpg", f"b{ending}.jpg", "b.jpg", f"c{ending}.jpg", "d.jpg"):
        save_image(tmp_path / "images" / name)
    pixels = np.where(INSIDE, 255, 0).astype(np.uint8)
    for name in (f"a{ending}", f"b{ending}", f"c{ending}_mask", f"d{ending}"):
        save(tmp_path / "m" / f"{name}.png", pixels)
    _, maps = imported_maps(
        read_masks(tmp_path / "m"), tmp_path / "images", tmp_path / "out", unmarked="unknown"
    )
    assert sorted(maps) == [f"a{ending}.jpg", f"b{ending}.jpg", f"c{ending}.jpg", "d.jpg"]
