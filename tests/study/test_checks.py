"""What is wrong with a study is told before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from preceptor.config.run import Training
from preceptor.driver import run_study
from preceptor.errors import InputError
from preceptor.study.checks import check_devices
from preceptor.study.config import StudyConfig


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
def test_a_precision_that_this_machine_lacks_is_told_once(tmp_path: Path) -> None:
    study = StudyConfig(
        manifest=tmp_path / "none.csv", teachers=("test_byobnet",), students=("test_byobnet",),
        training=Training(precision="16-mixed"),
    )  # fmt: skip
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
