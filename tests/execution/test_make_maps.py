"""Annotation in shards: the bits of one piece, and nothing done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.config.run import RiseSettings, RunConfig
from preceptor.config.training import CamClass, Training
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.execution.perform import perform
from preceptor.inference.annotate import PARTIAL_FOLDER, Shard, annotate, annotate_in_shards
from preceptor.maps.store import MapStore, read_store
from preceptor.models.build import load_model, save_model, with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.study.steps import MakeMaps, Step
from preceptor.study.workspaces import Workspaces
from preceptor.training.run import train
from preceptor.utils.leases import lease
from tests.commands import flags, here
from tests.datasets import squares
from tests.training.small_runs import small

MASKS = 66  # in three blocks; shards have 32 images
RISE = RiseSettings(max_masks=MASKS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marking")
    return squares(folder, splits={"train": 34, "val": 2, "test": 4})


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    config = small(data, training=Training(input_size=32, epochs=1, batch_size=16))
    return train(config, data.parent / "runs").folder / "model"


@pytest.fixture(scope="module")
def whole(data: Path, model: Path) -> MapStore:
    """By RISE, in this process and in one piece."""
    manifest, out = Manifest.read(data), data.parent / "whole"
    return annotate(loaded(model), manifest, "rise", out=out, splits="all", rise=RISE)


def loaded(model: Path) -> GuidedModel:
    """A model as the workers have it."""
    torch.set_num_threads(1)
    return load_model(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def assert_same(one: MapStore, other: MapStore, rounding: float = 0) -> None:
    assert one.info == other.info
    for name in ("paths", "maps", "classes", "error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=rounding)


def test_shards_leave_the_store_of_one_piece(
    data: Path, model: Path, whole: MapStore, tmp_path: Path
) -> None:
    made = annotate_in_shards(model, data, tmp_path, "rise", splits="all", rise=RISE)
    # A pass of 40 images and two of 32 and 8 round differently on some processors.
    assert_same(made, whole, 1e-6)
    assert_same(read_store(tmp_path), made)
    assert not (tmp_path / PARTIAL_FOLDER).exists()


def test_what_was_ended_goes_on_from_its_shards(data: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "data", ignore=shutil.ignore_patterns("runs", "whole"))
    manifest = tmp_path / "data" / "manifest.csv"
    victim = tmp_path / "data" / "images" / "train-33.png"
    victim.write_bytes(victim.read_bytes()[:-500])  # its header is whole
    out = tmp_path / "maps"

    def stopped(model: Path) -> None:
        """Without a cache, the image is decoded after the first shard is done."""
        with pytest.raises(InputError, match=r"train-33\.png"):
            annotate_in_shards(model, manifest, out, "rise", rise=RISE, cache="none")

    def done() -> dict[Path, int]:
        files = out.glob(f"{PARTIAL_FOLDER}/*/*/run.json")
        return {file.parent: file.stat().st_mtime_ns for file in files}

    stopped(model)
    before = done()
    assert len(before) == 1
    # These shards are not those of a model with the same weights and another pooling.
    other = tmp_path / "other"
    save_model(with_pool(load_model(model), Pool("top")), other)
    stopped(other)
    assert {folder: done()[folder] for folder in before} == before
    assert len(done()) == 2
    victim.write_bytes((data.parent / "images" / "train-33.png").read_bytes())
    (out / "maps-00007.parquet").write_text("a store whose writing was interrupted")
    options = flags(out=out, method="rise", max_masks=MASKS)
    assert here("annotate", other, manifest, *options).code == 0
    direct = annotate(
        loaded(other), Manifest.read(manifest), "rise", out=tmp_path / "direct", rise=RISE
    )
    assert_same(read_store(out), direct)
    with pytest.raises(InputError, match="it has a map store; remove it, or name a new folder"):
        annotate_in_shards(other, manifest, out)


def test_a_teacher_of_decision_maps_marks_with_them(
    data: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    options = flags(out=out, map_of="decision")
    assert here("annotate", model, data, *options).code == 0
    made = read_store(out)
    manifest = Manifest.read(data)
    kinds: tuple[CamClass, CamClass] = ("decision", "label")
    decision, label = (
        annotate(loaded(model), manifest, out=tmp_path / kind, cam_class=kind) for kind in kinds
    )
    assert_same(made, decision, 1e-6)
    assert not np.allclose(made.maps, label.maps, atol=0.01)


def test_two_at_once_on_one_folder_are_refused(data: Path, model: Path, tmp_path: Path) -> None:
    with (
        lease(tmp_path / PARTIAL_FOLDER),
        pytest.raises(InputError, match="another process is making maps in this folder"),
    ):
        annotate_in_shards(model, data, tmp_path)


def test_a_shard_that_was_interrupted_is_computed_anew(
    data: Path, model: Path, tmp_path: Path
) -> None:
    run = RunConfig(manifest=data, backbone="test_byobnet", training=Training(device="cpu"))
    work = MakeMaps(run, "a-run", "rise", RISE, Shard("test", 0, 4))
    shutil.copytree(model, tmp_path / "runs" / "a-run" / "model")
    step = Step("an-id", work, "a model")
    folder = step.folder(tmp_path)
    (folder / "left").mkdir(parents=True)
    (folder / "maps-00000.parquet").write_text("a part")
    assert perform(step, tmp_path, Workspaces({0: data}, {data: tmp_path / "cache"}))
    assert len(read_store(folder).maps) == 4
    assert {one.name for one in folder.iterdir()} == {"maps-00000.parquet", "run.json"}
