"""A run's id covers whatever can change the run: every manifest column and every config key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import BaseModel

from preceptor.config.run import RunConfig
from preceptor.data.checks import COLUMNS
from preceptor.data.workspace import Workspace
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.models.build import build_model, save_model
from preceptor.training.prepare import run_id_of
from preceptor.training.run import train
from preceptor.utils.results import file_digest
from tests.datasets import SHORT, SQUARES_RUN, squares

RESULT = ("metrics.csv", "scores.parquet", "model/model.safetensors", "model/model.json")
SPLITS = {"train": 12, "val": 6, "val-other": 6, "test": 4}
TRAINING: dict[str, Any] = SHORT | {"batch_size": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest that uses every column, and a map store of its training images."""
    folder = tmp_path_factory.mktemp("identity")
    manifest = squares(folder / "data", splits=SPLITS)
    table = pd.read_csv(manifest, keep_default_na=False)
    examined = (table["saliency"] != "") | (np.arange(len(table)) % 12 < 8)
    table["annotated"] = examined.astype(int)
    table["map_weight"], table["sample_weight"] = 1.0, 1.0
    table["annotation_seconds"], table["camera"] = 10.0, "a"
    table["name"] = table["path"]
    table.to_csv(manifest, index=False)
    names = table["path"][table["split"] == "train"].to_numpy(object)
    generator = np.random.default_rng(0)
    scores = generator.random(len(names)).astype(np.float32)
    store = MapStore(
        StoreInfo("teacher", "cam", "squash", 32, ("marked", "plain"), {}),
        names,
        generator.random((len(names), 4, 4)).astype(np.float16),
        np.zeros(len(names), np.int32),
        scores,
    )
    write_store(folder / "maps", store)
    write_store(folder / "other-maps", store)  # the same content elsewhere
    torch.manual_seed(5)
    save_model(build_model("test_byobnet", ["marked", "plain"], positive="marked"), folder / "init")
    return folder


def configs(data: Path) -> dict[str, dict[str, Any]]:
    """A human-guided run on the annotated images, one by a Teacher's maps, one without maps."""
    common = SQUARES_RUN | {"manifest": data / "data" / "manifest.csv", "training": TRAINING}
    teacher = {"kind": "store", "path": data / "maps", "human": "keep"}
    return {
        "human": common | {"rows": "annotated", "alpha": 0.5},
        "student": common | {"maps": teacher},
        "plain": common | {"maps": {"kind": "none"}},
    }


