"""What is wrong with a study is told before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor.config.training import Training
from preceptor.driver import run_study
from preceptor.errors import InputError
from preceptor.study.checks import check_devices
from preceptor.study.config import StudyConfig
from preceptor.study_folder import open_study
from tests.datasets import SQUARES_STUDY, squares


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
def test_a_precision_that_this_machine_lacks_is_told_once(tmp_path: Path) -> None:
    study = StudyConfig(
        manifest=tmp_path / "none.csv",
        teachers=("test_byobnet",),
        students=("test_byobnet",),
        training=Training(precision="16-mixed"),
    )
    lines: list[str] = []
    with pytest.raises(InputError, match=r"training\.precision is 16-mixed") as caught:
        run_study(study, tmp_path / "out", tell=lines.append)
    assert "\n" not in str(caught.value)
    assert not lines  # no manifest was read


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_this_machine_lacks_is_told_once() -> None:
    with pytest.raises(InputError, match=r"training\.device cuda"):
        check_devices(Training(device="cuda"))


@pytest.mark.usefixtures("no_gpu")
def test_what_is_auto_is_left_to_the_probe() -> None:
    check_devices(Training(precision="auto", channels_last="auto", compile="auto"))


def test_marks_smaller_than_half_a_cell_are_noted(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", size=(128, 128))
    for file in (tmp_path / "data" / "maps").iterdir():
        mark = np.zeros((128, 128), np.uint8)
        mark[40:48, 40:48] = 255
        Image.fromarray(mark).save(file)
    settings = SQUARES_STUDY | {
        "manifest": manifest,
        "training": {"input_size": 32, "epochs": 1, "lr": 0.01},
    }
    lines: list[str] = []
    open_study(StudyConfig.model_validate(settings), tmp_path, run=True, report_to=lines.append)
    (note,) = [line for line in lines if "half a cell" in line]
    assert note.startswith("note: 100% of the human maps mark less than half a cell of the 4 × 4")
    lines.clear()
    finer = settings | {"backbone_args": {"test_byobnet": {"decoder": "fpn", "decoder_stride": 4}}}
    finer["training"] = {"input_size": 96, "epochs": 1, "lr": 0.01}
    open_study(StudyConfig.model_validate(finer), tmp_path, run=True, report_to=lines.append)
    assert not any("half a cell" in line for line in lines)
