"""The start of a study: what it reads the first time, and that it reads nothing again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.datasets import squares
from tests.opened import OpenedFiles

SETTINGS: dict[str, Any] = {
    "manifest": "data/manifest.csv", "positive": "marked", "seeds": 1, "alphas": [0.5],
    "teachers": ["test_byobnet"], "students": ["test_byobnet"], "data_driven": False,
    "backbone_args": {"test_byobnet": {"output_stride": 8}}, "controls": [], "ceiling": False,
    "training": {
        "input_size": 32, "epochs": 1, "batch_size": 8, "lr": 0.01, "schedule": "constant",
        "augmentation": {"crop_area": 0.5},
    },
}  # fmt: skip
SPLITS = {"train": 16, "val": 8, "test": 8}


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    manifest = squares(tmp_path / "data", splits=SPLITS)
    # An image of training is one of validation too, which a start tells.
    train, val = (manifest.parent / f"images/{name}-2.png" for name in ("train", "val"))
    val.write_bytes(train.read_bytes())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path / "study.yaml"


def test_a_study_reads_each_image_once_and_never_again(study_file: Path, tmp_path: Path) -> None:
    """Its worker processes and its report included."""
    (tmp_path / "hook").mkdir()
    opened = OpenedFiles(tmp_path / "data", tmp_path / "hook")

    def start() -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from preceptor.cli.main import main; main()", "study",
             str(study_file), "--out", str(tmp_path / "out"), "--jobs", "1"],
            env=opened.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = start()
    counts = opened.take()
    assert counts.pop("manifest.csv")
    table = pd.read_csv(tmp_path / "data" / "manifest.csv", keep_default_na=False)
    assert set(counts) == {*table["path"], *table["saliency"]} - {""}
    # The report shows some test images as they are.
    assert {count for name, count in counts.items() if "/test" not in name} == {1}
    assert "note: 1 image of val is byte for byte in train too" in first

    again = start()
    assert set(opened.take()) == {"manifest.csv"}
    assert "note: 1 image of val is byte for byte in train too" in again
