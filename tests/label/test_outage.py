"""Files that cannot be reached for a while: nobody loses images or answers by it."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path

import pytest

from preceptor.label import images as image_files
from preceptor.label.calls import UNREACHABLE
from preceptor.label.db import connect
from preceptor.label.images import PictureError, look_again
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.label.serving import Running, blob, running

SIZE = (40, 30)


def away(manifest: Path) -> Path:
    """Take the folder of the images away; returns its place, to which it is put back."""
    folder = manifest.parent / "images"
    folder.rename(folder.with_name("away"))
    return folder


def back(folder: Path) -> None:
    folder.with_name("away").rename(folder)


def test_a_drive_that_is_away_for_a_moment_changes_nothing(
    manifest: Path, server: Running, tmp_path: Path
) -> None:
    ann, bo = server.client("ann"), server.client("bo")
    first, second = (one["id"] for one in ann.get("/api/queue?count=2").json["images"])
    assert ann.stroke(first, blob(*SIZE)).status == 200
    folder = away(manifest)
    told = bo.get("/api/queue?count=4")
    assert (told.status, told.error) == (503, UNREACHABLE)
    # It can be asked for again; 422 would say that the picture is damaged.
    assert ann.get(f"/api/images/{second}/whole").status == 503
    # What was seen before is saved, and the answer does not depend on what comes next.
    assert ann.stroke(second, blob(*SIZE)).status == 200
    assert ann.answer(first).json == {"ok": True, "next": None}
    told_of = here(
        "label", "export", manifest.with_name("manifest.label.sqlite"), "--to", tmp_path / "out"
    )
    assert_refused(told_of, ["none of the 12 image files is there"])
    with closing(connect(manifest.with_name("manifest.label.sqlite"))) as connection:
        look_again(connection, manifest.parent)  # as a Teacher does
        stored = "SELECT count(*) FROM images WHERE problem IS NOT NULL"
        assert connection.execute(stored).fetchone()[0] == 0
    back(folder)
    assert sorted([*ann.queue(), *bo.queue()]) == [one for one in range(1, 13) if one != first]
    assert ann.get("/api/lead").json["problems"] == []


def test_many_missing_images_are_passed_over_and_come_back(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 60}, size=SIZE)
    images = sorted((manifest.parent / "images").iterdir())
    with running(manifest) as server:
        ann = server.client("ann")
        for image in images[:-2]:
            image.rename(tmp_path / image.name)
        there = ann.queue()
        assert {ann.image(one)["name"] for one in there} == {image.name for image in images[-2:]}
        for one in there:
            assert ann.answer(one, "nothing").status == 200
        told = ann.get("/api/queue?count=4").json
        assert (told["images"], told["not_shown"]) == ([], 58)
        for image in images[:-2]:
            (tmp_path / image.name).rename(image)
        server.labeling.look_again_at = 0.0
        assert len(ann.queue()) == 24
        assert ann.get("/api/lead").json["problems"] == []


@pytest.mark.parametrize("while_served", [True, False])
def test_an_image_that_could_not_be_read_is_read_again(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, while_served: bool
) -> None:
    """As without permission, or with an error of the disk; the file itself does not change."""
    database = manifest.with_name("manifest.label.sqlite")

    def fail(path: Path) -> tuple[int, int]:
        raise PictureError("no permission to read it", is_passing=True)

    with running(manifest) as server:
        ann = server.client("ann")
        with monkeypatch.context() as unreadable:
            unreadable.setattr(image_files, "measure", fail)
            assert ann.queue() == []
            assert ann.get("/api/queue").json["not_shown"] == 12
        if while_served:
            assert ann.image(3)["problem"] is None  # opened by its number
            server.labeling.look_again_at = 0.0
            assert len(ann.queue()) == 12
            return
    with closing(connect(database)) as connection:  # as an earlier version has stored it
        connection.execute("UPDATE images SET looked_at = 'another'")
    with running(manifest) as server:
        assert len(server.client("ann").queue()) == 12


def test_errors_of_reading_pass_and_damage_does_not(
    manifest: Path, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = manifest.parent / "images" / ann.image(image)["name"]

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr("preceptor.data.images._load", lambda path, content: fail(path))
        assert ann.get(f"/api/images/{image}/whole").status == 422
    assert ann.image(image)["problem"] is None
    assert ann.get(f"/api/images/{image}/whole").status == 200

    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])  # the header is sound
    assert ann.image(image)["problem"] is None
    assert ann.get(f"/api/images/{image}/whole").status == 422
    problem = ann.image(image)["problem"]
    assert problem is not None
    server.labeling.database.write(lambda writing: look_again(writing, manifest.parent))
    assert ann.image(image)["problem"] == problem
