from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_image, decode_map
from preceptor.data.importers.gray_png import write_gray_png


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (70, 33)])
@pytest.mark.parametrize("values", [3, 256])
def test_pillow_reads_what_was_written(
    tmp_path: Path, height: int, width: int, values: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, values, (height, width), np.uint8)
    write_gray_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        assert (np.asarray(image) == pixels).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (70, 33), (64, 64)])
@pytest.mark.parametrize("levels", [[0, 255], [255], [0]])
def test_a_map_of_black_and_white_has_one_bit_and_the_same_values(
    tmp_path: Path, height: int, width: int, levels: list[int]
) -> None:
    pixels = np.random.default_rng(0).choice(np.array(levels, np.uint8), (height, width))
    path = tmp_path / "a.png"
    write_gray_png(path, pixels)
    with Image.open(path) as image:
        assert image.mode == "1"
        assert (np.asarray(image.convert("L")) == pixels).all()
    assert (decode_map(path) * 255 == pixels).all()
    assert (decode_image(path, 1)[..., 0] == pixels).all()


@pytest.mark.parametrize("gray", [1, 128, 254])
def test_a_map_with_one_other_gray_level_keeps_it(tmp_path: Path, gray: int) -> None:
    pixels = np.zeros((30, 20), np.uint8)
    pixels[5:9, 3:7], pixels[20, 10] = 255, gray
    write_gray_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        assert (np.asarray(image) == pixels).all()
