"""Gray masks: numbers of regions and classes, masks of one level, and strengths."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from preceptor.annotations import read_masks
from preceptor.annotations.masks import are_region_numbers
from preceptor.annotations.shapes import Pixels
from preceptor.errors import PreceptorError
from tests.annotations.trees import imported_maps, save_image

RANDOM = np.random.default_rng(0)
SPOT = np.zeros((200, 240), np.uint8)
SPOT[60:140, 70:170] = 1


def numbered(count: int, side: int, gap: int = 2) -> np.ndarray:
    """Regions with numbers from 1, row by row."""
    each = 240 // side
    mask = np.zeros((200, 240), np.uint16)
    for number in range(count):
        top, left = number // each * side, number % each * side
        mask[top : top + side - gap, left : left + side - gap] = number + 1
    return mask


def jpeg(pixels: Pixels, path: Path, quality: int = 75) -> np.ndarray:
    Image.fromarray(pixels).save(path / "a.jpg", quality=quality)
    return np.asarray(Image.open(path / "a.jpg"))


@pytest.mark.parametrize(
    "mask",
    [
        numbered(60, 24),
        numbered(60, 24).astype(np.uint8),
        numbered(120, 20, gap=0),
        np.where(numbered(90, 20) % 20 == 3, 0, numbered(90, 20)),
    ],
    ids=["cells", "8 bits", "they touch", "some are missing"],
)
def test_numbers_of_regions_are_no_strengths(mask: Pixels, tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png", 240, 200)
    (tmp_path / "m").mkdir()
    Image.fromarray(mask).save(tmp_path / "m" / "a.png")
    with pytest.raises(PreceptorError, match=r"levels of 1 files \(such as a.png\)"):
        imported_maps(read_masks(tmp_path / "m"), tmp_path / "images", tmp_path / "out")


def strengths(path: Path) -> dict[str, np.ndarray]:
    """Maps of more than 40 levels as people, eye trackers and programs make them."""
    heat = gaussian_filter(RANDOM.random((200, 240)), 12)
    heat -= heat.min()
    heat /= heat.max()
    spot = SPOT.astype(float)
    small = zoom(spot, 0.31, order=1)
    return {
        "heat map": (heat * 255).astype(np.uint8),
        "faint": (heat * 59).astype(np.uint8),
        "faint, 16 bits": (heat * 300).astype(np.uint16),
        "faint, cut at a border": (heat * spot * 99).astype(np.uint8),
        "12 bits": (heat * 4095).astype(np.uint16),
        "noise": (heat * 59 + RANDOM.integers(0, 3, heat.shape)).astype(np.uint8),
        "cells of a grid": np.kron(
            RANDOM.integers(0, 256, (14, 14)), np.ones((14, 16), int)
        ).astype(np.uint8),
        "distances": distance_transform_edt(SPOT).astype(np.uint8),
        "soft": (gaussian_filter(spot, 9) * 255).astype(np.uint8),
        "smooth edges": (zoom(small, 3.3, order=3).clip(0, 1) * 255).astype(np.uint8),
        "compressed": jpeg(SPOT * 255, path),
        "compressed twice": jpeg(jpeg(SPOT * 255, path, 30), path, 60),
        **{
            f"faint, compressed {top} {quality}": jpeg((heat * top).astype(np.uint8), path, quality)
            for top in (50, 70, 99)
            for quality in (40, 75, 90)
        },
        "people": sum(np.roll(SPOT, 3 * n, 1).astype(int) for n in range(50)).astype(np.uint8) * 5,
    }


def test_strengths_of_many_levels_are_kept(tmp_path: Path) -> None:
    for name, pixels in strengths(tmp_path).items():
        levels = np.unique(pixels)
        assert not are_region_numbers(pixels, levels), name
        folder = tmp_path / name
        for end in ("m", "images"):
            (folder / end).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "m" / "a.png")
        save_image(folder / "images" / "a.png", pixels.shape[1], pixels.shape[0])
        _, maps = imported_maps(read_masks(folder / "m"), folder / "images", folder / "out")
        kept = np.rint(pixels * (255 / pixels.max())) if pixels.dtype == np.uint16 else pixels
        assert (maps["a.png"] == kept).all(), name


# Levels of the masks of a folder, and whether they are numbers of classes.
FOLDERS = [
    ([(0, 3, 1), (0, 17, 89), (0, 150, 120)], True),
    ([(1, 2, 181), (0, 255, 7), (0, 11, 96)], True),
    ([(0, 128, 255), (0, 85, 170), (0, 64, 191)], False),
    ([(0, 10, 20), (0, 50, 100), (0, 70, 90)], False),  # percent
    ([(0, 13, 26), (0, 14, 28), (0, 255, 128)], False),  # means of people
]


@pytest.mark.parametrize(("files", "refused"), FOLDERS)
def test_numbers_of_many_classes(
    files: list[tuple[int, int, int]], refused: bool, tmp_path: Path
) -> None:
    for number, (outside, top, bottom) in enumerate(files):
        mask = np.full((200, 240), outside, np.uint8)
        mask[:60], mask[80:140] = top, bottom
        save_image(tmp_path / "images" / f"{number}.png", 240, 200)
        (tmp_path / "m").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "m" / f"{number}.png")
    if refused:
        with pytest.raises(PreceptorError, match="taken for numbers of classes"):
            imported_maps(read_masks(tmp_path / "m"), tmp_path / "images", tmp_path / "out")
        return
    _, maps = imported_maps(read_masks(tmp_path / "m"), tmp_path / "images", tmp_path / "out")
    assert len(maps) == 3


@pytest.mark.parametrize("type_", [np.uint8, np.uint16])
def test_a_mask_of_one_faint_level_is_refused(type_: type[np.generic], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Image.fromarray(np.full((30, 40), 1, type_)).save(tmp_path / "m" / "a.png")
    with pytest.raises(PreceptorError, match="all of its pixels are 1, which may be outside or in"):
        list(read_masks(tmp_path / "m"))
