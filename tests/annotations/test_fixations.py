from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from preceptor.annotations import Gaze, read_fixations
from preceptor.annotations.shapes import Mask, Pixels
from preceptor.errors import PreceptorError
from tests.annotations.trees import imported_maps, save_image


def write(folder: Path, text: str) -> Path:
    save_image(folder / "images" / "a.png")
    (folder / "gaze.csv").write_text(text)
    return folder / "gaze.csv"


def density(folder: Path, text: str, gaze: Gaze) -> Pixels:
    (image,) = read_fixations(write(folder, text), folder / "images", gaze)
    (one,) = image.annotations
    assert isinstance(one.shape, Mask)
    return one.shape.pixels


def test_durations_are_weights(tmp_path: Path) -> None:
    text = "image,x,y,duration\na.png,5.5,5.5,100\na.png,30.5,20.5,200\n"
    found = density(tmp_path, text, Gaze(2))
    assert found[20, 30] == 255
    assert abs(int(found[5, 5]) - 128) <= 1


@pytest.mark.parametrize(
    ("position", "gaze"), [("10.5,20.5", Gaze(2)), ("121,91", Gaze(4, display=(100, 50, 80, 60)))]
)
def test_positions_on_the_screen(tmp_path: Path, position: str, gaze: Gaze) -> None:
    found = density(tmp_path, f"image,x,y\na.png,{position}\n", gaze)
    impulse = np.zeros((30, 40))
    impulse[20, 10] = 1
    blurred = ndimage.gaussian_filter(impulse, 2, mode="constant", truncate=8)
    assert np.abs(found - blurred * 255 / blurred.max()).max() <= 1


def test_every_annotator_has_a_map(tmp_path: Path) -> None:
    text = "image,x,y,annotator,label\n" + "".join(
        f"a.png,{x},9,{person},fake\n" for x, person in ((5, "ann"), (30, "bob"), (99, "bob"))
    )
    path = write(tmp_path, text)
    imported = read_fixations(path, tmp_path / "images", Gaze(3))
    summary, maps = imported_maps(imported, tmp_path / "images", tmp_path / "out", merge="any")
    assert summary.annotators == ("ann", "bob")
    assert summary.notes == {"fixations beside the image are not drawn": 1}
    assert maps["a.png"][9, 5] > 240
    assert maps["a.png"][9, 30] > 240
    assert ",fake," in (tmp_path / "out" / "manifest.csv").read_text()


def test_what_is_wrong_is_refused_by_row(tmp_path: Path) -> None:
    text = "image,x,y,duration\na.png,nan,2,1\na.png,1,two,1\na.png,1,2,0\n,1,2,3\n"
    with pytest.raises(PreceptorError) as caught:
        read_fixations(write(tmp_path, text), tmp_path / "images", Gaze(2))
    for expected in (
        "4 problems",
        "row 2: x is 'nan'",
        "row 3: y is 'two'",
        "row 4: duration",
        "row 5: image is empty",
    ):
        assert expected in str(caught.value)
    with pytest.raises(PreceptorError, match="column 'y' is missing"):
        read_fixations(write(tmp_path, "image,x\na.png,1\n"), tmp_path / "images", Gaze(2))
    imported = read_fixations(
        write(tmp_path, "image,x,y\nb.png,1,1\n"), tmp_path / "images", Gaze(2)
    )
    with pytest.raises(PreceptorError, match=r"there is no image 'b.png'"):
        list(imported)


@pytest.mark.parametrize(
    "given", [(0.0,), (float("nan"),), (float("inf"),), (1.0, (0.0, 0.0, 0.0, 5.0))]
)
def test_sizes_that_are_not_above_0_are_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(PreceptorError):
        Gaze(*given)


def test_fixations_beside_the_image_examine_nothing(tmp_path: Path) -> None:
    """Positions on the screen without --display would make images with nothing to mark of them."""
    images, out = tmp_path / "images", tmp_path / "out"
    save_image(images / "b.png")
    text = "image,x,y,label\na.png,9,9,fake\nb.png,900,9,fake\n"
    imported = read_fixations(write(tmp_path, text), images, Gaze(3))
    summary, maps = imported_maps(imported, images, out, merge="majority")
    table = pd.read_csv(out / "manifest.csv")
    assert (list(maps), table["annotated"].tolist()) == (["a.png"], [1, 0])
    assert table["label"].tolist() == ["fake", "fake"]
    assert any(note.startswith("images have no fixation on them") for note in summary.notes)
    text = text.replace("a.png,9,9", "a.png,90,9")
    with pytest.raises(PreceptorError, match="no fixation lies on its image; add or correct --d"):
        list(read_fixations(write(tmp_path, text), images, Gaze(3)))
    imported = read_fixations(write(tmp_path, "image,x,y\na.png,9,9\n"), images, Gaze(3))
    with pytest.raises(PreceptorError, match=r"row 2 a\.png: it has no label; add .* column label"):
        imported_maps(imported, images, tmp_path / "x")
