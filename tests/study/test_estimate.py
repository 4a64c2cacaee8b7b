"""The time estimate of a study: images through models, at a rate that was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preceptor.config.run import RunConfig
from preceptor.data.workspace import Workspace
from preceptor.models.model_folder import save_model
from preceptor.study import estimate
from preceptor.study.config import Setting
from preceptor.study.estimate import cache_bytes, count_kinds, estimate_seconds, weight_bytes
from preceptor.study.protocol import run_config
from preceptor.study.steps import Arm, Evaluate, JoinMaps, Step, Train
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import build_for, image_formats
from tests.datasets import squares
from tests.studies import plain_step, study


def test_trainings_count_their_validation_and_jobs_share_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []

    def rate(run: RunConfig, classes: list[str]) -> float:
        measured.append(run.backbone)
        return 10.0

    monkeypatch.setattr(estimate, "training_rate", rate)
    config = study(Path("m.csv"))
    assert config.training.epochs == 1
    runs = [
        RunConfig(manifest=Path("m.csv"), backbone=name, training=config.training.of_run())
        for name in ("rate of one", "rate of two")
    ]
    arm = Arm("baseline2", "any", 1.0)
    steps = [
        *(Step(f"t{k}", Train(runs[k % 2], arm), "", cost=100) for k in range(4)),
        Step("e", Evaluate(runs[0], "t0"), "", cost=20),
        Step("a", JoinMaps(()), "", cost=1000),  # without a model
    ]
    # Images: four times 100 and a third of 30, scored before and after the one epoch; and 20.
    for jobs, seconds in ((1, 50.0), (2, 25.0), (0, 50.0)):
        assert estimate_seconds(steps, config, ["a", "b"], 30, jobs) == pytest.approx(seconds)
    assert measured == ["rate of one", "rate of two"]  # once for each kind of training
    # A control that trains the last layer alone has no epoch, and scores the images once.
    dfr = Step("d", Train(runs[0].model_copy(update={"last_layer": "val"}), arm), "", cost=10)
    assert estimate_seconds([dfr], config, ["a", "b"], 30, 1) == pytest.approx(2.0)


def test_disk_space_of_models_and_caches(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 8, "val": 4, "test": 4})
    config = study(manifest, training={"input_size": 32, "epochs": 1, "batch_size": 8})
    backbone = config.students[0]
    run = run_config(config, backbone, 0, Setting(1.0))
    train = Train(run, Arm("baseline2", backbone, 1.0))
    steps = [Step("a", train, ""), Step("b", train, ""), Step("e", Evaluate(run, "a"), "")]
    model = build_for(run, ["marked", "plain"], load_weights=False)
    save_model(model, tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert weight_bytes(steps, ["marked", "plain"]) == pytest.approx(2 * written, rel=0.05)

    workspace = Workspaces.of_study(config, tmp_path / "store")
    workspace.verify([form for _ in config.backbone_names for form in image_formats(run)])
    filled = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*.pixels"))
    other = Workspace(workspace.first.manifest, tmp_path / "another cache")
    assert cache_bytes(config, [other]) == filled
    assert other.manifest.contents is not None
    unread = replace(other.manifest, contents=None)
    assert cache_bytes(config, [Workspace(unread)]) == cache_bytes(config, [other])
    assert cache_bytes(config, [workspace.first]) == 0


def test_kinds_are_counted_in_words() -> None:
    train = Train(RunConfig(manifest=Path("m.csv"), backbone="b"), Arm("baseline2", "b", 1.0))
    steps = [Step(str(k), train, "") for k in range(2)] + [plain_step("one")]
    assert count_kinds(steps) == "2 trainings, 1 map store"


def test_the_images_of_several_manifests_count_once(tmp_path: Path) -> None:
    """Read before or not: those of the draws of a study are the same files."""
    manifest = squares(tmp_path / "data", splits={"train": 8, "val": 4, "test": 4})
    config = study(manifest, training={"input_size": 32, "epochs": 1, "batch_size": 8})
    unread = Workspaces.of_study(config, tmp_path / "store").first
    once = cache_bytes(config, [unread])
    assert once > 0
    assert cache_bytes(config, [unread, unread]) == once
    verified = Workspace.open(manifest, tmp_path / "store", verify=True)
    assert verified.manifest.contents is not None
    assert cache_bytes(config, [verified, verified]) == cache_bytes(config, [verified])
    elsewhere = Workspace(verified.manifest, tmp_path / "another")
    both = cache_bytes(config, [verified, elsewhere])
    assert both == cache_bytes(config, [verified]) + cache_bytes(config, [elsewhere])
