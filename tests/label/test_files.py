"""Files of images: pictures, replaced and damaged files, a drive that is away."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_image, decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.calls import UNREACHABLE
from preceptor.label.sources import PictureError, measure, version_of
from preceptor.label.sources import picture as sent_picture
from tests.commands import assert_refused, here
from tests.label.serving import Client, Running, blob, running

SIZE = (40, 30)
OTHER = (64, 48)
REASON = (
    "the file has 64 × 48 pixels, and was shown with 40 × 30; put the old file back, or give a "
    "different image a different name"
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
    picture = noise(60, 40)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    for orientation in (1, 3, 6, 8) if mode == "RGB" else (1,):
        path = tmp_path / f"{orientation}.{'tif' if mode == 'CMYK' else 'png'}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
        sent = pixels(sent_picture(path))
        assert sent.shape[1::-1] == measure(path) == ((60, 40) if orientation < 5 else (40, 60))
        assert np.abs(sent - decode_image(path)).mean() <= 5  # dithering is hard for JPEG


def test_a_large_picture_is_sent_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.label.sources.WHOLE", 100_000)
    noise(601, 400).save(tmp_path / "a.png")
    sent = pixels(sent_picture(tmp_path / "a.png"))
    assert sent.shape == (200, 301, 3)
    assert np.abs(sent[:, :300] - decode_image(tmp_path / "a.png")[1::2, 1:600:2]).max() <= 14
    noise(70_000, 3).save(tmp_path / "strip.png")  # too long for a canvas
    assert pixels(sent_picture(tmp_path / "strip.png")).shape == (1, 14_000, 3)


def test_pictures_that_cannot_be_shown_say_why(tmp_path: Path) -> None:
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
            sent_picture(tmp_path / name)
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
    replaced_too = replaced(other)
    with running(manifest) as server:
        ann = server.client("ann")
        assert ann.image(begun)["problem"] == REASON
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


def test_without_work_the_new_file_counts_after_a_start(manifest: Path) -> None:
    with running(manifest) as server:
        ann = server.client("ann")
        image = ann.queue()[0]
        version = ann.image(image)["version"]
        replaced(file_of(manifest, ann, image))
        assert ann.image(image)["problem"] == REASON
    with running(manifest) as server:
        ann = server.client("ann")
        # A browser may still have a stroke on the old image.
        told = ann.stroke(image, blob(*SIZE))
        assert (told.status, told.error) == (
            409,
            "the image has 64 × 48 pixels, and this was drawn on 40 × 30: its file was replaced",
        )
        shown = ann.image(image)
        assert (shown["width"], shown["height"], shown["problem"]) == (*OTHER, None)
        assert shown["version"] != version
        assert ann.stroke(image, blob(*OTHER)).status == 200


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
    stored = "SELECT count(*) FROM images WHERE problem IS NOT NULL"
    assert server.labeling.database.reading.execute(stored).fetchone()[0] == 0
    folder.with_name("away").rename(folder)
    assert sorted([*ann.queue(), *bo.queue()]) == [one for one in range(1, 13) if one != first]
