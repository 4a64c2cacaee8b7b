"""Files of images: pictures and pyramids, replaced and damaged files, a drive that is away."""

from __future__ import annotations

import io
import os
import re
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_image, decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.calls import UNREACHABLE
from preceptor.label.db import connect
from preceptor.label.images import (
    TILE,
    PictureError,
    Pictures,
    look_again,
    measure,
    version_of,
    view_of,
)
from tests.commands import assert_refused, here
from tests.label.serving import Client, Running, blob, running, stroke_of

SIZE = (40, 30)
OTHER = (64, 48)
REASON = (
    "the file has 64 × 48 pixels, and its marks were made on 40 × 30; they are kept, put the old "
    "file back"
)


def noise(width: int, height: int) -> Image.Image:
    """Smooth picture, so that JPEG changes little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 37 + at) + np.cos(y / 23 - at) for at in range(3)]
    return Image.fromarray(((np.stack(waves, 2) + 2) * 60).astype(np.uint8))


def pixels(content: bytes | None) -> np.ndarray:
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int16)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA", "P", "1", "CMYK"])
def test_the_whole_picture_is_upright_in_every_mode(tmp_path: Path, mode: str) -> None:
    picture, pictures = noise(60, 40), Pictures(tmp_path / "cache")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    for orientation in (1, 3, 6, 8) if mode == "RGB" else (1,):
        path = tmp_path / f"{orientation}.{'tif' if mode == 'CMYK' else 'png'}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
        sent = pixels(pictures.whole(path))
        assert sent.shape[1::-1] == measure(path) == ((60, 40) if orientation < 5 else (40, 60))
        assert np.abs(sent - decode_image(path)).mean() <= 5  # dithering is hard for JPEG


def test_tiles_are_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.label.images.WHOLE", 1_000_000)
    width, height = 2500, 601
    noise(width, height).save(tmp_path / "a.png")
    assert view_of(width, height) == ("tiles", 4)
    pictures = Pictures(tmp_path / "cache")
    whole = decode_image(tmp_path / "a.png").astype(np.float64)
    for level in range(4):
        high, wide = whole.shape[:2]
        canvas = np.zeros_like(whole)
        for row in range(-(-high // TILE)):
            for column in range(-(-wide // TILE)):
                tile = pixels(pictures.tile(tmp_path / "a.png", level, column, row))
                place = canvas[row * TILE :, column * TILE :][:TILE, :TILE]
                assert tile.shape == place.shape
                place[:] = tile
        assert np.abs(canvas - whole).max() <= 14, level
        whole = np.pad(whole, ((0, high % 2), (0, wide % 2), (0, 0)), "edge")
        whole = whole.reshape(whole.shape[0] // 2, 2, whole.shape[1] // 2, 2, 3).mean((1, 3))
    assert max(wide, high) <= TILE
    for number in ((4, 0, 0), (0, 5, 0), (0, 0, 2)):
        assert pictures.tile(tmp_path / "a.png", *number) is None
    # An image that is too long for JPEG is sent in tiles.
    noise(70_000, 3).save(tmp_path / "strip.png")
    assert view_of(70_000, 3) == ("tiles", 9)
    assert pixels(pictures.tile(tmp_path / "strip.png", 0, 136, 0)).shape == (3, 368, 3)
    assert pixels(pictures.tile(tmp_path / "strip.png", 8, 0, 0)).shape == (1, 274, 3)


def test_pyramids_are_made_once_and_removed_after_some_time_without_use(tmp_path: Path) -> None:
    names = ["used.png", "unused.png", "new.png"]
    for at, name in enumerate(names):
        noise(600 + at, 30).save(tmp_path / name)
    pictures = Pictures(tmp_path / "cache")
    assert pictures.remove_unused() == 0  # nor is there a folder
    used, unused, new = (pictures.pyramid(tmp_path / name) for name in names)
    (used / "0" / "0-0.jpg").write_bytes(b"kept")
    left = pictures.cache / ".killed.tmp"  # of a server that was killed
    left.mkdir()
    week = 7 * 86_400
    for folder in (used, unused, left):
        os.utime(folder, (0, time.time() - week))
    assert pictures.tile(tmp_path / "used.png", 0, 0, 0) == b"kept"
    assert pictures.remove_unused(8 * week) == 0
    assert pictures.remove_unused(week / 2) == 2
    assert set(pictures.cache.iterdir()) == {used, new}
    assert pictures.tile(tmp_path / "unused.png", 0, 1, 0) is not None  # made again
    noise(600, 31).save(tmp_path / "used.png")
    assert pictures.pyramid(tmp_path / "used.png") != used
    assert pictures.tile(tmp_path / "used.png", 0, 0, 0) != b"kept"


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


def file_of(manifest: Path, client: Client, image: int) -> Path:
    return manifest.parent / "images" / str(client.image(image)["name"])


def replaced(file: Path, size: tuple[int, int] = OTHER) -> bytes:
    """Replace an image by another one; returns the old content."""
    before = file.read_bytes()
    Image.new("RGB", size, "red").save(file)
    return before


def exported_map(folder: Path, file: Path) -> Path | None:
    """Map of an image that an export made."""
    table = Manifest.read(folder / "manifest.csv", need=()).table
    (path,) = (
        str(one.saliency) for one in table.itertuples() if Path(str(one.path)).name == file.name
    )
    return Path(path) if folder in Path(path).resolve().parents else None


def test_a_replaced_image_is_told_and_comes_back(
    manifest: Path, database: Path, tmp_path: Path
) -> None:
    with running(manifest) as server:
        ann = server.client("ann")
        image, begun = ann.queue()[:2]
        assert ann.stroke(image, blob(*SIZE)).status == 200
        assert ann.answer(image).status == 200
        assert ann.stroke(begun, blob(*SIZE)).status == 200
        file, other = (file_of(manifest, ann, one) for one in (image, begun))
        before = replaced(file)
        shown = ann.get(f"/api/images/{image}/whole")
        assert (shown.status, shown.error) == (422, REASON)
        told = ann.image(image)
        assert (told["problem"], told["width"], told["height"]) == (REASON, *SIZE)
        assert len(told["strokes"]) == 1
    assert f"{file.name}: {REASON}" in here("label", "status", database).out
    out = here("label", "export", database, "--to", tmp_path / "without")
    assert re.search(r"have another size than .* marks are left out \(1\)", out.out)
    assert exported_map(tmp_path / "without", file) is None
    with closing(connect(database)) as connection:
        look_again(connection, manifest.parent)
    replaced_too = replaced(other)
    with running(manifest) as server:  # it is found at the start, too
        ann = server.client("ann")
        assert begun not in ann.queue()
        file.write_bytes(before)
        other.write_bytes(replaced_too)
        assert ann.image(image)["problem"] is None
        assert ann.get(f"/api/images/{image}/whole").status == 200
        assert len(ann.image(begun)["strokes"]) == 1
    assert file.name not in here("label", "status", database).out
    assert here("label", "export", database, "--to", tmp_path / "out").code == 0
    made = exported_map(tmp_path / "out", file)
    assert made is not None
    assert np.array_equal(decode_map(made) >= 0.5, blob(*SIZE))


@pytest.mark.parametrize("state", ["", "cannot_judge", "marked"])
def test_without_marks_the_new_file_counts(manifest: Path, server: Running, state: str) -> None:
    """Of an image with the answer *done* whose marks were all undone, too."""
    ann = server.client("ann")
    image = ann.queue()[0]
    version, name = ann.image(image)["version"], stroke_of(blob(*SIZE))["uuid"]
    assert ann.stroke(image, blob(*SIZE), uuid=name).status == 200
    if state == "marked":
        assert ann.answer(image).status == 200
    assert ann.turn(image, "undo", name).status == 200
    if state == "cannot_judge":
        assert ann.answer(image, state).status == 200
    replaced(file_of(manifest, ann, image))
    told = ann.stroke(image, blob(*SIZE))
    assert (told.status, told.error) == (
        409,
        "the image has 64 × 48 pixels, and this was drawn on 40 × 30: its file was replaced",
    )
    shown = ann.image(image)
    assert (shown["width"], shown["height"], shown["problem"]) == (*OTHER, None)
    assert shown["answer"] is None
    assert shown["version"] != version
    assert ann.turn(image, "redo", name).status == 409  # it was drawn on another image
    assert image in ann.queue()
    assert ann.get("/api/state").json["totals"]["done"] == 0
    assert ann.stroke(image, blob(*OTHER)).status == 200
    assert ann.answer(image).status == 200
    assert ann.get("/api/state").json["totals"]["done"] == 1


def test_a_drive_that_is_away_for_a_moment_changes_nothing(
    manifest: Path, database: Path, server: Running, tmp_path: Path
) -> None:
    ann, bo = server.client("ann"), server.client("bo")
    first, second = (one["id"] for one in ann.get("/api/queue?count=2").json["images"])
    assert ann.stroke(first, blob(*SIZE)).status == 200
    folder = manifest.parent / "images"
    folder.rename(folder.with_name("away"))
    told = bo.get("/api/queue?count=4")
    assert (told.status, told.error) == (503, UNREACHABLE)
    # It can be asked for again; 422 would say that the picture is damaged.
    assert ann.get(f"/api/images/{second}/whole").status == 503
    # What was seen before is saved, and the answer does not depend on what comes next.
    assert ann.stroke(second, blob(*SIZE)).status == 200
    assert ann.answer(first).status == 200
    refused = here("label", "export", database, "--to", tmp_path / "out")
    assert_refused(refused, ["none of the 12 image files is there"])
    with closing(connect(database)) as connection:
        look_again(connection, manifest.parent)
        stored = "SELECT count(*) FROM images WHERE problem IS NOT NULL"
        assert connection.execute(stored).fetchone()[0] == 0
    folder.with_name("away").rename(folder)
    assert sorted([*ann.queue(), *bo.queue()]) == [one for one in range(1, 13) if one != first]
