"""A step computes what its id says, or nothing."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from preceptor.config.yaml_file import parse_config
from preceptor.errors import InputError
from preceptor.execution.perform import perform
from preceptor.study.config import StudyConfig
from preceptor.study.steps import Train
from preceptor.study_folder import read_study
from tests.datasets import squares


def test_a_run_whose_given_maps_were_edited_meanwhile_is_refused(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    given = tmp_path / "given"
    shutil.copytree(manifest.parent / "maps", given)
    values = {
        "manifest": str(manifest),
        "positive": "marked",
        "primary": "test",
        "teachers": ["test_byobnet"],
        "students": ["test_byobnet"],
        "maps": {"masks": str(given)},
        "seeds": 1,
        "backbone_args": {"test_byobnet": {"output_stride": 8}},
        "training": {"input_size": 32, "epochs": 1},
    }
    study = read_study(parse_config(values, StudyConfig), tmp_path / "out")
    step = next(
        one
        for one in study.start()
        if isinstance(one.work, Train) and one.work.arm.teacher == "masks (given maps)"
    )
    there = pickle.loads(pickle.dumps(study.workspaces))
    first, second, *_ = sorted(given.iterdir())
    shutil.copyfile(first, second)
    store = study.first.protocol.store
    with pytest.raises(InputError, match="have changed since the study was started"):
        perform(step, store, there)
    assert not (store / "runs").exists()