class Runs:
    """Trains runs of changed data and configs, each in a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self._opened: dict[tuple[Path, bytes], Workspace] = {}

    def workspace(self, manifest: Path) -> Workspace:
        """The images of a manifest, which is read again when its content has changed."""
        key = manifest, manifest.read_bytes()
        if key not in self._opened:
            self._opened[key] = Workspace.open(manifest, self.folder / "cache")
        return self._opened[key]

    def identity(self, values: dict[str, Any]) -> str:
        config = RunConfig.model_validate(values)
        return run_id_of(self.workspace(config.manifest), config)

    def result(self, values: dict[str, Any]) -> dict[str, str]:
        """Digests of what a run leaves."""
        config = RunConfig.model_validate(values)
        self.count += 1
        store = self.folder / f"runs-{self.count}"
        folder = train(config, store, workspace=self.workspace(config.manifest)).folder
        return {name: file_digest(folder / name) for name in RESULT}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def undisturbed(data: Path, runs: Runs) -> dict[str, tuple[str, dict[str, str]]]:
    """By kind of run: its id, and what it leaves."""
    return {
        kind: (runs.identity(values), runs.result(values)) for kind, values in configs(data).items()
    }


def assert_covered(
    runs: Runs, before: tuple[str, dict[str, str]], values: dict[str, Any], changed: str
) -> bool:
    """Whether the id changed; if it did not, the run must leave the same bits."""
    identity, result = before
    if runs.identity(values) != identity:
        return True
    assert runs.result(values) == result, f"{changed} changes a run and not its id"
    return False


# Another value of a cell, by column. The images of paths are swapped between two rows.
CELLS: dict[str, Any] = {
    "path": "images/train-2.png",
    "name": "another name",
    "label": "marked",
    "split": "test",
    "saliency": "maps/train-3.png",
    "annotated": 0,
    "source": "elsewhere",
    "group": "a patient",
    "map_weight": 0.25,
    "sample_weight": 3.0,
    "annotation_seconds": 99.0,
    "camera": "b",
}
# What no run reads: the id may stay.
UNREAD = {"annotation_seconds", "camera"}


@pytest.mark.parametrize("column", [*COLUMNS, "camera"])
def test_every_manifest_column_is_covered(
    column: str, data: Path, runs: Runs, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    advice = f"a new column: add {column} to CELLS with a value that changes a cell"
    assert column in CELLS, advice
    source = pd.read_csv(data / "data" / "manifest.csv", keep_default_na=False)
    manifest = tmp_path / "manifest.csv"

    def write(*splits: str) -> None:
        """The manifest with a changed cell in each of the splits."""
        table = source.copy()
        table[column] = table[column].astype(object)
        for split in splits:
            # A marked image with a map; who has a map is annotated.
            label = "plain" if column == "annotated" else "marked"
            row = table.index[(table["split"] == split) & (table["label"] == label)][0]
            value = "plain" if column == "label" else CELLS[column]
            assert table.loc[row, column] != value
            table.loc[row, column] = value
        if column == "path":  # no image may be listed twice
            table = table[table.index != table.index[source["path"] == value][0]]
        for name in ("path", "saliency"):
            table[name] = [f"{data}/data/{one}" if one else "" for one in table[name]]
        table.to_csv(manifest, index=False)

    moved = {kind: values | {"manifest": manifest} for kind, values in configs(data).items()}
    changed: dict[str, set[str]] = {kind: set() for kind in undisturbed}
    splits = ("train", "val", "val-other")
    for split in splits:
        write(split)
        for kind, values in moved.items():
            if runs.identity(values) != undisturbed[kind][0]:
                changed[kind].add(split)
    # The cells that do not change the id are changed together.
    for kind, values in moved.items():
        if left := [split for split in splits if split not in changed[kind]]:
            write(*left)
            covered = assert_covered(runs, undisturbed[kind], values, f"{column} of {left}")
            assert not covered
    if column in UNREAD:
        assert not any(changed.values())
    if column == "map_weight":
        assert (changed["human"], changed["student"], changed["plain"]) == (
            {"train"},
            {"train"},
            set(),
        )
    if column in ("saliency", "group", "path", "label"):
        assert {"val", "val-other"} <= changed["plain"]


def alternatives(data: Path) -> dict[str, Any]:
    """Another valid value for every config key, by its dotted name."""
    return {
        "manifest": data / "data" / "again.csv",
        "backbone": "test_resnet",
        "weights": str(data / "init" / "model.safetensors"),
        "weights_identity": "known",
        "last_layer": "val-other",
        "swaps": {"kind": "store", "path": str(data / "maps"), "identity": "other"},
        "backbone_args": {"output_stride": 16},
        "positive": "plain",
        "rows": None,
        "annotated": 0.5,
        "annotated_seed": 3,
        "maps.kind": "centre",
        "maps.path": data / "other-maps",
        "maps.identity": "known",
        "maps.shuffle_seed": 4,
        "maps.human": None,
        "maps.shuffle_groups": True,
        "maps.marks": True,
        "labels": "marks",
        "training.method": "rank",
        "training.preset": {"distance": "l1"},
        "training.mark_weight": 1.0,
        "training.cell_full": 1.0,
        "training.pool": "top",
        "training.pool_top": 2,
        "training.readout": "auto",
        "guide_classes": ("marked",),
        "alpha": 0.25,
        "validation_negatives": "val",
        "network": {"factory": "tests.networks:small"},
        "seed": 7,
        "training.recipe": "paper",
        "training.input_size": 48,
        "training.fit": "letterbox",
        "training.in_chans": 1,
        "training.distance": "mse",
        "training.cam_class": "predicted",
        "training.cam_source": "cyborg",
        "training.head": "sigmoid",
        "training.optimizer": "adamw",
        "training.lr": 0.02,
        "training.momentum": 0.5,
        "training.weight_decay": 0.1,
        "training.schedule": "cosine",
        "training.clip": 0.5,
        "training.balanced": True,
        "training.frozen": 0.5,
        "training.length": "steps",
        "training.epochs": 2,
        "training.steps": 2,
        "training.batch_size": 5,
        "training.checkpoint": "last",
        "training.precision": "bf16-mixed",
        "training.channels_last": False,
        "training.threads": 2,
        "training.device": "cpu",
        "training.cache": "none",
        "training.augmentation.flip": True,
        "training.augmentation.quarter_turns": True,
        "training.augmentation.crop_area": 0.5,
        "training.augmentation.color": 0.5,
        "training.augmentation.blur": 0.5,
        "training.augmentation.outside": "mean",
        "training.augmentation.outside_rate": 1.0,
    }


# Keys that are valid only together with others.
TOGETHER: dict[str, dict[str, Any]] = {
    "network": {"backbone_args": {}},
    "training.length": {"training.steps": 2, "training.epochs": 1},
    "training.steps": {"training.length": "steps", "training.epochs": 1},
    "maps.kind": {"maps.path": None},
    "maps.shuffle_groups": {"maps.shuffle_seed": 4},
    "labels": {
        "rows": "annotated",
        "training.distance": "cells",
        "training.cam_class": "decision",
        "maps.kind": "human",
        "maps.path": None,
    },
    "training.method": {"training.distance": "l2"},  # not with another distance
    "training.preset": {"training.distance": "l2"},
    "training.mark_weight": {"training.distance": "cells", "training.cam_class": "decision"},
    "training.cell_full": {"training.distance": "cells", "training.cam_class": "decision"},
    "training.pool_top": {"training.pool": "top"},
}
# Keys that mean nothing to a kind of run, or that such a run cannot have.
NOT_FOR = {
    "maps.": {"human", "plain"},
    "training.cam_source": {"human", "student", "plain"},  # cyborg: known backbones alone
}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys of a config."""
    nested = {"maps", "training", "augmentation"}
    for name, field in model.model_fields.items():
        if name not in nested:
            yield prefix + name
            continue
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            inner = next(one for one in inner.__args__ if one is not type(None))  # type: ignore[union-attr]
        yield from keys(inner, f"{prefix}{name}.")


