"""Export: what was marked is in the maps, pixel for pixel, and other commands read it."""

from __future__ import annotations

import errno
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import ImportOptions, read_coco, write_import
from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.db import connect
from preceptor.label.export import export_marks
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.label.serving import blob, running

SIZE = (40, 30)
FIRST, SECOND = blob(*SIZE, 1), blob(*SIZE, 2)


@pytest.fixture
def marked(tmp_path: Path) -> dict[str, Any]:
    """A manifest of six images, of which two people have answered four."""
    manifest = squares(tmp_path / "data", splits={"train": 4, "val": 2}, size=SIZE)
    # One image has a human map before, which nobody marks again.
    table = pd.read_csv(manifest, keep_default_na=False)
    kept = next(one for one in table["saliency"] if one)
    table["saliency"] = [""] * 5 + [kept]
    table["note"] = [f"note {at}" for at in range(6)]
    table["annotated"] = [0] * 5 + [1]
    table["path"] = [str(manifest.parent / path) for path in table["path"]]
    table.to_csv(manifest, index=False)
    with running(manifest, overlap=2) as server:
        ann, bo = server.client("ann"), server.client("bo")
        names = {image: ann.image(image)["name"] for image in range(1, 7)}
        ann.stroke(1, FIRST)
        ann.stroke(1, SECOND)
        ann.stroke(1, blob(*SIZE, 3))
        ann.turn(1, "undo", ann.image(1)["strokes"][-1]["uuid"])
        ann.answer(1, seconds=10)
        bo.stroke(1, FIRST)
        bo.stroke(1, SECOND, erase=True)
        bo.answer(1, seconds=20)
        ann.answer(2, "nothing", seconds=5)
        for image in (3, 4):
            bo.stroke(image, SECOND)
        bo.answer(3, "cannot_judge")
    database = manifest.with_name("manifest.label.sqlite")
    return {"database": database, "names": names, "manifest": manifest}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of four images; its database is photos.label.sqlite beside it."""
    (tmp_path / "photos").mkdir()
    for at in range(4):
        Image.new("RGB", SIZE, (at, at, at)).save(tmp_path / "photos" / f"{at}.png")
    return tmp_path / "photos"


def exported(database: Path, to: Path, *options: str) -> str:
    """What an export says that succeeds."""
    told = here("label", "export", database, "--to", to, *options)
    assert told.code == 0, told
    return told.out


def of_photos(photos: Path, to: str, *options: str) -> str:
    return exported(photos.with_name("photos.label.sqlite"), photos.with_name(to), *options)


def by_name(folder: Path) -> dict[str, pd.Series]:
    manifest = Manifest.read(folder / "manifest.csv", need=())
    return {Path(row["path"]).name: row for _, row in manifest.table.iterrows()}


def mask_of(path: Path | str) -> np.ndarray:
    return decode_map(Path(path)) >= 0.5


def test_what_was_marked_is_in_the_maps(tmp_path: Path, marked: dict[str, Any]) -> None:
    said = exported(marked["database"], tmp_path / "out", "--merge", "any")
    rows, names = by_name(tmp_path / "out"), marked["names"]
    assert len(rows) == 6
    one = rows[names[1]]
    assert (mask_of(one["saliency"]) == (FIRST | SECOND)).all()
    people = tmp_path / "out" / "annotators"
    own = Path(one["saliency"]).relative_to(tmp_path / "out" / "maps")
    assert f"/{own.as_posix()}" == one["name"]  # by which data agreement finds an empty map
    assert (mask_of(people / "ann" / own) == (FIRST | SECOND)).all()
    assert (mask_of(people / "bo" / own) == (FIRST & ~SECOND)).all()
    assert float(one["annotation_seconds"]) == 30.0
    assert int(one["annotators"]) == 2
    # Nothing to mark: annotated without a map. Not judged or not answered: not annotated.
    for image, annotated in ((2, True), (3, False), (4, False)):
        assert rows[names[image]]["saliency"] == ""
        assert bool(rows[names[image]]["annotated"]) is annotated
    kept = rows[names[6]]
    assert kept["annotated"]
    assert Path(kept["saliency"]).resolve().is_relative_to(marked["manifest"].parent)
    assert kept["note"] == "note 5"
    for note in (
        "images that nobody could judge are not annotated (1)",
        "keep the map of the manifest (1)",
        " 4 strokes",  # one was undone, and those of other answers are left out
        "images have marks without an answer that counts; these marks are left out (2)",
    ):
        assert note in said
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["annotators"] == {"ann": "ann", "bo": "bo"}
    assert (
        "2 images have marks without an answer" in here("label", "status", marked["database"]).out
    )


def test_people_and_rules_of_merging(tmp_path: Path, marked: dict[str, Any]) -> None:
    database, name = marked["database"], marked["names"][1]
    expected = {
        ("--merge", "bo"): FIRST & ~SECOND,
        ("--merge", "majority"): FIRST & ~SECOND,
    }
    for at, (options, mask) in enumerate(expected.items()):
        exported(database, tmp_path / f"out{at}", *options)
        saliency = by_name(tmp_path / f"out{at}")[name]["saliency"]
        assert ((decode_map(Path(saliency)) > 0.4) == mask).all(), options
    said = exported(database, tmp_path / "ann", "--merge", "ann")
    assert "without an answer that counts" not in said  # they are not hers
    for options, text in ((("--merge", "dee"), "'dee'"),):
        told = here("label", "export", database, "--to", tmp_path / "no", *options)
        assert_refused(told, [text, "known: "])
        assert not (tmp_path / "no").exists()
    assert_refused(here("label", "export", database, "--to", tmp_path / "ann"), ["exists already"])


def test_other_commands_read_an_export(tmp_path: Path, marked: dict[str, Any]) -> None:
    out = tmp_path / "coco"
    exported(marked["database"], out)
    agreement = here("data", "agreement", out)
    assert agreement.code == 0, agreement
    assert "ann – bo: 1 images" in agreement.out
    told = here("data", "export", "coco", out / "manifest.csv", "--to", out / "coco")
    assert told.code == 0, told
    imported = read_coco([out / "coco" / "annotations.json"])
    again = write_import(
        imported, marked["manifest"].parent, tmp_path / "again", ImportOptions(unmarked="examined")
    )
    assert again.maps >= 1


def test_a_folder_of_images_becomes_a_manifest(photos: Path) -> None:
    (photos / "sub").mkdir()
    Image.new("RGB", SIZE).save(photos / "sub" / "0.png")
    (photos / "not one.txt").touch()
    with running(photos) as server:
        ann = server.client("ann")
        assert ann.get("/api/state").json["labels"] == []
        assert len(ann.queue()) == 5
        ann.stroke(1, FIRST)
        ann.answer(1)
        ann.answer(2, "nothing")
    assert "images without a label are left out (3)" in of_photos(photos, "out")
    rows = by_name(photos.with_name("out"))
    assert {name: row["label"] for name, row in rows.items()} == {
        "0.png": "positive",
        "1.png": "negative",
    }
    assert (mask_of(rows["0.png"]["saliency"]) == FIRST).all()
    # One person alone has no folder of annotators.
    assert not photos.with_name("out").joinpath("annotators").exists()


def test_an_image_that_was_never_readable_does_not_stop_an_export(photos: Path) -> None:
    (photos / "0.png").write_bytes(b"no image")
    database = photos.with_name("photos.label.sqlite")
    with running(photos, labels=("x", "y")) as server:
        ann = server.client("ann")
        told = here("label", "export", database, "--to", photos.with_name("no"))
        assert_refused(told, ["no image has a label yet"])
        assert not photos.with_name("no").exists()
        for state in ("marked", "nothing"):
            refused = ann.answer(1, state, label="x")
            assert refused.status == 409
            assert "cannot be read" in refused.error
        assert ann.answer(1, "cannot_judge").status == 200
        assert ann.answer(2, "nothing", label="x").status == 200
    of_photos(photos, "out")
    assert set(by_name(photos.with_name("out"))) == {"1.png"}


def test_a_full_disk_leaves_no_export(
    tmp_path: Path, marked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    to = tmp_path / "out"
    monkeypatch.setattr(Manifest, "write", full)
    with (
        closing(connect(marked["database"], readonly=True)) as connection,
        pytest.raises(OSError, match="No space left") as caught,
    ):
        export_marks(connection, marked["database"], to)
    assert caught.value.filename == str(to)
    assert not list(tmp_path.glob("*out*"))


def test_images_that_are_gone_do_not_stop_an_export(tmp_path: Path, marked: dict[str, Any]) -> None:
    (marked["manifest"].parent / "images" / marked["names"][2]).unlink()
    table = pd.read_csv(marked["manifest"], keep_default_na=False)
    table[~table["path"].str.endswith(marked["names"][1])].to_csv(marked["manifest"], index=False)
    said = exported(marked["database"], tmp_path / "out")
    assert "images whose file is missing are left out (1)" in said
    assert "images with answers are no longer in the manifest (1)" in said
    assert len(by_name(tmp_path / "out")) == 4
    marked["manifest"].unlink()
    told = here("label", "export", marked["database"], "--to", tmp_path / "no")
    assert_refused(told, ["is gone"])


def test_labels_of_a_folder_are_those_that_people_chose(photos: Path) -> None:
    """Where they disagree there is none, and never a third class."""
    answers = {"ann": ("real", "fake", "real"), "bo": ("fake", "real", "real")}
    with running(photos, labels=("real", "fake"), overlap=2) as server:
        for name, labels in answers.items():
            person = server.client(name)
            person.stroke(1, blob(*SIZE, len(name)))
            for image, label in enumerate(labels, 1):
                state = "marked" if image == 1 else "nothing"
                assert person.answer(image, state, label=label).status == 200
    for merge in ("mean", "majority"):
        said = of_photos(photos, merge, "--merge", merge)
        assert "images on whose label people disagree are left out (2)" in said
        assert "images without a label are left out (1)" in said
        labels_ = {name: row["label"] for name, row in by_name(photos.with_name(merge)).items()}
        assert labels_ == {"2.png": "real"}


def test_signs_are_those_of_the_answers(photos: Path) -> None:
    """Not of the merged map, which is empty where two people marked different places."""
    corners = np.zeros((2, *SIZE[::-1]), bool)
    corners[0, :4, :4] = corners[1, -4:, -4:] = True
    with running(photos, overlap=3) as server:
        for at, name in enumerate(("ann", "bo", "cy")):
            person = server.client(name)
            for image, people in ((1, 2), (2, 1)):  # who mark it; the others find nothing
                if at < people:
                    person.stroke(image, corners[at])
                state = "marked" if at < people else "nothing"
                assert person.answer(image, state).status == 200
    of_photos(photos, "out", "--merge", "majority")
    rows = by_name(photos.with_name("out"))
    signs = {name: (row["label"], row["saliency"], row["annotated"]) for name, row in rows.items()}
    assert signs == {"0.png": ("positive", "", False), "1.png": ("negative", "", True)}


@pytest.mark.parametrize(("merge", "sign"), [("mean", "positive"), ("majority", "negative")])
def test_signs_of_half_of_the_people(photos: Path, merge: str, sign: str) -> None:
    """A map and its label agree."""
    with running(photos, overlap=2) as server:
        ann, bo = server.client("ann"), server.client("bo")
        ann.stroke(1, FIRST)
        ann.answer(1)
        bo.answer(1, "nothing")
        for person in (ann, bo):
            person.answer(2, "nothing")
    of_photos(photos, "out", "--merge", merge)
    rows = by_name(photos.with_name("out"))
    assert [row["label"] for row in rows.values()] == [sign, "negative"]
    assert [row["saliency"] != "" for row in rows.values()] == [sign == "positive", False]
    assert rows["1.png"]["annotated"]


def test_a_second_round_keeps_what_the_first_one_has_answered(photos: Path) -> None:
    with running(photos, labels=("real", "fake"), overlap=2) as server:
        for name in ("ann", "bo"):
            person = server.client(name)
            for image in range(1, 5):
                person.stroke(image, FIRST)
                person.answer(image, label="real", seconds=4)
    of_photos(photos, "first")
    first, second = photos.with_name("first"), photos.with_name("second")
    with running(first / "manifest.csv") as server:
        server.client("ann").answer(1, "nothing", seconds=1)
    exported(first / "manifest.label.sqlite", second)
    columns = ["label", "annotators", "annotation_seconds"]
    rows = [tuple(map(str, row[columns])) for row in by_name(second).values()]
    assert sorted(rows) == [("real", "1", "1.0"), *[("real", "2", "8.0")] * 3]
