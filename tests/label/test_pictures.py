"""Pictures and pyramids of real files: the same pixels as training decodes."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_image
from preceptor.label.images import (
    TILE,
    PictureError,
    Pictures,
    level_size,
    measure,
    version_of,
    view_of,
)


def noise(width: int, height: int) -> Image.Image:
    """Smooth picture, so that JPEG changes little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 37 + at) + np.cos(y / 23 - at) for at in range(3)]
    return Image.fromarray(((np.stack(waves, 2) + 2) * 60).astype(np.uint8))


def pixels(content: bytes | None) -> np.ndarray:
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int16)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_whole_picture_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(60, 40).save(tmp_path / "a.png", exif=exif)
    size = (60, 40) if orientation < 5 else (40, 60)
    assert measure(tmp_path / "a.png") == size
    found = pixels(Pictures(tmp_path / "cache").whole(tmp_path / "a.png"))
    assert found.shape[1::-1] == size
    assert np.abs(found - decode_image(tmp_path / "a.png")).max() <= 12


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "P", "1", "CMYK"])
def test_every_mode_is_sent(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture = noise(50, 30)
    if mode == "I;16":
        grey = np.asarray(picture.convert("L"), np.uint16) * 257
        Image.fromarray(grey).save(path)
    else:
        picture.convert(mode).save(path)
    found = pixels(Pictures(tmp_path / "cache").whole(path))
    assert np.abs(found - decode_image(path)).mean() <= 5  # dithering is hard for JPEG


def test_tiles_are_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.label.images.WHOLE", 1_000_000)
    width, height = 2500, 601
    noise(width, height).save(tmp_path / "a.png")
    view, levels = view_of(width, height)
    assert (view, levels) == ("tiles", 4)
    pictures = Pictures(tmp_path / "cache")
    whole = decode_image(tmp_path / "a.png").astype(np.int16)
    for level in range(levels):
        wide, high = level_size(width, height, level)
        canvas = np.zeros((high, wide, 3), np.int16)
        for row in range(-(-high // TILE)):
            for column in range(-(-wide // TILE)):
                tile = pixels(pictures.tile(tmp_path / "a.png", level, column, row))
                place = canvas[row * TILE :, column * TILE :][:TILE, :TILE]
                assert tile.shape == place.shape
                place[:] = tile
        shrunk = np.pad(whole, ((0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)), "edge")
        assert np.abs(canvas - whole).max() <= 14, level
        whole = shrunk.reshape(shrunk.shape[0] // 2, 2, shrunk.shape[1] // 2, 2, 3).mean((1, 3))
    assert max(level_size(width, height, levels - 1)) <= TILE
    for place in ((levels, 0, 0), (0, 5, 0), (0, 0, 2)):
        assert pictures.tile(tmp_path / "a.png", *place) is None


def test_an_image_that_is_too_long_for_jpeg_is_sent_in_tiles(tmp_path: Path) -> None:
    noise(70_000, 3).save(tmp_path / "strip.png")
    view, levels = view_of(70_000, 3)
    assert (view, levels) == ("tiles", 9)
    pictures = Pictures(tmp_path / "cache")
    assert pixels(pictures.tile(tmp_path / "strip.png", 0, 136, 0)).shape == (3, 368, 3)
    last = pixels(pictures.tile(tmp_path / "strip.png", levels - 1, 0, 0))
    assert last.shape[1::-1] == level_size(70_000, 3, levels - 1)


def test_a_pyramid_is_made_once_and_again_of_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.label.images.WHOLE", 100_000)
    path = tmp_path / "a.png"
    noise(600, 500).save(path)
    pictures = Pictures(tmp_path / "cache")
    first = pictures.pyramid(path)
    marked = first / "0" / "0-0.jpg"
    marked.write_bytes(b"kept")
    assert pictures.tile(path, 0, 0, 0) == b"kept"
    noise(600, 501).save(path)
    assert pictures.pyramid(path) != first
    assert pictures.tile(path, 0, 0, 0) != b"kept"
    assert not list((tmp_path / "cache").glob(".*"))


def test_pictures_that_cannot_be_shown_say_why(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "cache")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    content = io.BytesIO()
    noise(300, 300).save(content, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content.getvalue()[:2000])
    # A header alone, of more pixels than are possible.
    Image.new("1", (1, 1)).save(tmp_path / "huge.bmp")
    head = bytearray((tmp_path / "huge.bmp").read_bytes())
    head[18:26] = (20_000).to_bytes(4, "little") + (20_000).to_bytes(4, "little")
    (tmp_path / "huge.bmp").write_bytes(bytes(head))
    reasons = {
        "empty.png": "empty",
        "text.png": "not an image",
        "cut.jpg": "truncated",
        "huge.bmp": "megapixels|large",
        "gone.png": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(PictureError, match=reason) as caught:
            pictures.whole(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(PictureError, match="no such file"):
        version_of(tmp_path / "gone.png")


def test_pyramids_are_removed_after_some_time_without_use(tmp_path: Path) -> None:
    names = ["used.png", "unused.png", "new.png"]
    for at, name in enumerate(names):
        noise(600 + at, 30).save(tmp_path / name)
    pictures = Pictures(tmp_path / "cache")
    used, unused, new = (pictures.pyramid(tmp_path / name) for name in names)
    left = pictures.cache / ".killed.tmp"  # of a server that was killed
    left.mkdir()
    week = 7 * 86_400
    for folder in (used, unused, left):
        os.utime(folder, (0, time.time() - week))
    assert pictures.pyramid(tmp_path / "used.png") == used
    assert pictures.remove_unused(8 * week) == 0
    assert pictures.remove_unused(week / 2) == 2
    assert set(pictures.cache.iterdir()) == {used, new}
    assert pictures.tile(tmp_path / "unused.png", 0, 1, 0) is not None  # made again
    assert pictures.remove_unused(week / 2) == 0


def test_a_cache_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    assert Pictures(tmp_path / "cache").remove_unused() == 0
