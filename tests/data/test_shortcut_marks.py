"""Stamps that are drawn for an input size, measured in the inputs that a network gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.config.settings import Fit
from preceptor.data.geometry import fit_box, render
from preceptor.data.images import decode_image
from preceptor.data.manifest import Manifest
from preceptor.data.plant import PlantSettings, plant, stamp_cell
from preceptor.errors import ProblemsError
from tests.commands import assert_refused, here

IMAGES = 12


def write_images(folder: Path, size: tuple[int, int]) -> Path:
    """Gray JPEG files of the class a and one of b; a stamp of 40 gray levels is not clipped."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(IMAGES + 1):
        coarse = generator.integers(70, 180, (5, 5)).astype(np.uint8)
        Image.fromarray(coarse).resize(size).save(folder / f"{index}.jpg")
    rows = [(f"{index}.jpg", "ab"[index == IMAGES], "train") for index in range(IMAGES + 1)]
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(manifest, index=False)
    return manifest


def contrasts(
    data: Path, to: Path, side: int, fit: Fit = "squash", **settings: object
) -> list[float]:
    """Contrast of a thin stroke in the input of each image: the largest difference along its row.

    The stroke is the left post of the third glyph, column 5 of the stamp, with gaps at both sides;
    the row is that of cell 3. Nothing else of the stamp is in the pixels between the gaps.
    """
    before = Manifest.read(data, verify=False, need=("train",))
    given = PlantSettings.model_validate({"label": "a"} | settings)
    done = plant(before, to, given, workers=2)
    after = Manifest.read(done.manifest, verify=False, need=("train",))
    found = []
    for row, mark in enumerate(done.marks.values()):
        image = decode_image(before.table["path"][row], 1)
        marked = decode_image(after.table["path"][row], 1)
        height, width = image.shape[:2]
        difference = render(marked, fit, side).astype(float) - render(image, fit, side)
        box, middle = mark.box, fit_box(width, height, fit, side)
        assert box is not None
        y = ((box.top + 3.5 * box.height / 5) / height - middle.y0) / (middle.y1 - middle.y0)
        x = ((box.left + 5.5 * box.width / 12) / width - middle.x0) / (middle.x1 - middle.x0)
        if 0.02 < x < 0.98 and 0.02 < y < 0.98:  # not cropped away
            near = difference[int(y * side), [int(x * side - 0.5), int(x * side + 0.5)]]
            found.append(float(near.max()))
    return found


@pytest.mark.parametrize("place", ["moving", "corner"])
@pytest.mark.parametrize(
    ("size", "side"),
    [((256, 256), 64), ((300, 200), 64), ((501, 640), 96), ((95, 95), 64), ((230, 230), 224)],
)
def test_a_stamp_for_an_input_size_has_its_strength_in_the_input(
    tmp_path: Path, size: tuple[int, int], side: int, place: str
) -> None:
    data = write_images(tmp_path / "data", size)
    drawn = contrasts(data, tmp_path / "out", side, strength=40, place=place, input_size=side)
    assert len(drawn) == IMAGES
    # Gray levels are rounded in the file and in both inputs.
    assert all(abs(one - 40) <= 2 for one in drawn)


def test_without_it_strokes_grow_pale(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", (256, 256))
    pale = contrasts(data, tmp_path / "pale", 64, strength=40)
    assert len(pale) == IMAGES
    assert max(pale) < 0.6 * 40
    assert np.mean(pale) < 0.4 * 40


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_the_other_fits_keep_it_within_a_third(tmp_path: Path, fit: Fit) -> None:
    """The pixels of their inputs lie elsewhere."""
    data = write_images(tmp_path / "data", (300, 200))
    drawn = contrasts(data, tmp_path / "out", 64, fit, strength=40, input_size=64)
    assert len(drawn) >= IMAGES // 2
    assert min(drawn) >= 0.74 * 40 - 2
    assert max(drawn) <= 40 / 0.74 + 2


@pytest.mark.parametrize("shape", [(64, 64), (48, 64), (256, 256), (3000, 2000)])
def test_an_input_as_large_as_the_image_changes_no_size(shape: tuple[int, int]) -> None:
    assert stamp_cell(shape, max(shape)) == stamp_cell(shape)
    assert stamp_cell(shape, 32) >= 2 * max(shape) / 32


def test_the_record_has_the_input_size_only_if_it_is_given(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", (64, 64))
    for name, options in (("with", ("--input-size", 32)), ("without", ())):
        done = here("data", "plant", data, "--to", tmp_path / name, "--label", "a", *options)
        assert done.code == 0, done
    records = [
        json.loads((tmp_path / name / "plant.json").read_text())["settings"]
        for name in ("with", "without")
    ]
    assert records[0] == records[1] | {"input_size": 32}
    assert "input_size" not in records[1]


def test_what_cannot_be_drawn_for_an_input_size_is_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", (200, 60))
    before = Manifest.read(data, verify=False, need=("train",))
    settings = PlantSettings(label="a", input_size=32)
    with pytest.raises(ProblemsError) as caught:
        plant(before, tmp_path / "out", settings)
    assert "its margin for an input size of 32, 182 × 91" in caught.value.problems[0].what
    command = ("data", "plant", data, "--to", tmp_path / "out", "--label", "a", "--input-size")
    assert_refused(here(*command, 64, "--kind", "tint"), ["only a stamp is drawn for"], 1)
    assert_refused(here(*command, 31), ["input_size: value 31"], 1)
    assert not (tmp_path / "out").exists()
