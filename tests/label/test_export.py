"""Export: what was marked is in the maps, pixel for pixel, and other commands read it."""

from __future__ import annotations

import errno
import json
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import ImportOptions, read_coco, write_import
from preceptor.cli.annotations import Format
from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.db import connect
from preceptor.label.export import export_marks
from tests.commands import assert_refused, here
from tests.datasets import squares
from tests.label.serving import blob, running

SIZE = (40, 30)


def mask_of(path: str) -> np.ndarray:
    return decode_map(Path(path)) >= 0.5


@pytest.fixture
def marked(tmp_path: Path) -> dict[str, Any]:
    """A manifest of six images, of which two people have answered four."""
    manifest = squares(tmp_path / "data", splits={"train": 4, "val": 2}, size=SIZE)
    # One image has a human map before, which nobody marks again.
    table = pd.read_csv(manifest, keep_default_na=False)
    kept = table["saliency"].tolist()
    table["saliency"] = ["" if at != 5 else kept[at] for at in range(6)]
    table.loc[5, "saliency"] = next(one for one in kept if one)
    table["note"] = [f"note {at}" for at in range(6)]
    table["annotated"] = (table["saliency"] != "").astype(int)
    table.to_csv(manifest, index=False)
    names: dict[int, str] = {}
    with running(manifest, overlap=2, overlap_share=1.0, classes=("a", "b")) as server:
        ann, bo = server.client("ann"), server.client("bo")
        for image in range(1, 7):
            names[image] = ann.image(image)["name"]
        first, second = blob(*SIZE, 1), blob(*SIZE, 2)
        ann.stroke(1, first, **{"class": "a"})
        ann.stroke(1, second, **{"class": "b"})
        ann.stroke(1, blob(*SIZE, 3), **{"class": "b"})
        undone = ann.image(1)["strokes"][-1]["uuid"]
        ann.turn(1, "undo", undone)
        ann.answer(1, label="plain", certainty=3, seconds=10)
        bo.stroke(1, first, **{"class": "a"})
        bo.stroke(1, second, erase=True, **{"class": "a"})
        bo.answer(1, label="plain", certainty=2, seconds=20)
        ann.answer(2, "nothing", seconds=5)
        bo.stroke(3, second, **{"class": "a"})
        bo.answer(3, "cannot_judge")
        bo.stroke(4, second, **{"class": "a"})
        bo.answer(4, "skipped")
    return {
        "database": manifest.with_name("manifest.label.sqlite"),
        "names": names,
        "first": first,
        "second": second,
        "manifest": manifest,
    }


def by_name(folder: Path) -> dict[str, pd.Series]:
    manifest = Manifest.read(folder / "manifest.csv", need=())
    return {Path(row["path"]).name: row for _, row in manifest.table.iterrows()}


def test_what_was_marked_is_in_the_maps(tmp_path: Path, marked: dict[str, Any]) -> None:
    told = here("label", "export", marked["database"], "--to", tmp_path / "out", "--merge", "any")
    assert told.code == 0, told
    rows = by_name(tmp_path / "out")
    names, first, second = (marked[key] for key in ("names", "first", "second"))
    assert len(rows) == 6
    one = rows[names[1]]
    assert (mask_of(one["saliency"]) == (first | second)).all()
    people = tmp_path / "out" / "annotators"
    own = Path(one["saliency"]).relative_to(tmp_path / "out" / "maps")
    assert (mask_of(str(people / "ann" / own)) == (first | second)).all()
    assert (mask_of(str(people / "bo" / own)) == (first & ~second)).all()
    assert one["answered_label"] == "plain"
    assert (float(one["annotation_seconds"]), float(one["certainty"])) == (30.0, 2.5)
    assert int(one["annotators"]) == 2
    # Nothing to mark: annotated without a map. Not judged or not answered: not annotated.
    for image, annotated in ((2, True), (3, False), (4, False)):
        assert rows[names[image]]["saliency"] == ""
        assert bool(rows[names[image]]["annotated"]) is annotated
    kept = rows[names[6]]
    assert kept["annotated"]
    assert Path(kept["saliency"]).resolve().is_relative_to(marked["manifest"].parent)
    assert kept["note"] == "note 5"
    assert "images that nobody could judge are not annotated (1)" in told.out
    assert "keep the map of the manifest (1)" in told.out
    assert "5 strokes" not in told.out
    assert "4 strokes" in told.out  # one was undone, and those of other answers are left out
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["annotators"] == {"ann": "ann", "bo": "bo"}


