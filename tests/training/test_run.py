"""One run: what it leaves, that it resumes bit for bit, and that its id means what it says."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from preceptor.config.maps import MapSource, PostProcessing, SoftLabels
from preceptor.config.run import RunConfig
from preceptor.config.training import Augmentation, OutsideKind, Training
from preceptor.config.yaml_file import dump_config
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, RunFailedError
from preceptor.evaluation.auc import auc
from preceptor.evaluation.scores import fixed_thresholds
from preceptor.evaluation.split_names import kind_of
from preceptor.inference.annotate import annotate
from preceptor.inference.predict import predict
from preceptor.inference.score import score_sets
from preceptor.maps.committee import mean_store
from preceptor.maps.store import read_store, write_store
from preceptor.models.build import build_model
from preceptor.models.model_folder import load_model
from preceptor.runtime import watchdog
from preceptor.runtime.checksums import file_digest
from preceptor.runtime.result_folder import damaged_files, read_record, read_scores
from preceptor.training.prepare import run_id, run_id_of
from preceptor.training.run import RunResult, train
from preceptor.training.schedules import alpha_at
from tests import forked
from tests.datasets import squares
from tests.forked import Forked
from tests.small_files import files_up_to

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


def test_images_seen_are_counted_and_steps_have_full_batches(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 25, "val": 4, "test": 2})
    settings = {"input_size": 32, "batch_size": 20, "length": "steps", "steps": 40, "epochs": 3}
    config = small(manifest, training=Training.model_validate(settings))
    folder = train(config, tmp_path / "runs").folder
    assert read_record(folder)["images_seen"] == 800
    assert pd.read_csv(folder / "metrics.csv")["images"].tolist() == [260, 260, 280]
    by_passes = {"input_size": 32, "batch_size": 20, "epochs": 2}
    config = small(manifest, training=Training.model_validate(by_passes))
    assert read_record(train(config, tmp_path / "runs").folder)["images_seen"] == 50


def test_batches_of_one_image_are_refused_where_a_network_has_batch_norm(
    manifest: Path, tmp_path: Path
) -> None:
    one = SMALL.model_copy(update={"batch_size": 1, "epochs": 1})
    with pytest.raises(InputError, match="batch_size is 1, and the batch norm of test_byobnet"):
        train(small(manifest, training=one), tmp_path / "runs")
    without = {"backbone": "test_vit", "backbone_args": {}}
    sized = one.model_copy(update={"input_size": 64})
    folder = train(small(manifest, training=sized, **without), tmp_path / "runs").folder
    assert read_record(folder)["images_seen"] == 24


class Branched(nn.Module):
    """A network whose head has a branch that is nothing until it is trained."""

    output_fmt = "NCHW"

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.branch, self.fc = nn.Linear(8, 8, bias=False), nn.Linear(8, outputs)
        nn.init.zeros_(self.branch.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        return torch.relu(self.stem(images))  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.fc(features.mean((2, 3)) + self.branch(features.square().mean((2, 3))))
        return out

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc


def test_a_model_whose_maps_went_wrong_in_training_is_not_left(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points = timm.models._registry._model_entrypoints
    monkeypatch.setitem(
        entry_points, "branched", lambda pretrained, num_classes, **_: Branched(num_classes)
    )
    model = build_model("branched", ["plain", "marked"], input_size=32)
    assert model.spec.cam == "cam"  # a matrix of zeros hides until it has learnt
    config = small(manifest, backbone="branched", backbone_args={})
    with pytest.raises(RunFailedError, match=r"after training, the maps.*branched: .*differs from"):
        train(config, tmp_path / "runs")
    assert not list(tmp_path.rglob("run.json"))
    assert not list(tmp_path.rglob("model.json"))


def test_a_run_leaves_what_the_design_says(manifest: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = train(small(manifest), tmp_path / "runs", tell=lines.append)
    files = {file.relative_to(result.folder).as_posix() for file in result.folder.rglob("*.*")}
    assert files == {
        "config.yaml",
        "metrics.csv",
        "scores.parquet",
        "model/model.safetensors",
        "model/model.json",
        "model/checksums.json",
        "log.txt",
        "run.json",
    }
    assert damaged_files(result.folder) == []
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert len(metrics) == 2
    for column in (
        "lr",
        "classification",
        "guidance",
        "grad_logits",
        "grad_map",
        "val_accuracy",
        "val_auc",
        "map_correlation",
        "val_map_correlation",
    ):
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


def test_a_finished_run_is_taken_from_the_store(manifest: Path, tmp_path: Path) -> None:
    config = small(manifest)
    first = train(config, tmp_path)
    before = (first.folder / "run.json").stat().st_mtime_ns
    assert train(config, tmp_path).id == first.id
    assert (first.folder / "run.json").stat().st_mtime_ns == before


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
        arguments = [file, tmp_path / "killed"]
        with Forked(forked.training, arguments, stdout=subprocess.PIPE) as process:
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
        input_size=32,
        epochs=12,
        batch_size=8,
        optimizer="adamw",
        lr=0.003,
        schedule="one_cycle",
        checkpoint="last",
    )
    metrics = pd.read_csv(
        train(small(manifest, training=training, alpha=0.3), tmp_path).folder / "metrics.csv"
    )
    first, last = metrics.iloc[0], metrics.iloc[-1]
    assert last["classification"] < 0.7 * first["classification"]
    assert last["guidance"] < first["guidance"]
    assert last["map_correlation"] > first["map_correlation"] + 0.2


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


def test_thresholds_are_fixed_in_the_precision_in_which_tests_are_scored(
    manifest: Path, tmp_path: Path
) -> None:
    workspace = Workspace.open(manifest, tmp_path / "cache")
    training = SMALL.model_copy(update={"precision": "bf16-mixed", "epochs": 1})
    run = train(small(manifest, training=training), tmp_path / "runs", workspace=workspace)
    model = load_model(run.folder / "model").to(memory_format=torch.channels_last)
    again = score_sets(model, workspace)
    again = again[kind_of(again["split"]) == "val"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_scores(run.folder), again, rtol=0, atol=1e-6)
    assert model.spec.thresholds == fixed_thresholds(read_scores(run.folder), "marked")


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


@pytest.mark.parametrize(
    "values",
    [
        {"rows": "annotated", "annotated": 0.5},
        {"maps": MapSource(kind="none"), "alpha": 1.0},
        {"maps": MapSource(kind="centre")},
        {"guide_classes": ("marked",), "alpha": 0.0},
        {
            "alpha": 1.0,
            "training": {
                "epochs": 1,
                "input_size": 32,
                "batch_size": 8,
                "augmentation": {"outside": "noise", "outside_rate": 1},
            },
        },
        {
            "training": {
                "recipe": "cyborg",
                "cam_source": "head_input",
                "epochs": 1,
                "input_size": 32,
                "batch_size": 8,
            }
        },
        {"training": {"recipe": "paper", "epochs": 1, "input_size": 32, "in_chans": 1}},
        {
            "training": {
                "length": "steps",
                "steps": 5,
                "epochs": 2,
                "input_size": 32,
                "fit": "letterbox",
                "optimizer": "adamw",
                "schedule": "cosine",
                "balanced": True,
                "cache": "none",
                "checkpoint": "best_auc",
                "precision": "bf16-mixed",
                "channels_last": False,
            }
        },
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


def test_two_classes_need_a_positive_one(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="positive"):
        train(small(manifest, positive=None), tmp_path)


def test_ids_mean_what_is_computed(manifest: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(manifest, tmp_path)

    def identity(config: RunConfig, **training: Any) -> str:
        settings = config.training.model_copy(update=training)
        return run_id_of(workspace, config.model_copy(update={"training": settings}))

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


def test_maps_in_input_space_alone_change_what_is_learnt(manifest: Path, tmp_path: Path) -> None:
    """With α = 1, without a guidance term; and nothing where there are no maps."""

    def trained(outside: OutsideKind, store: str = "runs", **values: Any) -> RunResult:
        changes = {"augmentation": Augmentation(outside=outside, outside_rate=1)}
        training = SMALL.model_copy(update=changes | values.pop("training", {}))
        return train(small(manifest, training=training, **values), tmp_path / store)

    plain, masked = trained("none", alpha=1.0), trained("mean", alpha=1.0)
    name = "model/model.safetensors"
    assert file_digest(plain.folder / name) != file_digest(masked.folder / name)
    metrics = pd.read_csv(masked.folder / "metrics.csv")
    assert metrics["guidance"].isna().all()
    assert (metrics["guided"] == 0).all()
    assert masked.record.guided_images == 0
    # A distance that takes masks makes none of maps that no guidance term compares.
    cells = {"distance": "cells", "cam_class": "decision"}
    same = trained("mean", "again", alpha=1.0, training=cells)
    assert same.id == masked.id
    assert file_digest(same.folder / name) == file_digest(masked.folder / name)
    none = trained("mean", maps=MapSource(kind="none"))
    assert none.id == plain.id
    assert not none.trained


def test_ids_of_earlier_versions_are_known() -> None:
    """A word that is added to the config later leaves them as they were."""
    plain = RunConfig(manifest=Path("m.csv"), backbone="test_vit")
    settings = Training(epochs=3, batch_size=8, threads=2)
    other = plain.model_copy(update={"alpha": 1.0, "training": settings})
    assert run_id(plain, "rows", "none") == "7a60ba19bbe1a3349635"
    assert run_id(other, "rows", "none") == "06bfba327803115f14c5"
    several = plain.model_copy(update={"training": Training(devices=2)})
    nodes = plain.model_copy(update={"training": Training(nodes=2)})
    ids = {run_id(config, "rows", "none") for config in (plain, several, nodes)}
    assert len(ids) == 3


def test_a_running_training_can_be_followed(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    monkeypatch.setattr(watchdog, "beat", lambda: beats.append(1))
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


def test_a_changed_image_changes_the_id(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    config = small(manifest)
    before = run_id_of(Workspace.open(manifest, tmp_path / "cache"), config)
    shutil.copy(manifest.parent / "images/train-1.png", manifest.parent / "images/train-3.png")
    assert run_id_of(Workspace.open(manifest, tmp_path / "cache"), config) != before


def test_a_student_learns_from_a_teachers_maps(manifest: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(manifest, tmp_path / "cache")
    teacher = train(small(manifest), tmp_path / "runs", workspace=workspace)
    model = load_model(teacher.folder / "model")
    store = annotate(model, workspace.manifest, out=tmp_path / "maps", workspace=workspace)
    assert store.maps.shape == (24, 4, 4)
    source = MapSource(kind="store", path=tmp_path / "maps", identity="teacher")
    student = train(small(manifest, maps=source), tmp_path / "runs", workspace=workspace)
    assert student.record.guided_images == 24
    shuffled = source.model_copy(update={"shuffle_seed": 0})
    control = train(small(manifest, maps=shuffled), tmp_path / "runs", workspace=workspace)
    assert len({teacher.id, student.id, control.id}) == 3


@pytest.fixture(scope="module")
def marked(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map store of a committee of two Teachers, one of whom looked from eight sides."""
    folder = tmp_path_factory.mktemp("marked")
    workspace = Workspace.open(manifest, folder / "cache")
    for seed in (0, 1):
        teacher = train(small(manifest, seed=seed), folder / "runs", workspace=workspace)
        annotate(
            load_model(teacher.folder / "model"),
            workspace.manifest,
            out=folder / f"{seed}",
            workspace=workspace,
            tta=seed == 1,
        )
    write_store(folder / "both", mean_store([read_store(folder / f"{seed}") for seed in (0, 1)]))
    return folder / "both"


