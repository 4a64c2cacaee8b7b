"""Map targets as masks: examined images without marks, classes without marks, several sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preceptor.config.run import MapSource, RunConfig
from preceptor.config.training import Augmentation
from preceptor.data.augment import draw
from preceptor.data.loader import Rows
from preceptor.data.workspace import Workspace
from preceptor.losses.guided import usable_by
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.training.prepare import guided_rows, run_id_of
from preceptor.training.run import build_untrained
from tests.datasets import squares
from tests.training.small_runs import small

CELLS = {"input_size": 32, "distance": "cells", "cam_class": "decision"}
NORMALIZED = {"input_size": 32, "distance": "l2"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return squares(tmp_path / "data")


def rows_of(manifest: Path, training: dict[str, Any] = CELLS, **values: Any) -> Rows:
    workspace = Workspace.open(manifest)
    config = config_of(manifest, training, **values)
    return guided_rows(workspace, config, build_untrained(workspace, config))


def config_of(manifest: Path, training: dict[str, Any] = CELLS, **values: Any) -> RunConfig:
    return small(manifest, training=training, **values)


def labels_of(manifest: Path) -> pd.Series:
    table = pd.read_csv(manifest)
    return table[table["split"] == "train"]["label"].reset_index(drop=True)


def store_of(manifest: Path, folder: Path, value: float = 0.75, method: str = "cells") -> Path:
    table = pd.read_csv(manifest)
    names = table.loc[table["split"] == "train", "path"].to_numpy(object)
    maps = np.zeros((len(names), 4, 4), np.float16)
    maps[:, 1, 2] = value
    maps[:, 0, 0] = 0.25
    info = StoreInfo("t", method, "squash", 32, ("marked", "plain"), {})
    zeros = np.zeros(len(names), np.float32)
    write_store(folder, MapStore(info, names, maps, zeros.astype(np.int32), zeros))
    return folder


def test_examined_images_of_a_class_without_marks_are_whole(manifest: Path) -> None:
    table = pd.read_csv(manifest)  # marks of other splits do not count
    table.loc[table["split"] != "train", "saliency"] = table["saliency"].dropna().iloc[0]
    table.to_csv(manifest, index=False)
    drawn = rows_of(manifest, maps=MapSource(kind="human"), annotated=12).targets
    assert drawn is not None
    assert (drawn.weight > 0).sum() == 12
    rows = rows_of(manifest, maps=MapSource(kind="human"))
    assert rows.targets is not None
    assert (rows.targets.weight == 1).all()
    maps = rows.maps_on_grid(np.arange(len(rows)))
    plain = (labels_of(manifest) == "plain").to_numpy(copy=True)
    assert (maps[plain] == 1).all()
    assert ((maps[~plain] >= 0) & (maps[~plain] <= 1)).all()
    # Squares of half the side: a quarter of the cells at least is covered by a quarter or more.
    assert (maps[~plain].amax((1, 2)) == 1).all()
    assert (maps[~plain].amin((1, 2)) == 0).all()


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, int]:
    """A manifest of images that are not square, one of them marked as a whole; and its place."""
    manifest = squares(tmp_path / "wide", size=(48, 32))
    table = pd.read_csv(manifest)
    row = table.index[(table["split"] == "train") & (table["label"] == "marked")][0]
    white = Image.fromarray(np.full((32, 48), 200, np.uint8))
    white.save(manifest.parent / table.loc[row, "saliency"])
    return manifest, int((table.loc[:row, "split"] == "train").sum()) - 1


def source_of(kind: str, manifest: Path) -> MapSource:
    if kind == "human":
        return MapSource(kind="human")
    return MapSource(kind="store", path=manifest.parent / "maps")


@pytest.mark.parametrize("kind", ["human", "folder"])
def test_an_image_that_is_marked_as_a_whole(whole: tuple[Path, int], kind: str) -> None:
    """Its mask is 1 everywhere, in any crop and on the margins of a letterbox; else it says
    nothing, and is counted."""
    manifest, place = whole
    source, places = source_of(kind, manifest), np.arange(24)
    settings = Augmentation(crop_area=0.5)
    for values in ({}, {"cell_full": 0.5}, {"fit": "letterbox"}):
        rows = rows_of(manifest, CELLS | values, maps=source)
        assert (rows.maps_on_grid(places)[place] == 1).all()
        batch = rows.batch(places, settings, draw(0, 0, places))
        assert batch.maps is not None
        assert (batch.maps[place] == 1).all()
        assert usable_by("cells", batch.maps)[place]
        assert not usable_by("energy", batch.maps)[place]
        rows = rows_of(manifest, NORMALIZED | values, maps=source)
        assert rows.targets is not None
        assert rows.targets.weight[place] == 1
        assert not rows.maps_on_grid(places)[place].any()
    marks = {"labels": "marks", "rows": "annotated"}
    rows = rows_of(manifest, CELLS, maps=source, **marks) if kind == "human" else None
    assert rows is None or (rows.maps_on_grid(places)[place] == 1).all()


def test_distances_between_normalized_maps_leave_them_out(manifest: Path) -> None:
    rows = rows_of(manifest, NORMALIZED, maps=MapSource(kind="human"))
    assert rows.targets is not None
    plain = (labels_of(manifest) == "plain").to_numpy(copy=True)
    assert not rows.targets.weight[plain].any()


@pytest.mark.parametrize(
    ("label", "column", "cell"), [("plain", "annotated", 0), ("marked", "saliency", "")]
)
def test_an_image_that_nobody_examined_or_marked_has_no_mask(
    manifest: Path, label: str, column: str, cell: Any
) -> None:
    """Of a class with marks, an image without them."""
    table = pd.read_csv(manifest)
    chosen = table.index[(table["split"] == "train") & (table["label"] == label)][:3]
    table.loc[chosen, column] = cell
    table.to_csv(manifest, index=False)
    rows = rows_of(manifest, maps=MapSource(kind="human"))
    assert rows.targets is not None
    assert (rows.targets.weight == 0).sum() == 3


def test_the_share_of_a_cell_that_counts_as_full(manifest: Path) -> None:
    plain = rows_of(manifest, CELLS | {"cell_full": 1.0}, maps=MapSource(kind="human"))
    eager = rows_of(manifest, CELLS | {"cell_full": 0.25}, maps=MapSource(kind="human"))
    places = np.arange(24)
    area = plain.maps_on_grid(places)
    torch.testing.assert_close(eager.maps_on_grid(places), (4 * area).clamp_max(1))


def test_a_mappers_maps_are_inverted_where_the_class_has_no_marks(
    manifest: Path, tmp_path: Path
) -> None:
    store = store_of(manifest, tmp_path / "store")
    source = MapSource(kind="store", path=store, identity="t", marks=True)
    maps = rows_of(manifest, maps=source).maps_on_grid(np.arange(24))
    plain = (labels_of(manifest) == "plain").to_numpy(copy=True)
    assert torch.allclose(maps[~plain][:, 1, 2], torch.tensor(0.75))
    assert torch.allclose(maps[plain][:, 1, 2], torch.tensor(0.25))
    assert (maps[~plain][:, 3, 3] == 0).all()
    assert (maps[plain][:, 3, 3] == 1).all()
    unsaid = rows_of(manifest, maps=source.model_copy(update={"marks": False}))
    assert torch.equal(unsaid.maps_on_grid(np.arange(24)), maps)  # the store says that it has marks
    other = store_of(manifest, tmp_path / "other", method="cam")
    evidence = MapSource(kind="store", path=other, identity="t")
    maps = rows_of(manifest, maps=evidence).maps_on_grid(np.arange(24))
    assert torch.allclose(maps[:, 1, 2], torch.tensor(0.75))  # of a Teacher: as they are
    for one, weight in ((source, 0), (evidence, 1)):  # normalized: classes with marks only
        targets = rows_of(manifest, NORMALIZED, maps=one).targets
        assert targets is not None
        assert (targets.weight[plain] == weight).all()
        assert (targets.weight[~plain] == 1).all()


def test_one_centred_map_for_the_classes_with_marks(manifest: Path) -> None:
    maps = rows_of(manifest, maps=MapSource(kind="centre")).maps_on_grid(np.arange(24))
    plain = (labels_of(manifest) == "plain").to_numpy(copy=True)
    assert (maps[plain] == 1).all()
    assert (maps[~plain] == maps[~plain][0]).all()
    assert maps[~plain].amax() < 1.001


def test_what_was_examined_is_part_of_the_id(manifest: Path) -> None:
    before = run_id_of(Workspace.open(manifest), config_of(manifest))
    normalized = run_id_of(Workspace.open(manifest), config_of(manifest, NORMALIZED))
    table = pd.read_csv(manifest)
    row = table.index[(table["split"] == "train") & (table["label"] == "plain")][0]
    table.loc[row, "annotated"] = 0
    table.to_csv(manifest, index=False)
    assert run_id_of(Workspace.open(manifest), config_of(manifest)) != before
    assert run_id_of(Workspace.open(manifest), config_of(manifest, NORMALIZED)) == normalized


def test_the_maps_of_a_mapper_guide_the_classes_that_its_marks_have(
    manifest: Path, tmp_path: Path
) -> None:
    source = MapSource(kind="store", path=store_of(manifest, tmp_path / "store"))
    plain = (labels_of(manifest) == "plain").to_numpy()
    guided = rows_of(manifest, NORMALIZED, maps=source)
    assert ((guided.targets.weight > 0) == ~plain).all()
    # As regions that an unguided run sees alone, they are used for every class.
    training = NORMALIZED | {"augmentation": {"outside": "mean", "outside_rate": 1.0}}
    unguided = rows_of(manifest, training, maps=source, alpha=1.0)
    assert (unguided.targets.weight > 0).all()

    before = run_id_of(Workspace.open(manifest), config_of(manifest, NORMALIZED, maps=source))
    table = pd.read_csv(manifest)
    row = table.index[(table["split"] == "train") & (table["label"] == "plain")][0]
    table.loc[row, "saliency"] = table["saliency"].dropna().iloc[0]
    table.to_csv(manifest, index=False)
    assert (rows_of(manifest, NORMALIZED, maps=source).targets.weight > 0).all()
    after = run_id_of(Workspace.open(manifest), config_of(manifest, NORMALIZED, maps=source))
    assert after != before
