"""One run: what it leaves, that it resumes bit for bit, and that its id means what it says."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from preceptor.config import Augmentation, MapSource, RunConfig, Training
from preceptor.configfile import dump_config
from preceptor.errors import InputError, RunFailedError
from preceptor.evaluation.metrics import auc
from preceptor.models import load_model
from preceptor.runs import damaged_files, file_digest, read_record
from preceptor.saliency.annotate import annotate
from preceptor.training import learning_rate, train
from preceptor.workspace import Workspace
from tests.datasets import squares

SMALL = Training(input_size=32, epochs=2, batch_size=8, lr=0.01, schedule="constant")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("data with spaces"))


def small(manifest: Path, **values: Any) -> RunConfig:
    base = {
        "manifest": manifest,
        "backbone": "test_byobnet",
        "backbone_args": {"output_stride": 8},
        "positive": "marked",
        "training": SMALL,
    }
    return RunConfig.model_validate(base | values)


def test_a_run_leaves_what_the_design_says(manifest: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = train(small(manifest), tmp_path / "runs", tell=lines.append)
    files = {file.relative_to(result.folder).as_posix() for file in result.folder.rglob("*.*")}
    assert files == {
        "config.yaml", "metrics.csv", "scores.parquet", "model/model.safetensors",
        "model/model.json", "log.txt", "run.json",
    }  # fmt: skip
    assert damaged_files(result.folder) == []
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert len(metrics) == 2
    for column in ("lr", "classification", "guidance", "grad_logits", "grad_map", "val_accuracy",
                   "val_auc", "map_correlation", "val_map_correlation"):  # fmt: skip
        assert np.isfinite(metrics[column]).all(), column
    assert (metrics["guided"] == 12).all()  # the marked half of 24 training images
    assert np.allclose(metrics["grad_map"], 0.5)  # l2 pulls with norm 1, times 1 − α
    assert len(lines) == 2
    assert "val AUC" in lines[0]
    scores = pd.read_parquet(result.folder / "scores.parquet")
    assert list(scores["split"].unique()) == ["val"]  # no test image is looked at
    kept = auc(scores["label"] == "marked", scores["score_marked"])
    assert kept == pytest.approx(result.record["metrics"]["val_auc"], abs=1e-9)
    model = load_model(result.folder / "model")
    assert model.spec.positive == "marked"


def test_a_finished_run_is_taken_from_the_store(manifest: Path, tmp_path: Path) -> None:
    config = small(manifest)
    first = train(config, tmp_path)
    before = (first.folder / "run.json").stat().st_mtime_ns
    assert train(config, tmp_path).id == first.id
    assert (first.folder / "run.json").stat().st_mtime_ns == before


def test_killed_at_any_epoch_it_ends_with_the_same_bits(manifest: Path, tmp_path: Path) -> None:
    changes = Augmentation(flip=True, quarter_turns=True, crop_area=0.6, colour=0.3, jpeg=0.5)
    for optimiser in ("sgd", "adamw"):
        training = SMALL.model_copy(
            update={"epochs": 4, "optimiser": optimiser, "augmentation": changes,
                    "schedule": "one_cycle", "clip": 1.0}
        )  # fmt: skip
        config = small(manifest, training=training, alpha=0.1)
        undisturbed = train(config, tmp_path / "undisturbed")
        file = tmp_path / f"{optimiser}.yaml"
        file.write_text(dump_config(config))
        command = [sys.executable, "-m", "preceptor.training", str(file), str(tmp_path / "killed")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 2/"):
                    process.send_signal(signal.SIGKILL)
                    break
        folder = tmp_path / "killed" / undisturbed.id
        assert not (folder / "run.json").exists()
        lines: list[str] = []
        train(config, tmp_path / "killed", tell=lines.append)
        assert lines[0].startswith("goes on after epoch")
        for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
            assert file_digest(folder / name) == file_digest(undisturbed.folder / name), name


def test_a_damaged_resume_state_is_a_fresh_start(manifest: Path, tmp_path: Path) -> None:
    config = small(manifest)
    first = train(config, tmp_path / "a")
    broken = tmp_path / "b" / first.id
    broken.mkdir(parents=True)
    (broken / "resume.safetensors").write_bytes(b"\x00" * 100)
    second = train(config, tmp_path / "b")
    name = "model/model.safetensors"
    assert file_digest(first.folder / name) == file_digest(second.folder / name)


def test_learning_takes_place(manifest: Path, tmp_path: Path) -> None:
    training = Training(
        input_size=32, epochs=12, batch_size=8, optimiser="adamw", lr=0.003, schedule="one_cycle",
        checkpoint="last",
    )  # fmt: skip
    metrics = pd.read_csv(
        train(small(manifest, training=training, alpha=0.3), tmp_path).folder / "metrics.csv"
    )
    first, last = metrics.iloc[0], metrics.iloc[-1]
    assert last["classification"] < 0.7 * first["classification"]
    assert last["guidance"] < first["guidance"]
    assert last["map_correlation"] > first["map_correlation"] + 0.2


def test_divergence_is_a_failure_with_its_reason(manifest: Path, tmp_path: Path) -> None:
    training = SMALL.model_copy(update={"lr": 1e30})
    with pytest.raises(RunFailedError, match="diverged; a smaller lr"):
        train(small(manifest, training=training), tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"rows": "annotated", "annotated": 0.5},
        {"maps": MapSource(kind="none"), "alpha": 1.0},
        {"maps": MapSource(kind="centre")},
        {"guide_classes": ("marked",), "alpha": 0.0},
        {"training": {"recipe": "cyborg", "epochs": 1, "input_size": 32, "batch_size": 8}},
        {"training": {"recipe": "paper", "epochs": 1, "input_size": 32, "in_chans": 1}},
        {
            "training": {
                "length": "steps", "steps": 5, "epochs": 2, "input_size": 32, "fit": "letterbox",
                "optimiser": "adamw", "schedule": "cosine", "balanced": True, "cache": "none",
                "checkpoint": "best_auc", "precision": "bf16-mixed", "channels_last": False,
            }
        },
    ],
)  # fmt: skip
def test_every_kind_of_run_trains(manifest: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    result = train(small(manifest, **values), tmp_path)
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert np.isfinite(metrics["loss"]).all()
    assert result.record["metrics"]["val_auc"] >= 0


def test_three_classes_and_images_of_another_shape(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", classes=("none", "red", "blue"), size=(48, 30))
    config = small(manifest, positive=None)
    config = config.model_copy(update={"training": SMALL.model_copy(update={"fit": "crop"})})
    result = train(config, tmp_path / "runs")
    scores = pd.read_parquet(result.folder / "scores.parquet")
    columns = [f"score_{name}" for name in ("blue", "none", "red")]
    assert np.allclose(scores[columns].sum(axis=1), 1, atol=1e-5)


def test_two_classes_need_a_positive_one(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="positive"):
        train(small(manifest, positive=None), tmp_path)


def test_ids_mean_what_is_computed(manifest: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(manifest, tmp_path)

    def identity(config: RunConfig, **training: Any) -> str:
        settings = config.training.model_copy(update=training)
        return workspace.run_id(config.model_copy(update={"training": settings}))

    base = small(manifest)
    same = identity(base)
    assert identity(base, device="cpu") == same
    assert identity(base, cache="none") == same
    assert identity(base, threads=2) != same
    assert identity(base, precision="bf16-mixed") != same
    assert identity(small(manifest, seed=1)) != same
    assert identity(small(manifest, alpha=0.1)) != same
    # Plain classes have no human maps, so guiding only the marked class is the same run.
    assert identity(small(manifest, guide_classes=("marked",))) == same
    # α does not matter where nothing guides, nor does the distance.
    plain = small(manifest, maps=MapSource(kind="none"))
    assert identity(plain) == identity(small(manifest, alpha=1.0))
    assert identity(plain, distance="mse") == identity(plain)
    # All annotated images and all images differ, and so does the draw.
    few = small(manifest, rows="annotated", annotated=0.5)
    assert len({identity(few), same, identity(few.model_copy(update={"annotated_seed": 1}))}) == 3


def test_a_changed_image_changes_the_id(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    config = small(manifest)
    before = Workspace.open(manifest, tmp_path / "cache").run_id(config)
    shutil.copy(manifest.parent / "images/train-1.png", manifest.parent / "images/train-3.png")
    assert Workspace.open(manifest, tmp_path / "cache").run_id(config) != before


def test_a_student_learns_from_a_teachers_maps(manifest: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(manifest, tmp_path / "cache")
    teacher = train(small(manifest), tmp_path / "runs", workspace=workspace)
    model = load_model(teacher.folder / "model")
    store = annotate(model, workspace.manifest, out=tmp_path / "maps", workspace=workspace)
    assert store.maps.shape == (24, 4, 4)
    source = MapSource(kind="store", path=tmp_path / "maps", identity="teacher")
    student = train(small(manifest, maps=source), tmp_path / "runs", workspace=workspace)
    assert student.record["guided_images"] == 24
    shuffled = source.model_copy(update={"shuffle_seed": 0})
    control = train(small(manifest, maps=shuffled), tmp_path / "runs", workspace=workspace)
    assert len({teacher.id, student.id, control.id}) == 3


def test_schedules() -> None:
    def rates(kind: str) -> list[float]:
        settings = Training(schedule=kind, lr=1.0, step_epochs=1)
        return [learning_rate(settings, step, 100, step // 50) for step in range(100)]

    assert set(rates("constant")) == {1.0}
    assert set(rates("step")) == {1.0, 0.1}
    cosine = rates("cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert math.isclose(cosine[0], 1, abs_tol=1e-3)
    assert 0 < cosine[-1] < 1e-3
    cycle = rates("one_cycle")
    assert math.isclose(max(cycle), 1, abs_tol=0.03)
    assert int(np.argmax(cycle)) in (24, 25)
    assert min(cycle) > 0


def test_training_leaves_torchs_settings_usable(manifest: Path, tmp_path: Path) -> None:
    train(small(manifest), tmp_path)
    assert torch.get_num_threads() == SMALL.threads
    assert read_record(next(tmp_path.glob("*/run.json")).parent)["device"]
