"""Students: what they learn from a Teacher's maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor.config.maps import MapSource
from preceptor.data.workspace import Workspace
from preceptor.inference.annotate import annotate
from preceptor.models.model_folder import load_model
from preceptor.training.run import train
from preceptor.utils.results import file_digest
from tests.training.small_runs import SMALL, small


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
    """The map store of a Teacher."""
    folder = tmp_path_factory.mktemp("marked")
    workspace = Workspace.open(manifest, folder / "cache")
    teacher = train(small(manifest), folder / "runs", workspace=workspace)
    model = load_model(teacher.folder / "model")
    annotate(model, workspace.manifest, out=folder / "maps", workspace=workspace)
    return folder / "maps"


def test_students_resume_with_the_same_bits(
    manifest: Path, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preceptor.training import loop as module

    config = small(
        manifest,
        alpha=0.6,
        maps=MapSource(kind="store", path=marked, identity="t"),
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
