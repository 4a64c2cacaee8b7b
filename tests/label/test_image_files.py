"""Images that are replaced on disk while the database has marks of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.db import connect
from preceptor.label.images import look_again
from preceptor.label.queue import Proposal, add_teacher, write_proposals
from preceptor.label.teach import answered_images
from tests.commands import here
from tests.label.serving import Client, Running, blob, running, stroke_of

SIZE = (40, 30)
OTHER = (64, 48)
REASON = (
    "the file has 64 × 48 pixels, and its marks were made on 40 × 30; they are kept, put the old "
    "file back"
)


@pytest.fixture
def server(manifest: Path) -> Iterator[Running]:
    with running(manifest) as one:
        yield one


@pytest.fixture
def database(manifest: Path) -> Path:
    return manifest.with_name("manifest.label.sqlite")


def file_of(manifest: Path, client: Client, image: int) -> Path:
    return manifest.parent / "images" / str(client.image(image)["name"])


def test_a_stroke_on_an_image_of_another_size_is_refused(manifest: Path, server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    version = ann.image(image)["version"]
    replaced(file)
    told = ann.stroke(image, blob(*SIZE))
    assert told.status == 409
    assert told.error == (
        "the image has 64 × 48 pixels, and this was drawn on 40 × 30: its file was replaced"
    )
    assert ann.image(image)["version"] != version
    assert ann.stroke(image, blob(*OTHER)).status == 200


def exported_map(folder: Path, file: Path) -> Path | None:
    """Map of an image that an export made."""
    table = Manifest.read(folder / "manifest.csv", need=()).table
    (found,) = (
        str(one.saliency) for one in table.itertuples() if Path(str(one.path)).name == file.name
    )
    return Path(found) if folder in Path(found).resolve().parents else None


def replaced(file: Path) -> bytes:
    """Replace an image by one of another size; returns the old content."""
    before = file.read_bytes()
    Image.new("RGB", OTHER, "red").save(file)
    return before


def test_a_replaced_image_is_told_and_comes_back(
    manifest: Path, database: Path, server: Running, tmp_path: Path
) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    mark = blob(*SIZE)
    assert ann.stroke(image, mark).status == 200
    assert ann.answer(image).status == 200
    file = file_of(manifest, ann, image)
    before = replaced(file)

    shown = ann.get(f"/api/images/{image}/whole")
    assert (shown.status, shown.error) == (422, REASON)
    told = ann.image(image)
    assert told["problem"] == REASON
    assert (told["width"], told["height"]) == SIZE
    assert len(told["strokes"]) == 1
    assert ann.get("/api/lead").json["problems"] == [
        {"id": image, "name": file.name, "problem": REASON}
    ]
    assert f"{file.name}: {REASON}" in here("label", "status", database).out
    out = here("label", "export", database, "--to", tmp_path / "without")
    assert re.search(r"have another size than .* marks are left out \(1\)", out.out)
    assert exported_map(tmp_path / "without", file) is None

    file.write_bytes(before)
    assert ann.image(image)["problem"] is None
    assert ann.get(f"/api/images/{image}/whole").status == 200
    assert ann.get("/api/lead").json["problems"] == []
    assert file.name not in here("label", "status", database).out
    assert here("label", "export", database, "--to", tmp_path / "out").code == 0
    made = exported_map(tmp_path / "out", file)
    assert made is not None
    assert np.array_equal(decode_map(made) >= 0.5, mark)


def test_it_is_found_without_a_server_and_at_the_start(manifest: Path, database: Path) -> None:
    with running(manifest) as server:
        ann = server.client("ann")
        image = ann.queue()[0]
        ann.stroke(image, blob(*SIZE))  # begun, not answered
        file = file_of(manifest, ann, image)
    before = replaced(file)
    assert f"{file.name}: {REASON}" in here("label", "status", database).out
    with running(manifest) as server:
        ann = server.client("ann")
        assert image not in ann.queue()
        assert ann.get("/api/lead").json["problems"][0]["problem"] == REASON
    file.write_bytes(before)
    assert file.name not in here("label", "status", database).out
    with running(manifest) as server:
        ann = server.client("ann")
        assert image in ann.queue()
        assert len(ann.image(image)["strokes"]) == 1


def test_a_teacher_is_not_taught_its_marks(manifest: Path, database: Path, server: Running) -> None:
    ann = server.client("ann")
    images = ann.queue()[:2]
    for image in images:
        ann.stroke(image, blob(*SIZE))
        ann.answer(image)
    replaced(file_of(manifest, ann, images[0]))
    with closing(connect(database)) as connection:
        look_again(connection, manifest.parent)
        (left,) = answered_images(connection, manifest.parent)
    assert left.mask.shape == SIZE[::-1]


def test_without_work_the_new_file_counts(manifest: Path, database: Path, server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    with closing(connect(database)) as connection:
        teacher = add_teacher(connection, "teacher", 2)
        write_proposals(connection, teacher, [Proposal(image, 0, 0, 2, 1, bytes([0, 2]))])
    replaced(file)
    told = ann.image(image)
    assert (told["width"], told["height"], told["problem"]) == (*OTHER, None)
    assert told["proposal"] is None
    assert ann.stroke(image, blob(*OTHER)).status == 200


def test_what_is_drawn_while_the_file_is_missing_is_kept(manifest: Path, server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    content = file.read_bytes()
    file.unlink()
    assert ann.get(f"/api/images/{image}/whole").status == 422
    assert ann.stroke(image, blob(*SIZE)).status == 200
    file.write_bytes(content)
    assert ann.get(f"/api/images/{image}/whole").status == 200
    assert len(ann.image(image)["strokes"]) == 1


def test_the_state_lists_a_bounded_number_of_images(
    manifest: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(manifest) as server:
        ann = server.client("ann")
        for image in ann.queue()[:3]:
            ann.stroke(image, blob(*SIZE))
    (manifest.parent / "images").rename(manifest.parent / "elsewhere")
    monkeypatch.setattr("preceptor.errors._LISTED", 2)
    out = here("label", "status", database).out
    assert out.count("there is no such file") == 2
    assert "3 images cannot be shown\n  " in out
    assert out.endswith("\n  and 1 more\n")


def test_an_answer_is_about_the_file_that_was_shown(manifest: Path, server: Running) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    seen = ann.image(image)["version"]
    Image.new("RGB", SIZE, "red").save(file)  # of the same size
    for told in (
        ann.answer(image, "nothing", version=seen),
        ann.answer(image, "cannot_judge", version=seen),
        ann.stroke(image, blob(*SIZE), version=seen),
    ):
        assert (told.status, told.error) == (
            409,
            "the file of this image was replaced after it was shown",
        )
    assert ann.answer(image, "skipped", version=seen).status == 200
    now = ann.image(image)["version"]
    assert now != seen
    assert ann.answer(image, "nothing", version=now).status == 200


def test_work_on_a_file_that_was_replaced_by_one_of_the_same_size_is_named(
    manifest: Path, database: Path, server: Running, tmp_path: Path
) -> None:
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    seen = ann.image(image)["version"]
    body = ann.stroke(image, blob(*SIZE), version=seen)
    assert body.status == 200
    Image.new("RGB", SIZE, "red").save(file)
    assert ann.stroke(image, blob(*SIZE, 1), version=seen).status == 200
    assert ann.answer(image, version=seen).status == 200
    assert "1 image has another file than the one that" in here("label", "status", database).out
    told = here("label", "export", database, "--to", tmp_path / "out")
    assert "another file of the same size than the one that was answered; compare them (1)" in (
        told.out
    )
    assert exported_map(tmp_path / "out", file) is not None
    # Whoever answers again has seen the new one.
    assert ann.answer(image, version=ann.image(image)["version"]).status == 200
    assert "another file" not in here("label", "status", database).out


def test_a_version_does_not_depend_on_the_place(manifest: Path, tmp_path: Path) -> None:
    with running(manifest) as server:
        ann = server.client("ann")
        image = ann.queue()[0]
        assert ann.answer(image, "nothing", version=ann.image(image)["version"]).status == 200
    moved = manifest.parent.rename(tmp_path / "moved")
    told = here("label", "status", moved / "manifest.label.sqlite")
    assert "1 of 12 images done" in told.out
    assert "another file" not in told.out


@pytest.mark.parametrize("state", ["cannot_judge", "skipped", "marked"])
def test_without_marks_a_better_file_may_have_another_size(
    manifest: Path, server: Running, state: str
) -> None:
    """Of an image with the answer *done* whose marks were all undone, too."""
    ann = server.client("ann")
    image = ann.queue()[0]
    file = file_of(manifest, ann, image)
    name = stroke_of(blob(*SIZE))["uuid"]
    assert ann.stroke(image, blob(*SIZE), uuid=name).status == 200
    if state == "marked":
        assert ann.answer(image).status == 200
    assert ann.turn(image, "undo", name).status == 200
    if state != "marked":
        assert ann.answer(image, state).status == 200
    replaced(file)
    told = ann.image(image)
    assert (told["width"], told["height"], told["problem"]) == (*OTHER, None)
    assert told["answer"] is None
    assert ann.turn(image, "redo", name).status == 409  # it was drawn on another image
    assert image in ann.queue()
    assert ann.get("/api/state").json["totals"]["done"] == 0
    assert ann.stroke(image, blob(*OTHER)).status == 200
    assert ann.answer(image).status == 200
    assert ann.get("/api/state").json["totals"]["done"] == 1


def test_marks_of_a_teacher_are_kept_as_their_rectangles(manifest: Path, server: Running) -> None:
    """The masks of all images, at their full size, would be larger than the memory."""
    masks = np.zeros((3, *SIZE[::-1]), bool)
    masks[0, 2:6, 3:9] = masks[1, 4:8, 5:12] = masks[2, 0:5, 3:5] = True
    with running(
        manifest, manifest.with_name("shared.sqlite"), overlap=3, overlap_share=1.0
    ) as one:
        for mask, name in zip(masks, ("ann", "bo", "cy"), strict=True):
            person = one.client(name)
            assert person.stroke(1, mask).status == 200
            assert person.answer(1).status == 200
        (found,) = answered_images(one.labeling.database.reading, manifest.parent)
    assert (found.mask == (2 * masks.sum(0) >= 3)).all()
    assert found.mark.bits.size == 8 * 9
