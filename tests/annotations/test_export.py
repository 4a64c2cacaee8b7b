from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.annotations import ImportOptions, read_coco, write_import
from preceptor.annotations.export import (
    FORMATS,
    ExportOptions,
    file_of,
    manifest_images,
    write_export,
)
from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.errors import ProblemsError
from tests.annotations.annotator_folders import annotated_folder
from tests.annotations.manifests import NAMES, marked_manifest
from tests.annotations.trees import save_image
from tests.commands import here


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    (tmp_path / "in" / "maps" / "1.png").write_bytes(b"no image")
    (tmp_path / "in" / "images" / NAMES[3]).write_bytes(b"")
    with pytest.raises(ProblemsError) as caught:
        write_export(name, manifest_images(manifest), tmp_path / "out", ExportOptions())
    assert [one.where for one in caught.value.problems] == [f"images/{NAMES[k]}" for k in (1, 3)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_images_that_nobody_examined_are_exported_if_asked_for(tmp_path: Path) -> None:
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    for every, count in ((False, 6), (True, 7)):
        images = manifest_images(manifest, every=every)
        done = write_export("cvat", images, tmp_path / f"out{count}", ExportOptions())
        assert done == (count, 5)
        assert len(pd.read_csv(tmp_path / f"out{count}" / "labels.csv")) == count


def test_a_map_of_another_size_is_resampled_by_areas(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 8, 4)
    Image.fromarray(np.array([[255, 0]], np.uint8)).save(tmp_path / "map.png")
    frame = pd.DataFrame({"path": ["a.png"], "label": ["x"], "saliency": ["map.png"]})
    manifest = Manifest.from_frame(frame, tmp_path, need=())
    write_export("masks", manifest_images(manifest), tmp_path / "out", ExportOptions())
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    assert (mask == np.array([255] * 4 + [0] * 4)).all()
    assert mask.shape == (4, 8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_masks_of_0_and_1_are_exported(tmp_path: Path, kind: type) -> None:
    save_image(tmp_path / "a.png", 8, 4)
    inside = np.zeros((4, 8), kind)
    inside[1:3, 2:6] = 1
    Image.fromarray(inside).save(tmp_path / "map.png")
    frame = pd.DataFrame({"path": ["a.png"], "label": ["x"], "saliency": ["map.png"]})
    manifest = Manifest.from_frame(frame, tmp_path, need=())
    done = write_export("masks", manifest_images(manifest), tmp_path / "out", ExportOptions())
    assert done == (1, 1)
    assert (np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")) == inside * 255).all()


def test_the_maps_of_one_annotator_come_back(tmp_path: Path) -> None:
    folder = annotated_folder(tmp_path / "in")
    Image.new("L", (100, 80)).save(folder / "annotators" / "cy" / "2.png")  # nothing marked
    to = tmp_path / "out"
    done = here("data", "export", "coco", folder / "manifest.csv", "--to", to, "--annotator", "cy")
    assert done.code == 0
    assert "8 images, 7 with marks" in done.out
    options = ImportOptions(labels=to / "labels.csv", unmarked="examined")
    write_import(read_coco(to / "annotations.json"), folder, tmp_path / "back", options)
    table = Manifest.read(tmp_path / "back" / "manifest.csv", need=()).table.set_index("name")
    for number in (0, 1, 2, 3, 5, 6, 7, 8):
        drawn = decode_map(folder / "annotators" / "cy" / f"{number}.png")
        back = table.loc[f"images/{number}.png", "saliency"]
        assert (decode_map(Path(str(back))) == drawn).all() if number != 2 else back == ""


def test_files_stay_in_the_folder(tmp_path: Path) -> None:
    taken: set[str] = set()
    for image, file in (
        ("../../x.jpg", "x.png"),
        ("/etc/X.png", "etc/X.png"),
        ("etc/x.bmp", "etc/x.bmp.png"),
    ):
        assert file_of(image, ".png", tmp_path, taken) == tmp_path / file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "manifest.csv", "--to", "in"], "in exists already"),
        (["coco", "manifest.csv", "--to", "no/out"], "there is no such folder"),
        (["coco", "manifest.csv", "--to", "out", "--positive", "dust"], "known: clean, crack"),
        (["coco", "manifest.csv", "--to", "out", "--threshold", "nan"], "value for '--threshold'"),
        (["coco", "in", "--to", "out"], "neither a manifest nor a map store"),
        (["coco", "manifest.csv", "--to", "out", "--manifest", "b.csv"], "belongs to a map store"),
        (["coco", "missing.csv", "--to", "out"], "there is no such file"),
        (["coco", "manifest.csv", "--to", "out", "--annotator", "a"], "maps of 0 annotator"),
        (["coco", "b.csv", "--to", "out", "--annotator", "a"], "needs FOLDER/manifest.csv"),
        (
            ["coco", "manifest.csv", "--to", "out", "--annotator", "a", "--all"],
            "--annotator belongs to a manifest without --all",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    marked_manifest(tmp_path / "in")
    places = {"manifest.csv": tmp_path / "in" / "manifest.csv"}
    placed = [
        places.get(one, tmp_path / one)
        if one in places or "/" in one or one in ("in", "out")
        else one
        for one in arguments
    ]
    outcome = here("data", "export", *placed)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_paths_of_labelme_lead_to_the_images_from_behind_a_link(tmp_path: Path) -> None:
    manifest = Manifest.read(marked_manifest(tmp_path / "in"), need=())
    (tmp_path / "far" / "away" / "big").mkdir(parents=True)
    (tmp_path / "scratch").symlink_to(tmp_path / "far" / "away" / "big")
    to = tmp_path / "scratch" / "out"
    write_export("labelme", manifest_images(manifest), to, ExportOptions())
    files = sorted(to.rglob("*.json"))
    assert len(files) == len(NAMES)
    for file in files:
        image = file.parent / json.loads(file.read_text(encoding="utf-8"))["imagePath"]
        assert image.samefile(tmp_path / "in" / file.relative_to(to).parent / image.name)