def numbers(config: RunConfig, store: Path) -> pd.DataFrame:
    return pd.read_csv(train(config, store).folder / "metrics.csv")


@pytest.mark.parametrize("trust", ["score", "agreement", "entropy"])
def test_trust_changes_the_run_and_not_the_number_of_images(
    manifest: Path, marked: Path, tmp_path: Path, trust: str
) -> None:
    source = {"kind": "store", "path": marked, "identity": "t"}
    plain = numbers(small(manifest, maps=source), tmp_path)
    trusted = numbers(small(manifest, maps=source | {"trust": trust}), tmp_path)
    assert np.isfinite(trusted["loss"]).all()
    assert (trusted["guided"] <= plain["guided"]).all()
    assert trusted["guidance"][0] != plain["guidance"][0]
    assert trusted["grad_map"][0] > 0


def test_post_processing_changes_what_is_learnt_and_not_what_is_measured(
    manifest: Path, tmp_path: Path
) -> None:
    training = SMALL.model_copy(update={"epochs": 1})
    plain = small(manifest, training=training)
    sharper = small(manifest, training=training, human_post=PostProcessing(blur=0.3, power=3))
    one, other = numbers(plain, tmp_path), numbers(sharper, tmp_path)
    assert one["guidance"][0] != other["guidance"][0]
    # Not trained on, α = 1 tells the two apart by what validation measures: nothing.
    untrained = [
        numbers(config.model_copy(update={"alpha": 1.0}), tmp_path / str(number))
        for number, config in enumerate((plain, sharper))
    ]
    column = "val_map_correlation"
    assert untrained[0][column].equals(untrained[1][column])