def put(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The values with a dotted key set."""
    first, _, rest = key.partition(".")
    if not rest:
        return values | {first: value}
    return values | {first: put(dict(values.get(first, {})), rest, value)}


def test_every_config_key_has_another_value_here(data: Path) -> None:
    advice = "a new key: add it to `alternatives` with a value that is not its default"
    assert set(keys(RunConfig)) == set(alternatives(data)), advice


def changed_by(key: str, kind: str, data: Path) -> dict[str, Any]:
    """What a key's other value, and the keys that it needs, change in a kind of run."""
    value = alternatives(data)[key]
    if key == "rows":
        value = "all" if kind == "human" else "annotated"
    if key == "maps.human":
        value = "replace"
    of_weights = key in ("weights_identity", "training.frozen")
    first = {"weights": alternatives(data)["weights"]} if of_weights else {}
    return first | {key: value} | TOGETHER.get(key, {})


def with_changes(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        values = put(values, name, value)
    return values


@pytest.mark.parametrize("kind", ["human", "student", "plain"])
def test_every_config_key_is_covered(
    kind: str, data: Path, runs: Runs, undisturbed: dict[str, Any]
) -> None:
    """Keys that leave the id are changed together, and the run leaves the same bits."""
    again = data / "data" / "again.csv"
    again.write_bytes((data / "data" / "manifest.csv").read_bytes())
    values, before = configs(data)[kind], undisturbed[kind]
    together: dict[str, Any] = {}
    for key in keys(RunConfig):
        if any(key.startswith(name) and kind in whom for name, whom in NOT_FOR.items()):
            continue
        changes = changed_by(key, kind, data)
        changed = with_changes(values, changes)
        assert RunConfig.model_validate(changed) != RunConfig.model_validate(values)
        if key == "maps.shuffle_groups":  # beside a run that is shuffled already
            base = with_changes(values, TOGETHER[key])
            assert_covered(runs, (runs.identity(base), runs.result(base)), changed, key)
        elif runs.identity(changed) != before[0]:
            continue
        elif key in TOGETHER:
            assert_covered(runs, before, changed, key)
        else:
            together |= changes
    assert not assert_covered(runs, before, with_changes(values, together), " ".join(together))


def test_a_file_that_an_argument_names_counts_by_its_content(data: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(data / "data" / "manifest.csv", tmp_path / "cache")
    values = configs(data)["human"]
    (tmp_path / "table.txt").write_text("1")
    arguments = {"backbone_args": {"some_file": str(tmp_path / "table.txt")}}
    before = run_id_of(workspace, RunConfig.model_validate(values | arguments))
    (tmp_path / "table.txt").write_text("2")
    assert run_id_of(workspace, RunConfig.model_validate(values | arguments)) != before
