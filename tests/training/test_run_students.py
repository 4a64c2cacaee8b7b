"""Students: what they learn from a Teacher's maps, trust, soft labels and a changing α."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preceptor.config.maps import MapSource, PostProcessing, SoftLabels
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.annotate import annotate
from preceptor.maps.committee import mean_store
from preceptor.maps.store import read_store, write_store
from preceptor.models.model_folder import load_model
from preceptor.runtime.checksums import file_digest
from preceptor.training.run import train
from tests.training.small_runs import SMALL, numbers, small


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
        )
    write_store(folder / "both", mean_store([read_store(folder / f"{seed}") for seed in (0, 1)]))
    return folder / "both"


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


def test_soft_labels_resume_with_the_same_bits(
    manifest: Path, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preceptor.training import loop as module

    config = small(
        manifest,
        alpha=0.6,
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


def test_a_student_may_look_through_another_kind_than_its_teacher(
    manifest: Path, marked: Path, tmp_path: Path
) -> None:
    source = MapSource(kind="store", path=marked, identity="teacher")
    training = SMALL.model_copy(update={"input_size": 64})
    config = small(manifest, backbone="test_vit", backbone_args={}, maps=source, training=training)
    result = train(config, tmp_path)
    assert result.record.guided_images == 24
    assert result.record.grid == (4, 4)