def test_a_distilled_run_needs_no_maps(manifest: Path, marked: Path, tmp_path: Path) -> None:
    soft = SoftLabels(path=marked, identity="t", weight=1.0, temperature=2.0)
    bare = small(manifest, alpha=1.0, maps=MapSource(kind="none"))
    config = bare.model_copy(update={"soft_labels": soft})
    result = train(config, tmp_path)
    assert result.record.guided_images == 0
    assert result.record.soft_labelled_images == 24
    assert train(bare, tmp_path).record.soft_labelled_images == 0
    metrics = pd.read_csv(result.folder / "metrics.csv")
    assert np.isfinite(metrics["loss"]).all()
    assert metrics["guidance"].isna().all()
    # Alone, the term is at least T² times the entropy of the softened targets.
    found = read_store(marked).probabilities
    assert found is not None
    softened = np.sqrt(found) / np.sqrt(found).sum(1, keepdims=True)
    floor = 4 * -(softened * np.log(softened)).sum(1).mean()
    assert floor < metrics["classification"][0] < 4 * 4
    with_labels = soft.model_copy(update={"weight": 0.25})
    mixed = numbers(bare.model_copy(update={"soft_labels": with_labels}), tmp_path)
    assert mixed["classification"][0] != metrics["classification"][0]


