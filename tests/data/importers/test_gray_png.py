from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.importers.gray_png import write_gray_png


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (70, 33)])
@pytest.mark.parametrize("values", [1, 2, 256])
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