def test_classes_people_and_rules_of_merging(tmp_path: Path, marked: dict[str, Any]) -> None:
    database, name = marked["database"], marked["names"][1]
    first, second = marked["first"], marked["second"]
    expected = {
        ("--class", "b"): second,
        ("--merge", "bo"): first & ~second,
        ("--merge", "majority"): first & ~second,
    }
    for at, (options, mask) in enumerate(expected.items()):
        told = here("label", "export", database, "--to", tmp_path / f"out{at}", *options)
        assert told.code == 0, told
        saliency = by_name(tmp_path / f"out{at}")[name]["saliency"]
        # The mean of two people, of whom one has marks of the class b.
        found = decode_map(Path(saliency)) > 0.4
        assert (found == mask).all(), options
    for options, text in ((("--class", "c"), "'c'"), (("--merge", "dee"), "'dee'")):
        told = here("label", "export", database, "--to", tmp_path / "no", *options)
        assert_refused(told, [text, "known: "])
        assert not (tmp_path / "no").exists()
    told = here("label", "export", database, "--to", tmp_path / "out0")
    assert_refused(told, ["exists already"])


def test_one_person_among_others(tmp_path: Path) -> None:
    """Others who could judge nothing, and one with the name of a rule, change nothing."""
    manifest = squares(tmp_path / "data", splits={"train": 4, "val": 2}, size=SIZE)
    first, second = blob(*SIZE, 1), blob(*SIZE, 2)
    with running(manifest, overlap=3, overlap_share=1.0) as server:
        for name, state in (("ann", "marked"), ("bo", "cannot_judge"), ("any", "marked")):
            person = server.client(name)
            if state == "marked":
                person.stroke(1, first if name == "ann" else second)
            assert person.answer(1, state).status == 200
        image = person.image(1)["name"]
    database = manifest.with_name("manifest.label.sqlite")
    for at, (merge, mask) in enumerate({"ann": first, "any": first | second}.items()):
        out = tmp_path / f"out{at}"
        told = here("label", "export", database, "--to", out, "--merge", merge)
        assert told.code == 0, told
        assert (mask_of(by_name(out)[image]["saliency"]) == mask).all(), merge


def test_other_commands_read_an_export(tmp_path: Path, marked: dict[str, Any]) -> None:
    out = tmp_path / "out"
    told = here("label", "export", marked["database"], "--to", out, "--format", "coco")
    assert told.code == 0, told
    agreement = here("data", "agreement", out)
    assert agreement.code == 0, agreement
    assert "ann – bo: 1 images" in agreement.out
    imported = read_coco([out / "coco" / "annotations.json"])
    again = write_import(
        imported, marked["manifest"].parent, tmp_path / "again", ImportOptions(unmarked="examined")
    )
    assert again.maps >= 1
    status = here("label", "status", marked["database"])
    assert status.code == 0, status
    assert "ann" in status.out


@pytest.mark.parametrize("format_", get_args(Format))
def test_every_format_of_data_export_is_written(
    tmp_path: Path, marked: dict[str, Any], format_: str
) -> None:
    out = tmp_path / "out"
    told = here("label", "export", marked["database"], "--to", out, "--format", format_)
    assert told.code == 0, told
    told = here("data", "export", format_, out / "manifest.csv", "--to", tmp_path / "again")
    assert told.code == 0, told

    def names(folder: Path) -> list[Path]:
        return sorted(one.relative_to(folder) for one in folder.rglob("*") if one.is_file())

    assert names(out / format_) == names(tmp_path / "again") != []