def test_the_pull_of_soft_labels_is_logged(manifest: Path, marked: Path, tmp_path: Path) -> None:
    """One step of the untrained model: the same logits, another target."""
    one_step = SMALL.model_copy(update={"epochs": 1, "batch_size": 24})
    soft = SoftLabels(path=marked, identity="t", weight=1.0)
    plain, distilled = (
        numbers(small(manifest, alpha=1.0, training=one_step, soft_labels=labels), tmp_path)
        for labels in (None, soft)
    )
    assert distilled["grad_logits"][0] < 0.9 * plain["grad_logits"][0]


def test_images_without_soft_labels_keep_their_own(
    manifest: Path, marked: Path, tmp_path: Path
) -> None:
    store = read_store(marked)
    assert store.probabilities is not None
    few = store.probabilities.copy()
    few[4:] = np.nan
    write_store(tmp_path / "few", replace(store, probabilities=few))
    soft = SoftLabels(path=tmp_path / "few", weight=0.5)
    source = MapSource(kind="store", path=marked, identity="t")
    config = small(manifest, maps=source, soft_labels=soft)
    result = train(config, tmp_path / "runs")
    assert result.record.soft_labelled_images == 4
    assert result.record.guided_images == 24
    assert np.isfinite(pd.read_csv(result.folder / "metrics.csv")["loss"]).all()


def test_soft_labels_that_cannot_teach_are_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"soft_labels: .* is not a folder"):
        train(small(manifest, soft_labels=SoftLabels(path=tmp_path / "none")), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a map store"):
        train(small(manifest, soft_labels=SoftLabels(path=tmp_path / "empty")), tmp_path)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.8), (0.9, 0.1), (0.2, 1.0)])
def test_alpha_moves_from_step_to_step(
    manifest: Path, tmp_path: Path, start: float, end: float
) -> None:
    """l2 pulls with gradient norm 1 a guided image, times 1 − α of its step."""
    metrics = numbers(small(manifest, alpha=end, alpha_start=start), tmp_path)
    total = 6  # 24 images in batches of 8, twice
    alphas = [alpha_at(end, start, step, total) for step in range(total)]
    for epoch in (0, 1):
        pulls = [1 - alpha for alpha in alphas[3 * epoch : 3 * epoch + 3]]
        assert min(pulls) - 1e-6 <= metrics["grad_map"][epoch] <= max(pulls) + 1e-6
    assert (metrics["guided"] == 12).all()
    assert (metrics["grad_map"][0] > metrics["grad_map"][1]) == (end > start)


def test_a_constant_alpha_is_the_same_run_as_none(manifest: Path, tmp_path: Path) -> None:
    one = train(small(manifest, alpha=0.3), tmp_path / "a")
    other = train(small(manifest, alpha=0.3, alpha_start=0.3), tmp_path / "b")
    assert one.id == other.id
    for name in ("model/model.safetensors", "metrics.csv"):
        assert file_digest(one.folder / name) == file_digest(other.folder / name)


