"""One run: what it leaves and learns, every kind of setting, kills and failures."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from preceptor.config.files import dump_config
from preceptor.config.training import Augmentation, Training
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, RunFailedError
from preceptor.inference.annotate import annotate
from preceptor.inference.predict import predict
from preceptor.metrics.auc import auc
from preceptor.models.build import load_model
from preceptor.training.loop import Trainer
from preceptor.training.run import build_untrained, train
from preceptor.utils import process
from preceptor.utils.leases import lease
from preceptor.utils.results import damaged_files, file_digest, read_record
from tests import forked
from tests.datasets import squares
from tests.forked import Forked
from tests.small_files import files_up_to
from tests.training.small_runs import SMALL, small

# Metrics of each epoch of a guided run.
GUIDED = ("guidance", "grad_logits", "grad_map", "map_correlation", "val_map_correlation")


def test_images_seen_are_counted_and_steps_have_full_batches(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 25, "val": 4, "test": 2})
    settings = {"input_size": 32, "batch_size": 20, "length": "steps", "steps": 7, "epochs": 3}
    config = small(manifest, training=Training.model_validate(settings))
    folder = train(config, tmp_path / "runs").folder
    assert read_record(folder)["images_seen"] == 140
    assert pd.read_csv(folder / "metrics.csv")["images"].tolist() == [40, 40, 60]
    by_passes = {"input_size": 32, "batch_size": 20, "epochs": 2}
    config = small(manifest, training=Training.model_validate(by_passes))
    assert read_record(train(config, tmp_path / "runs").folder)["images_seen"] == 50


def test_the_head_of_initial_weights(manifest: Path, tmp_path: Path) -> None:
    """Kept from a file where it fits, with a message; new from a mapper, whose id is known."""
    folder = train(small(manifest), tmp_path / "runs").folder
    weights = folder / "model" / "model.safetensors"
    head = load_model(folder / "model").head.weight
    workspace = Workspace.open(manifest)
    started = small(manifest, weights=str(weights), seed=1)
    assert torch.equal(build_untrained(workspace, started).head.weight, head)
    mapper = started.model_copy(update={"weights_identity": folder.name})
    model = build_untrained(workspace, mapper)
    assert not torch.equal(model.head.weight, head)
    assert torch.equal(next(model.parameters()), next(load_model(folder / "model").parameters()))
    for config, kept in ((started, True), (mapper, False)):
        lines: list[str] = []
        train(config, tmp_path / "runs", tell=lines.append)
        message = f"the head of {weights} is kept: its outputs count as marked, plain"
        assert (message in lines) == kept


def test_files_that_changed_between_two_runs_give_another_run(
    manifest: Path, tmp_path: Path
) -> None:
    workspace, weights = Workspace.open(manifest), tmp_path / "weights.safetensors"
    found = []
    for seed in range(2):
        model = train(small(manifest, seed=seed), tmp_path / "runs").folder / "model"
        weights.write_bytes((model / "model.safetensors").read_bytes())
        started = small(manifest, weights=str(weights))
        found.append(train(started, tmp_path / "runs", workspace=workspace).folder)
    assert found[0] != found[1]


def test_a_run_leaves_what_the_design_says(manifest: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = train(small(manifest), tmp_path / "runs", tell=lines.append)
    files = {file.relative_to(result.folder).as_posix() for file in result.folder.rglob("*.*")}
    assert files == {
        *("config.yaml", "metrics.csv", "scores.parquet", "log.txt", "run.json"),
        *("model/model.safetensors", "model/model.json", "model/checksums.json"),
    }
    assert damaged_files(result.folder) == []
    machine, instructions = result.record.versions["machine"].split(", ")
    assert machine == platform.machine()
    assert instructions == torch.backends.cpu.get_cpu_capability()
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert len(metrics) == 2
    for column in ("lr", "classification", "val_accuracy", "val_auc", *GUIDED):
        assert np.isfinite(metrics[column]).all(), column
    assert (metrics["guided"] == 12).all()  # the marked half of 24 training images
    assert np.allclose(metrics["grad_map"], 0.5)  # l2 pulls with norm 1, times 1 − α
    assert len(lines) == 2
    assert "val AUC" in lines[0]
    scores = pd.read_parquet(result.folder / "scores.parquet")
    assert list(scores["split"].unique()) == ["val"]  # no test image is looked at
    kept = auc(scores["label"] == "marked", scores["score_marked"])
    assert kept == pytest.approx(result.record.metrics["val_auc"], abs=1e-9)
    model = load_model(result.folder / "model")
    assert model.spec.positive == "marked"


def test_half_precision_is_refused_on_a_cpu(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="set precision to bf16-mixed or 32-true"):
        Training(precision="16-mixed", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    training = SMALL.model_copy(update={"precision": "16-mixed", "device": "auto"})
    with pytest.raises(InputError, match=r"training\.precision is 16-mixed.*set it to bf16-mixed"):
        train(small(manifest, training=training), tmp_path)


SHORT = {"epochs": 1, "input_size": 32, "batch_size": 8}
STEPS = {"length": "steps", "steps": 5, "epochs": 2, "input_size": 32, "fit": "letterbox"}
STEPS |= {"optimizer": "adamw", "schedule": "cosine", "balanced": True, "cache": "none"}
STEPS |= {"checkpoint": "best_auc", "precision": "bf16-mixed", "channels_last": False}


@pytest.mark.parametrize(
    "values",
    [
        {"guide_classes": ("marked",), "alpha": 0.0},
        {
            "alpha": 1.0,
            "training": SHORT | {"augmentation": {"outside": "noise", "outside_rate": 1}},
        },
        {"training": SHORT | {"recipe": "cyborg", "cam_source": "head_input"}},
        {"training": {"recipe": "paper", "epochs": 1, "input_size": 32, "in_chans": 1}},
        {"training": STEPS},
    ],
)
def test_every_kind_of_run_trains(manifest: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    result = train(small(manifest, **values), tmp_path)
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert np.isfinite(metrics["loss"]).all()
    assert result.record.metrics["val_auc"] >= 0


def test_three_classes_and_images_of_another_shape(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", classes=("none", "red", "blue"), size=(48, 30))
    config = small(manifest, positive=None)
    config = config.model_copy(update={"training": SMALL.model_copy(update={"fit": "crop"})})
    result = train(config, tmp_path / "runs")
    scores = pd.read_parquet(result.folder / "scores.parquet")
    columns = [f"score_{name}" for name in ("blue", "none", "red")]
    assert np.allclose(scores[columns].sum(axis=1), 1, atol=1e-5)
    validation = scores[scores["split"] == "val"]
    each = [
        auc((validation["label"] == name).to_numpy(bool), validation[f"score_{name}"].to_numpy())
        for name in ("blue", "none", "red")
    ]
    assert len(set(each)) > 1
    best = int(read_record(result.folder)["best_epoch"]) - 1
    area = pd.read_csv(result.folder / "metrics.csv")["val_auc"][best]
    assert area == pytest.approx(np.mean(each), abs=1e-6)


def test_a_running_training_can_be_followed(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    monkeypatch.setattr(process, "beat", lambda: beats.append(1))
    written: list[str] = []

    def told(line: str) -> None:
        written.extend(file.read_text() for file in tmp_path.glob("*/metrics.csv"))

    result = train(
        small(manifest, training=SMALL.model_copy(update={"epochs": 3})), tmp_path, tell=told
    )
    final = (result.folder / "metrics.csv").read_text()
    assert [text.count("\n") for text in written] == [2, 3, 4]  # an epoch is kept before it is told
    assert all(final.startswith(text) for text in written)
    assert len(beats) == 1 + 3 * (3 + 1 + 1) + 1  # begin, steps, validation, epochs, last scores


def test_training_leaves_torchs_settings_as_they_were(manifest: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(SMALL.threads + 1)
    try:
        random = torch.random.get_rng_state()
        train(small(manifest), tmp_path)
        assert torch.get_num_threads() == SMALL.threads + 1
        assert torch.are_deterministic_algorithms_enabled() == before[1]
        assert torch.equal(torch.random.get_rng_state(), random)
    finally:
        torch.set_num_threads(before[0])
    assert read_record(next(tmp_path.glob("*/run.json")).parent)["device"]


KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("test_convnext", {"precision": "bf16-mixed", "channels_last": False}, "gradcam"),
    ("test_mambaout", {"cam_class": "predicted", "distance": "mse"}, "gradcam"),
    ("test_resnet", {"cam_source": "cyborg", "cam_class": "predicted"}, "cam"),
    ("test_vit", {"head": "sigmoid", "in_chans": 1}, "gradcam"),
]


@pytest.mark.parametrize(("backbone", "training", "kind"), KINDS, ids=str)
def test_every_kind_of_saliency_trains_annotates_and_predicts(
    manifest: Path, tmp_path: Path, backbone: str, training: dict[str, Any], kind: str
) -> None:
    settings = {"input_size": 64, "lr": 1e-3, "optimizer": "adamw", "epochs": 3, "batch_size": 8}
    config = small(
        manifest, backbone=backbone, backbone_args={}, alpha=0.1, training=settings | training
    )
    workspace = Workspace.open(manifest, tmp_path / "cache")
    result = train(config, tmp_path / "runs", workspace=workspace)
    assert result.record.saliency == kind
    assert result.record.guided_images == 12
    metrics = pd.read_csv(result.folder / "metrics.csv")
    for column in ("loss", "val_auc", *GUIDED):
        assert np.isfinite(metrics[column]).all(), column
    assert (metrics["grad_map"] > 0).all()
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[0]
    scores = pd.read_parquet(result.folder / "scores.parquet")
    kept = auc(scores["label"] == "marked", scores["score_marked"])
    # Epochs are validated in the training's precision, scores are left in float32: under bf16 a few
    # of the 36 pairs may change their order.
    rounding = 3 / 36 if "precision" in training else 1e-9
    assert kept == pytest.approx(result.record.metrics["val_auc"], abs=rounding)
    # What it left marks images and scores them as the run did.
    model = load_model(result.folder / "model")
    assert model.spec.cam == kind
    assert model.spec.head == training.get("head", "softmax")
    store = annotate(model, workspace.manifest, out=tmp_path / "maps", workspace=workspace)
    assert store.maps.shape == (24, *model.grid())
    assert np.isfinite(store.maps).all()
    assert (store.maps.max((1, 2)) == 1).all()
    turned = annotate(
        model,
        workspace.manifest,
        out=tmp_path / "turned",
        workspace=workspace,
        cam_class="predicted",
    )
    assert (turned.scores >= 0.5).all()
    rows = workspace.rows(workspace.split_rows("val"), model.spec.image_format, model.spec.classes)
    found, bare = predict(model, rows, cams="predicted"), predict(model, rows)
    assert bare.cams is None
    np.testing.assert_allclose(bare.probabilities, found.probabilities, atol=1e-6)
    marked = found.probabilities[:, model.spec.classes.index("marked")]
    close = 0.05 if "precision" in training else 1e-5
    np.testing.assert_allclose(marked, scores["score_marked"], atol=close)


def test_killed_at_any_epoch_it_ends_with_the_same_bits(manifest: Path, tmp_path: Path) -> None:
    changes = Augmentation(
        flip=True, quarter_turns=True, crop_area=0.6, color=0.3, blur=0.5, outside="other"
    )
    for optimizer in ("sgd", "adamw"):
        training = SMALL.model_copy(
            update={
                "epochs": 3,
                "optimizer": optimizer,
                "augmentation": changes,
                "schedule": "one_cycle",
                "clip": 1.0,
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


def test_a_run_that_another_process_trains_is_waited_for_aloud(
    manifest: Path, tmp_path: Path
) -> None:
    config, said = small(manifest), list[str]()
    folder = train(config, tmp_path).folder
    with ThreadPoolExecutor(1) as pool:
        with lease(folder):
            done = pool.submit(train, config, tmp_path, tell=said.append)
            while not said:
                assert not done.done()
                time.sleep(0.01)
        assert done.result().folder == folder
    assert said[0].startswith(f"run {folder.name}: process {os.getpid()} on ")


def test_a_full_disk_is_a_failure_that_names_the_file(manifest: Path, tmp_path: Path) -> None:
    config = small(manifest, training=SMALL.model_copy(update={"cache": "none", "epochs": 1}))
    with pytest.raises(RunFailedError) as caught, files_up_to(50_000):
        train(config, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(caught.value).startswith(f"run {folder.name}: {folder}/resume.safetensors: ")
    assert not list(folder.iterdir())
    assert train(config, tmp_path / "runs").trained


def test_a_batch_that_does_not_fit_is_a_failure_with_its_size(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Trainer, batch: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "loss", never)
    with pytest.raises(
        RunFailedError, match=r"out of memory \(batch_size 8, input_size 32\); lower one of them"
    ):
        train(small(manifest), tmp_path)


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
