"""Runs that are killed or fail: they resume bit for bit, and the error says why."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from preceptor.config.files import dump_config
from preceptor.config.training import Augmentation
from preceptor.errors import RunFailedError
from preceptor.training.run import train
from preceptor.utils.results import file_digest
from tests import forked
from tests.forked import Forked
from tests.small_files import files_up_to
from tests.training.small_runs import SMALL, small


def test_killed_at_any_epoch_it_ends_with_the_same_bits(manifest: Path, tmp_path: Path) -> None:
    changes = Augmentation(
        flip=True, quarter_turns=True, crop_area=0.6, color=0.3, jpeg=0.5, outside="other"
    )
    for optimizer in ("sgd", "adamw"):
        training = SMALL.model_copy(
            update={
                "epochs": 4,
                "optimizer": optimizer,
                "augmentation": changes,
                "schedule": "one_cycle",
                "clip": 1.0,
                "consistency": 0.1,
            }
        )
        config = small(manifest, training=training, alpha=0.1)
        undisturbed = train(config, tmp_path / "undisturbed")
        file = tmp_path / f"{optimizer}.yaml"
        file.write_text(dump_config(config))
        arguments = ["train", file, "--out", tmp_path / "killed"]
        hold = ("epoch 2/", tmp_path / "never")
        with Forked(forked.command, arguments, hold=hold, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 2/"):
                    process.send_signal(signal.SIGKILL)
                    break
        folder = tmp_path / "killed" / undisturbed.id
        assert not (folder / "run.json").exists()
        lines: list[str] = []
        train(config, tmp_path / "killed", tell=lines.append)
        assert lines[0].startswith("resumed after epoch")
        for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
            assert file_digest(folder / name) == file_digest(undisturbed.folder / name), name


def test_a_full_disk_is_a_failure_that_names_the_file(manifest: Path, tmp_path: Path) -> None:
    config = small(manifest, training=SMALL.model_copy(update={"cache": "none", "epochs": 1}))
    with pytest.raises(RunFailedError) as caught, files_up_to(50_000):
        train(config, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(caught.value).startswith(f"run {folder.name}: {folder}/resume.safetensors: ")
    assert not list(folder.iterdir())
    assert train(config, tmp_path / "runs").trained


def test_divergence_is_a_failure_with_its_reason(manifest: Path, tmp_path: Path) -> None:
    training = SMALL.model_copy(update={"lr": 1e30})
    with pytest.raises(
        RunFailedError, match=r"the training diverged, with loss .*; lower lr or set clip"
    ):
        train(small(manifest, training=training), tmp_path)


def test_divergence_in_the_last_step_of_an_epoch_names_the_run(
    manifest: Path, tmp_path: Path
) -> None:
    """The losses of the epoch are finite: it is the scores after it that are not."""
    training = SMALL.model_copy(update={"lr": 1e30, "batch_size": 24, "epochs": 1})
    with pytest.raises(RunFailedError) as caught:
        train(small(manifest, training=training), tmp_path / "runs")
    (folder,) = [entry for entry in (tmp_path / "runs").iterdir() if entry.is_dir()]
    assert str(caught.value) == (
        f"run {folder.name}: the training diverged: after epoch 1, 12 of 12 scores of val are NaN; "
        "lower lr or set clip"
    )
