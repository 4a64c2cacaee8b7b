"""Proposals of given maps and of given models."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import preceptor
from preceptor.config.run import RiseSettings
from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.inference.annotate import annotate
from preceptor.label.db import connect
from preceptor.label.export import export_marks
from preceptor.label.marks import decode_runs, from_text
from preceptor.models.build import load_model
from tests.annotations.trees import save_image
from tests.label.serving import Client, running
from tests.model_folders import model_folder

SIZE = 40, 30


def shown(person: Client, image: int) -> np.ndarray | None:  # type: ignore[type-arg]
    """(h, w) proposed pixels of an image, or None."""
    proposal = person.image(image)["proposal"]
    if proposal is None:
        return None
    x, y, w, h = (proposal[key] for key in "xywh")
    mask = np.zeros(SIZE[::-1], bool)
    mask[y : y + h, x : x + w] = decode_runs(from_text(proposal["runs"]), w * h).reshape(h, w)
    return mask


def all_shown(source: Path, **options: object) -> dict[str, np.ndarray | None]:  # type: ignore[type-arg]
    """Proposed pixels by the name of the image."""
    with running(source, **options) as server:
        person = server.client("ann")
        images = [person.image(number) for number in range(1, 13)]
        return {one["name"]: shown(person, one["id"]) for one in images}


def test_maps_of_a_manifest_are_proposed_where_people_train(manifest: Path) -> None:
    """Of validation images only on request."""
    table = pd.read_csv(manifest, keep_default_na=False)
    maps = {Path(row.path).name: row.saliency for row in table.itertuples() if row.saliency}
    found = all_shown(manifest, start_from=manifest)
    everywhere = all_shown(manifest, start_from=manifest, proposals_on_evaluation=True)
    for name, mask in everywhere.items():
        if name not in maps:
            assert mask is None
            continue
        expected = decode_map(manifest.parent / maps[name]) >= 0.5
        np.testing.assert_array_equal(mask, expected)
        assert (found[name] is None) == name.startswith("val")
    assert set(all_shown(manifest).values()) == {None}  # without maps


def test_a_changed_map_and_an_image_of_another_size_lose_their_proposals(manifest: Path) -> None:
    table = pd.read_csv(manifest, keep_default_na=False)
    row = table[(table["saliency"] != "") & (table["split"] == "train")].iloc[0]
    file = manifest.parent / row["saliency"]
    with running(manifest, start_from=manifest) as server:
        ann = server.client("ann")
        names = {ann.image(number)["name"]: number for number in range(1, 13)}
        image = names[Path(row["path"]).name]
        before = ann.image(image)["proposal"]
        body = {key: before[key] for key in ("x", "y", "w", "h", "runs")}
        own = {"proposal": before["id"], "tool": "proposal", "uuid": str(uuid.uuid4())}
        assert ann.stroke(image, np.ones(SIZE[::-1], bool), **body, **own).status == 200
        assert ann.turn(image, "undo", own["uuid"]).status == 200
    marked = np.zeros(SIZE[::-1], np.uint8)
    marked[:3, :3] = 255
    Image.fromarray(marked).save(file)
    with running(manifest, start_from=manifest) as server:
        np.testing.assert_array_equal(shown(server.client("ann"), image), marked > 0)
    Image.new("RGB", (50, 60)).save(manifest.parent / row["path"])
    with running(manifest, start_from=manifest) as server:
        ann = server.client("ann")
        assert ann.get("/api/queue?count=12").status == 200
        assert (ann.image(image)["width"], ann.image(image)["height"]) == (50, 60)


def test_maps_of_a_store_and_of_a_model_are_those_of_the_model(
    manifest: Path, tmp_path: Path
) -> None:
    folder = model_folder(
        tmp_path / "model", "test_resnet", classes=("plain", "marked"), positive="marked"
    )
    table = Manifest.read(manifest, need=())
    annotate(load_model(folder), table, out=tmp_path / "store", splits="all",
             cam_class="decision", rise=RiseSettings())  # fmt: skip
    options = {"proposals_on_evaluation": True}
    by_model = all_shown(manifest, start_from=folder, **options)
    by_store = all_shown(manifest, start_from=tmp_path / "store", **options)
    predictor = preceptor.load(folder, device="cpu")
    labels = dict(zip(table.table["path"], table.table["label"], strict=True))
    decided = 0
    for path, label in labels.items():
        name, prediction = Path(path).name, predictor(path)
        expected = prediction.map_at_image() >= 0.5
        if prediction.decision == "marked":
            decided += 1
            np.testing.assert_array_equal(by_model[name], expected)
        else:
            assert by_model[name] is None
        if label == "marked":  # a store of label maps, in float16
            mask = by_store[name]
            assert mask is not None
            assert (mask != expected).mean() < 0.01
    assert 0 < decided < 12


def test_a_manifest_in_another_folder_with_names_of_its_own(manifest: Path, tmp_path: Path) -> None:
    table = pd.read_csv(manifest, keep_default_na=False)
    for column in ("path", "saliency"):
        table[column] = [f"../{path}" if path else "" for path in table[column]]
    table["name"] = [f"image {number}" for number in range(len(table))]
    moved = manifest.parent / "lists" / "moved.csv"
    moved.parent.mkdir()
    table.to_csv(moved, index=False)
    folder = model_folder(
        tmp_path / "model", "test_resnet", classes=("plain", "marked"), positive="marked"
    )
    read = Manifest.read(moved, need=())
    annotate(load_model(folder), read, out=tmp_path / "store", splits="all", cam_class="decision")
    for place in (moved, tmp_path / "store"):
        masks = all_shown(moved, start_from=place, proposals_on_evaluation=True).values()
        assert any(mask is not None for mask in masks)


def test_maps_of_other_images_are_refused(manifest: Path, tmp_path: Path) -> None:
    table = pd.read_csv(manifest)
    table["path"] = [f"other/{path}" for path in table["path"]]
    table.to_csv(manifest.with_name("other.csv"), index=False)
    with (
        pytest.raises(InputError, match="it has no map of the images that are marked"),
        running(manifest, start_from=manifest.with_name("other.csv")),
    ):
        pass


def test_a_level_at_which_nothing_is_proposed(manifest: Path, tmp_path: Path) -> None:
    """It is told, and an answer that names it is exported; a lower level has pixels."""
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.full(SIZE[::-1], 100, np.uint8)).save(masks / "train-1.png")
    with running(manifest, start_from=masks) as server:
        person = server.client("ann")
        image = next(n for n in range(1, 13) if person.image(n)["name"] == "train-1.png")
        cuts = {
            level: person.get(f"/api/images/{image}?level={level}").json["proposal"]
            for level in (20, 80)
        }
        assert (cuts[20]["w"], cuts[20]["h"], cuts[80]["w"]) == (*SIZE, 0)
        person.answer(image, "nothing", proposal=cuts[80]["id"])
        database = server.labeling.database.path
        with closing(connect(database, readonly=True)) as connection:
            export_marks(connection, database, tmp_path / "out")
    (row,) = pd.read_csv(tmp_path / "out" / "corrections.csv").to_dict("records")
    assert [row[key] for key in ("level", "proposed", "added", "removed")] == [80, 0, 0, 0]


def test_a_mask_of_the_stored_orientation_is_turned(tmp_path: Path) -> None:
    """As data import turns it; a mask of another aspect ratio is not stretched."""
    mask = np.zeros((10, 20), np.uint8)
    mask[:3, :4] = 255  # the upper left corner as stored, the upper right one when it is upright
    for name, wide in (("a", 20), ("b", 15)):
        save_image(tmp_path / "images" / f"{name}.jpg", 20, 10, orientation=6)
        Image.fromarray(mask[:, :wide]).save(save_image(tmp_path / "masks" / f"{name}.png"))
    with running(tmp_path / "images", start_from=tmp_path / "masks") as server:
        person = server.client("ann")
        found = {one["name"]: one["proposal"] for one in map(person.image, (1, 2))}
    assert [found["a.jpg"][key] for key in "xywh"] == [7, 0, 3, 4]
    assert found["b.jpg"] is None