def test_alpha_start_and_soft_labels_resume_with_the_same_bits(
    manifest: Path, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preceptor.training import loop as module

    config = small(
        manifest,
        alpha=0.6,
        alpha_start=0.0,
        post=PostProcessing(blur=0.1, power=2),
        maps=MapSource(kind="store", path=marked, identity="t", trust="agreement"),
        soft_labels=SoftLabels(path=marked, identity="t"),
        training=SMALL.model_copy(update={"epochs": 3}),
    )
    undisturbed = train(config, tmp_path / "undisturbed")

    class StoppedError(Exception):
        pass

    def stop(*arguments: Any) -> None:
        save(*arguments)
        if arguments[2].epoch == 1:
            raise StoppedError

    save = module.save_progress
    monkeypatch.setattr(module, "save_progress", stop)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "stopped")
    monkeypatch.setattr(module, "save_progress", save)
    lines: list[str] = []
    resumed = train(config, tmp_path / "stopped", tell=lines.append)
    assert lines[0].startswith("resumed after epoch 1")
    for name in ("model/model.safetensors", "metrics.csv", "scores.parquet"):
        one, other = (file_digest(run.folder / name) for run in (resumed, undisturbed))
        assert one == other, name


# Other saliency than the exact CAM of a softmax head.

KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("test_vit", {}, "gradcam"),
    ("test_vit", {"precision": "bf16-mixed"}, "gradcam"),
    ("test_convnext", {}, "gradcam"),
    ("test_convnext", {"precision": "bf16-mixed", "channels_last": False}, "gradcam"),
    ("test_mambaout", {"cam_class": "predicted", "distance": "mse"}, "gradcam"),
    ("test_resnet", {"cam_source": "cyborg", "cam_class": "predicted"}, "cam"),
    ("test_resnet", {"head": "sigmoid", "in_chans": 1}, "cam"),
    ("test_vit", {"head": "sigmoid", "in_chans": 1}, "gradcam"),
    ("test_convnext", {"head": "sigmoid", "in_chans": 1}, "gradcam"),
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
    for column in (
        "loss",
        "guidance",
        "grad_logits",
        "grad_map",
        "map_correlation",
        "val_map_correlation",
        "val_auc",
    ):
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
    assert store.probabilities is not None
    np.testing.assert_allclose(store.probabilities.sum(1), 1, atol=1e-5)
    turned = annotate(
        model,
        workspace.manifest,
        out=tmp_path / "turned",
        workspace=workspace,
        tta=True,
        cam_class="predicted",
    )
    assert turned.probabilities is not None
    assert (turned.classes == turned.probabilities.argmax(1)).all()
    rows = workspace.rows(workspace.split_rows("val"), model.spec.image_format, model.spec.classes)
    found, bare = predict(model, rows, cams="predicted"), predict(model, rows)
    assert bare.cams is None
    np.testing.assert_allclose(bare.probabilities, found.probabilities, atol=1e-6)
    marked = found.probabilities[:, model.spec.classes.index("marked")]
    close = 0.05 if "precision" in training else 1e-5
    np.testing.assert_allclose(marked, scores["score_marked"], atol=close)


def test_a_run_through_grad_cam_has_the_same_bits_again(manifest: Path, tmp_path: Path) -> None:
    training = SMALL.model_copy(update={"epochs": 1, "input_size": 64})
    config = small(manifest, backbone="test_vit", backbone_args={}, training=training)
    one, other = (train(config, tmp_path / name) for name in "ab")
    for name in ("model/model.safetensors", "metrics.csv"):
        assert file_digest(one.folder / name) == file_digest(other.folder / name)


def test_a_student_may_look_through_another_kind_than_its_teacher(
    manifest: Path, marked: Path, tmp_path: Path
) -> None:
    source = MapSource(kind="store", path=marked, identity="teacher")
    training = SMALL.model_copy(update={"input_size": 64})
    config = small(manifest, backbone="test_vit", backbone_args={}, maps=source, training=training)
    result = train(config, tmp_path)
    assert result.record.guided_images == 24
    assert result.record.grid == (4, 4)


def test_training_leaves_torchs_settings_usable(manifest: Path, tmp_path: Path) -> None:
    train(small(manifest), tmp_path)
    assert torch.get_num_threads() == SMALL.threads
    assert read_record(next(tmp_path.glob("*/run.json")).parent)["device"]
