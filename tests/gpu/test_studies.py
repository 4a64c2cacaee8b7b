"""Studies on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from preceptor.driver import run_study
from tests.studies import run_serially, same_tables, study


def test_every_step_of_a_study_is_computed_on_the_device(
    device: torch.device, manifest: Path, tmp_path: Path
) -> None:
    training = {"input_size": 32, "epochs": 1, "batch_size": 8}
    config = study(manifest, seeds=1, controls=(), ceiling=False, training=training)
    run_serially(config, tmp_path / "study")
    records = [json.loads(file.read_text()) for file in (tmp_path / "study").rglob("run.json")]
    devices = {record["device"] for record in records if "device" in record}
    assert {name.partition(":")[0] for name in devices} == {device.type}
    assert (tmp_path / "study" / "comparisons.csv").is_file()


@pytest.mark.parametrize("runs", [1, 2])
def test_runs_that_share_a_gpu_leave_the_tables_of_one(
    card: torch.device, manifest: Path, tmp_path: Path, runs: int
) -> None:
    training = {"input_size": 32, "epochs": 1, "batch_size": 8}
    config = study(manifest, seeds=2, training=training)
    run_serially(config, tmp_path / "alone")
    run_study(config, tmp_path / "shared", jobs=2, runs_per_gpu=runs, tell=lambda line: None)
    same_tables(tmp_path / "alone", tmp_path / "shared")
