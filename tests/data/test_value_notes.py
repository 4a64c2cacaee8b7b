"""Notes on 16-bit images of few bits, on invisible images and on maps in color."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.data.manifest import Manifest
from preceptor.data.notes import EXAMINED, value_notes
from tests.commands import here
from tests.datasets import squares


def test_sound_data_have_no_notes(tmp_path: Path) -> None:
    assert value_notes(Manifest.read(squares(tmp_path))) == []


@pytest.mark.parametrize(("bits", "levels"), [(12, 17), (14, 65), (16, None)])
def test_images_of_few_bits_in_files_of_16_are_noted(
    bits: int, levels: int | None, tmp_path: Path
) -> None:
    file = squares(tmp_path)
    names = sorted((tmp_path / "images").glob("*.png"))
    deep = np.linspace(0, 2**bits - 1, 32 * 32).astype(np.uint16).reshape(32, 32)
    for name in names[:2]:
        Image.fromarray(deep).save(name)
    if levels is None:
        assert value_notes(Manifest.read(file)) == []
        return
    assert len(np.unique(decode_image(names[0]))) == levels
    (note,) = value_notes(Manifest.read(file))
    assert len(names) <= EXAMINED
    expected = f"2 of {len(names)} examined images have 16 bits and no value above {2**bits - 1:,}"
    assert note.startswith(expected)
    assert f"so that {levels} gray levels are left" in note


def test_images_without_a_visible_pixel_are_noted(tmp_path: Path) -> None:
    """As TGA files of 32 bits whose alpha channel is unused."""
    file = squares(tmp_path)
    names = sorted((tmp_path / "images").glob("*.png"))
    color = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    color[..., 3] = 0
    color[0, 0, 3] = 1
    Image.fromarray(color).save(names[0])
    assert value_notes(Manifest.read(file)) == []
    color[..., 3] = 0
    Image.fromarray(color).save(tmp_path / "image.tga")
    names[0].write_bytes((tmp_path / "image.tga").read_bytes())
    assert (decode_image(names[0]) == 255).all()
    (note,) = value_notes(Manifest.read(file))
    assert note.startswith(f"1 of {len(names)} examined images has no pixel that is visible")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_maps_in_color_are_noted_and_gray_ones_are_not(suffix: str, tmp_path: Path) -> None:
    file = squares(tmp_path)
    values = np.tile(np.linspace(0, 1, 32), (32, 1))
    jet = np.clip(1.5 - np.abs(4 * values[..., None] - [3, 2, 1]), 0, 1)  # red, green and blue
    jet = (jet * 255).round().astype(np.uint8)
    gray = np.repeat((values * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    maps = sorted((tmp_path / "maps").iterdir())
    for name, picture, said in (("gray", gray, False), ("jet", jet, True)):
        Image.fromarray(picture).save(tmp_path / f"{name}{suffix}", quality=60)
        maps[0].write_bytes((tmp_path / f"{name}{suffix}").read_bytes())
        notes = value_notes(Manifest.read(file))
        assert len(notes) == said
    assert f"1 of {len(maps)} examined human maps has colors: a map is read by its" in notes[0]
    done = here("data", "check", file)
    assert done.code == 0
    assert f"note: {notes[0]}" in done.out