def test_a_folder_of_images_becomes_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "sub/a.png", "not one.txt"):
        if name.endswith("png"):
            Image.new("RGB", SIZE).save(folder / name)
        else:
            (folder / name).touch()
    with running(folder) as server:
        ann = server.client("ann")
        names = {ann.image(one)["name"]: one for one in range(1, 4)}
        assert ann.get("/api/state").json["labels"] == []
        ann.stroke(names["a.png"], blob(*SIZE))
        ann.answer(names["a.png"])
        ann.answer(names["b.png"], "nothing")
    database = tmp_path / "photos.label.sqlite"
    told = here("label", "export", database, "--to", tmp_path / "out")
    assert told.code == 0, told
    assert "images without a label are left out (2)" in told.out
    rows = by_name(tmp_path / "out")
    assert rows["a.png"]["label"] == "positive"
    assert (mask_of(rows["a.png"]["saliency"]) == blob(*SIZE)).all()
    assert rows["b.png"]["label"] == "negative"
    # One person alone has no folder of annotators.
    assert not (tmp_path / "out" / "annotators").exists()


def test_an_image_that_was_never_readable_does_not_stop_an_export(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    Image.new("RGB", SIZE).save(folder / "b.png")
    database = tmp_path / "photos.label.sqlite"
    with running(folder, labels=("x", "y")) as server:
        ann = server.client("ann")
        for state in ("marked", "nothing"):
            told = ann.answer(1, state, label="x")
            assert told.status == 409
            assert "cannot be read" in told.error
        assert ann.answer(1, "cannot_judge").status == 200
        assert ann.answer(2, "nothing", label="x").status == 200
    with closing(connect(database)) as connection:  # as an earlier version has stored it
        connection.execute("UPDATE answers SET state = 'nothing', label = 'x' WHERE image = 1")
    told = here("label", "export", database, "--to", tmp_path / "out")
    assert told.code == 0, told
    assert "images that were never readable have answers, which are left out (1)" in told.out
    assert set(by_name(tmp_path / "out")) == {"b.png"}


def test_a_folder_without_answers_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("L", SIZE).save(tmp_path / "photos" / "a.png")
    with running(tmp_path / "photos"):
        pass
    database = tmp_path / "photos.label.sqlite"
    done = here("label", "export", database, "--to", tmp_path / "out")
    assert_refused(done, ["no image has a label yet"])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_added_leaves_no_export(tmp_path: Path, marked: dict[str, Any]) -> None:
    """Before, the folder was there without the other format, and the same command was refused."""

    def full(folder: Path) -> None:
        (folder / "coco").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    database, to = marked["database"], tmp_path / "out"
    connection = connect(database, readonly=True)
    with pytest.raises(OSError, match="No space left") as caught:
        export_marks(connection, database, to, add_files=full)
    connection.close()
    assert caught.value.filename == str(to)
    assert not list(tmp_path.glob("*out*"))
    told = here("label", "export", database, "--to", to, "--format", "coco")
    assert told.code == 0, told
    assert not any(".tmp" in file.read_text() for file in to.rglob("*.json"))
    (written,) = (to / "coco").glob("*.json")
    assert here("data", "export", "coco", to / "manifest.csv", "--to", tmp_path / "coco").code == 0
    assert written.read_bytes() == (tmp_path / "coco" / written.name).read_bytes()


def test_images_that_are_gone_do_not_stop_an_export(tmp_path: Path, marked: dict[str, Any]) -> None:
    folder = marked["manifest"].parent
    (folder / "images" / marked["names"][2]).unlink()
    table = pd.read_csv(marked["manifest"], keep_default_na=False)
    table[~table["path"].str.endswith(marked["names"][1])].to_csv(marked["manifest"], index=False)
    told = here("label", "export", marked["database"], "--to", tmp_path / "out")
    assert told.code == 0, told
    assert "images whose file is missing are left out (1)" in told.out
    assert "images with answers are no longer in the manifest (1)" in told.out
    assert len(by_name(tmp_path / "out")) == 4
    marked["manifest"].unlink()
    told = here("label", "export", marked["database"], "--to", tmp_path / "no")
    assert_refused(told, ["is gone"])


def test_labels_of_a_folder_are_those_that_people_chose(tmp_path: Path) -> None:
    """Where they disagree there is none, and never a third class."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for at in range(4):
        Image.new("RGB", SIZE, (at, at, at)).save(folder / f"{at}.png")
    answers = {"ann": ("real", "fake", "real"), "bo": ("fake", "real", "real")}
    with running(folder, labels=("real", "fake"), overlap=2, overlap_share=1.0) as server:
        for name, labels in answers.items():
            person = server.client(name)
            for image, label in enumerate(labels, 1):
                if image == 1:
                    person.stroke(image, blob(*SIZE, len(name)))
                state = "marked" if image == 1 else "nothing"
                assert person.answer(image, state, label=label).status == 200
    for at, merge in enumerate(("mean", "majority")):
        out = tmp_path / f"out{at}"
        told = here(
            "label", "export", tmp_path / "photos.label.sqlite", "--to", out, "--merge", merge
        )
        assert "images on whose label people disagree are left out (2)" in told.out
        assert "images without a label are left out (1)" in told.out
        assert {name: row["label"] for name, row in by_name(out).items()} == {"2.png": "real"}


def test_signs_are_those_of_the_answers(tmp_path: Path) -> None:
    """Not of the merged map, which is empty where two people marked different places."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for at in range(2):
        Image.new("RGB", SIZE, (at, at, at)).save(folder / f"{at}.png")
    corners = np.zeros((2, *SIZE[::-1]), bool)
    corners[0, :4, :4] = corners[1, -4:, -4:] = True
    with running(folder, overlap=3, overlap_share=1.0) as server:
        for at, name in enumerate(("ann", "bo", "cy")):
            person = server.client(name)
            if at < 2:
                person.stroke(1, corners[at])
            assert person.answer(1, "marked" if at < 2 else "nothing").status == 200
            if at == 0:
                person.stroke(2, corners[0])
            assert person.answer(2, "marked" if at == 0 else "nothing").status == 200
    out = tmp_path / "out"
    database = tmp_path / "photos.label.sqlite"
    told = here("label", "export", database, "--to", out, "--merge", "majority")
    assert told.code == 0, told
    labels = {name: (row["label"], row["saliency"]) for name, row in by_name(out).items()}
    assert labels == {"0.png": ("positive", ""), "1.png": ("negative", "")}


def test_marks_without_an_answer_are_named(tmp_path: Path, marked: dict[str, Any]) -> None:
    told = here("label", "export", marked["database"], "--to", tmp_path / "out")
    assert "images have marks without an answer that counts; these marks are left out (2)" in (
        told.out
    )
    told = here("label", "export", marked["database"], "--to", tmp_path / "ann", "--merge", "ann")
    assert "without an answer that counts" not in told.out  # they are not hers
    status = here("label", "status", marked["database"]).out
    assert "2 images have marks without an answer that counts" in status


def test_a_second_round_keeps_what_the_first_one_has_answered(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for at in range(3):
        Image.new("RGB", SIZE, (at, at, at)).save(folder / f"{at}.png")
    with running(folder, labels=("real", "fake"), overlap=2, overlap_share=1.0) as server:
        for name in ("ann", "bo"):
            person = server.client(name)
            for image in range(1, 4):
                person.stroke(image, blob(*SIZE))
                person.answer(image, label="real", certainty=2, seconds=4)
    first, second = tmp_path / "first", tmp_path / "second"
    told = here("label", "export", tmp_path / "photos.label.sqlite", "--to", first)
    assert told.code == 0, told
    with running(first / "manifest.csv", labels=("real", "fake")) as server:
        server.client("ann").answer(1, "nothing", label="fake", seconds=1)
    told = here("label", "export", first / "manifest.label.sqlite", "--to", second)
    assert told.code == 0, told
    columns = ["answered_label", "certainty", "annotators", "annotation_seconds"]
    rows = [tuple(map(str, row[columns])) for row in by_name(second).values()]
    assert sorted(rows) == [("fake", "", "1", "1.0"), *[("real", "2", "2", "8.0")] * 2]
