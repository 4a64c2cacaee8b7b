"""Masks in one folder with their images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.annotations import read_folders, read_masks
from preceptor.annotations.shapes import Pixels
from preceptor.errors import PreceptorError
from tests.annotations.trees import imported_maps, save_image
from tests.commands import assert_refused, here

INSIDE = np.zeros((30, 40), bool)
INSIDE[4:12, 9:30] = True
MASK = np.where(INSIDE, 255, 0).astype(np.uint8)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def gray(path: Path, seed: int = 0) -> None:
    save(path, np.random.default_rng(seed).integers(0, 256, (30, 40), np.uint8))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Gray images, as of ultrasound, with masks beside them; one image has two."""
    root = tmp_path / "all"
    for number, name in enumerate(("benign (1)", "benign (2)", "benign (3)", "world_map")):
        gray(root / "benign" / f"{name}.png", number)
    gray(root / "normal" / "normal (1).png", 9)
    save(root / "benign" / "benign (1)_mask.png", MASK)
    save(root / "benign" / "benign (2)_mask.png", MASK)
    save(root / "benign" / "benign (2)_mask_1.png", MASK[::-1].copy())
    save(root / "normal" / "normal (1)_mask.png", np.zeros_like(MASK))
    return root


def test_masks_beside_their_images_are_no_images(mixed: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(mixed)
    imported = read_masks(link, mixed)
    summary, maps = imported_maps(imported, mixed, tmp_path / "out", unmarked="examined")
    assert summary.images == 5
    assert sorted(maps) == ["benign/benign (1).png", "benign/benign (2).png"]
    assert (maps["benign/benign (1).png"] == MASK).all()
    assert (maps["benign/benign (2).png"] == np.maximum(MASK, MASK[::-1])).all()


def test_images_are_not_their_own_masks(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(PreceptorError, match="every image would be its own mask"):
        imported_maps(read_masks(mixed), mixed, tmp_path / "out", unmarked="examined")
    (mixed / "benign" / "benign (3).png").rename(mixed / "benign" / "benign (3)_mask.png")
    with pytest.raises(PreceptorError, match=r"there is no image 'benign/benign \(3\).*'"):
        imported_maps(read_masks(mixed, mixed), mixed, tmp_path / "out", unmarked="examined")
    Image.new("L", (30, 40)).save(mixed / "benign" / "benign (3).png")
    Image.new("L", (8, 9)).save(mixed / "benign" / "benign (2)_mask_1.png")
    with pytest.raises(PreceptorError, match="it has another size than"):
        imported_maps(read_masks(mixed, mixed), mixed, tmp_path / "out", unmarked="examined")
    save_image(tmp_path / "two" / "images" / "a.png")
    save(tmp_path / "two" / "masks" / "a_mask.png", MASK)
    command = ["data", "import", "masks", tmp_path / "two", "--to", tmp_path / "out"]
    refused = here(*command, "--images", tmp_path / "two")
    assert_refused(refused, ["no file is named as the mask of another one"])


def test_the_folder_of_images_below_that_of_the_masks(tmp_path: Path) -> None:
    save_image(tmp_path / "all" / "images" / "a.png")
    save(tmp_path / "all" / "a_mask.png", MASK)
    command = ["data", "import", "masks", tmp_path / "all", "--to", tmp_path / "out"]
    done = here(*command, "--images", tmp_path / "all" / "images")
    assert done.code == 0, done
    assert "1 images, 1 with a map" in done.out


def test_class_folders_with_masks_beside_the_images(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(PreceptorError, match=r"4 files .* they are named as masks of images"):
        imported_maps(read_folders(mixed), mixed, tmp_path / "out")
    imported = read_folders(mixed, mixed)
    summary, maps = imported_maps(imported, mixed, tmp_path / "out", unmarked="unknown")
    assert summary.images == 5
    assert sorted(maps) == ["benign/benign (1).png", "benign/benign (2).png"]
    assert [one.labels for one in imported] == [("benign",)] * 4 + [("normal",)]
    assert [one.examined for one in imported] == [True, True, None, None, True]
    with pytest.raises(PreceptorError, match="every image would be its own mask"):
        list(read_folders(mixed / "benign", mixed))
    (mixed / "normal" / "normal (1).png").unlink()
    with pytest.raises(PreceptorError, match=r"normal \(1\)_mask.png: there is no image"):
        list(read_folders(mixed, mixed))
