"""A step computes what its id says, or nothing."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.run import RiseSettings
from preceptor.errors import InputError
from preceptor.execution.perform import perform
from preceptor.inference.annotate import Shard
from preceptor.maps.store import MapStore, read_store
from preceptor.study.steps import MakeMaps, Step, Train
from preceptor.study.workspaces import Workspaces
from preceptor.study_folder import read_study
from preceptor.training.run import train
from tests.datasets import squares
from tests.studies import study
from tests.training.small_runs import small


def test_a_run_whose_given_maps_were_edited_meanwhile_is_refused(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    given = tmp_path / "given"
    shutil.copytree(manifest.parent / "maps", given)
    plan = read_study(study(manifest, maps={"masks": str(given)}), tmp_path / "out")
    step = next(
        one
        for one in plan.start()
        if isinstance(one.work, Train) and one.work.arm.teacher == "masks (given maps)"
    )
    there = pickle.loads(pickle.dumps(plan.workspaces))
    first, second, *_ = sorted(given.iterdir())
    shutil.copyfile(first, second)
    store = plan.first.protocol.store
    with pytest.raises(InputError, match="have changed since the study was started"):
        perform(step, store, there)
    assert not (store / "runs").exists()


def test_maps_do_not_depend_on_what_the_process_has_done_before(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", size=(16, 16))
    workspaces = Workspaces({0: manifest}, {manifest: tmp_path / "cache"})
    training = {"input_size": 32, "epochs": 1, "schedule": "constant"}
    config = small(manifest, backbone_args={}, alpha=1.0, maps={"kind": "none"}, training=training)
    run = train(config, tmp_path / "runs", workspace=workspaces.at(manifest))

    def made(method: Any, name: str) -> MapStore:
        rise = RiseSettings(max_masks=64) if method == "rise" else None
        work = MakeMaps(config, run.id, method, rise, Shard("train", 0, 20))
        perform(Step(name, work, "maps"), tmp_path, workspaces)
        return read_store(tmp_path / "maps" / name)

    before = torch.are_deterministic_algorithms_enabled()
    try:
        for method in ("cam", "rise"):
            torch.use_deterministic_algorithms(False)
            torch.manual_seed(0)
            one = made(method, f"{method} one")
            assert torch.are_deterministic_algorithms_enabled()  # as after a training
            torch.manual_seed(1)
            torch.rand(7)
            other = made(method, f"{method} other")
            np.testing.assert_array_equal(one.maps, other.maps)
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)
