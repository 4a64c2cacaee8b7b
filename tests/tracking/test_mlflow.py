"""MLflow's runs of a real study, read back from SQLite by MLflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step
from preceptor.tracking.mlflow import MlflowTracker
from tests.tracking.conftest import Followed

from mlflow.entities import Run  # isort: skip  (telemetry is off by now)
from mlflow.tracking import MlflowClient  # isort: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: each study is an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'own.db'}"


@pytest.fixture(autouse=True)
def _uri(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)


def opened(followed: Followed) -> MlflowTracker:
    return MlflowTracker(followed.plan, followed.out, None, lambda line: None)


def client() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs_of(followed: Followed) -> Iterator[Run]:
    (experiment,) = (
        one
        for one in client().search_experiments()
        if str(followed.out) in (one.artifact_location or "").replace("%20", " ")
    )
    yield from client().search_runs([experiment.experiment_id])


def run_of(followed: Followed, identity: str) -> Run:
    (run,) = (run for run in runs_of(followed) if run.data.tags["preceptor.run"] == identity)
    return run


def same_curves(followed: Followed, step: Step) -> None:
    """Each point of metrics.csv is there once, and no other."""
    run = run_of(followed, step.id)
    table = pd.read_csv(followed.curves(step))
    for name in table.columns.drop("epoch"):
        rows = table[["epoch", name]].dropna()
        history = client().get_metric_history(run.info.run_id, name)
        found = sorted((one.step, one.value) for one in history)
        assert found == list(rows.itertuples(index=False, name=None)), name


def test_a_training_from_its_first_epoch_to_its_last(followed: Followed) -> None:
    tracker = opened(followed)
    step = followed.trainings[-1]
    tracker.begun(step)
    run = run_of(followed, step.id)
    assert run.info.status == "RUNNING"
    assert step.config is not None
    assert run.data.params["alpha"] == str(step.config.alpha)
    assert run.data.params["maps.kind"] == step.config.maps.kind
    assert run.data.params["training.epochs"] == "4"
    assert run.data.params["role"] in step.title
    assert not {"training.lr", "manifest"} & set(run.data.params)
    assert run.data.tags["mlflow.parentRunId"] == run_of(followed, "study").info.run_id
    followed.train(step, 2)
    tracker.epoch(step)
    same_curves(followed, step)
    followed.train(step)
    tracker.finished(step)
    same_curves(followed, step)
    run = run_of(followed, step.id)
    assert run.info.status == "FINISHED"
    table = pd.read_csv(followed.curves(step)).set_index("epoch")
    kept = table.loc[run.data.metrics["best_epoch"]]
    assert run.data.metrics["kept/val_auc"] == pytest.approx(kept["val_auc"], rel=1e-5)
    assert run.data.metrics["seconds"] > 0


def test_again_nothing_is_logged(followed: Followed) -> None:
    def all_of() -> list[str]:
        tracker = opened(followed)
        for step in followed.trainings:
            followed.train(step)
            tracker.finished(step)
        tracker.study({}, followed.report)
        tracker.close()
        return sorted(str(run.data.to_dictionary()) + run.info.run_id for run in runs_of(followed))

    first = all_of()
    assert len(first) == len(followed.trainings) + 1
    assert first == all_of()
    for step in followed.trainings:
        same_curves(followed, step)
    run = run_of(followed, "study")
    for name in run.data.metrics:
        assert len(client().get_metric_history(run.info.run_id, name)) == 1


def test_a_killed_study_goes_on(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step, 2)
    tracker = opened(followed)
    tracker.begun(step)
    tracker.epoch(step)
    before = run_of(followed, step.id).info.run_id
    followed.curves(step).unlink()
    tracker = opened(followed)
    tracker.epoch(step)
    followed.train(step, 3)
    tracker.failed(step, "its worker died twice")
    same_curves(followed, step)
    tracker = opened(followed)
    tracker.begun(step)
    tracker.epoch(step)
    same_curves(followed, step)
    tracker.close()  # this one was interrupted, and could tell
    assert run_of(followed, step.id).info.status == "KILLED"
    assert run_of(followed, "study").info.status == "KILLED"
    followed.train(step)
    tracker = opened(followed)
    assert run_of(followed, "study").info.status == "RUNNING"
    tracker.finished(step)
    same_curves(followed, step)
    assert run_of(followed, step.id).info.run_id == before


def test_one_that_failed_and_is_tried_again(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step, 2)
    tracker = opened(followed)
    tracker.failed(step, "the loss is nan in epoch 3")
    run = run_of(followed, step.id)
    assert run.info.status == "FAILED"
    assert run.data.tags["preceptor.failed"] == "the loss is nan in epoch 3"
    same_curves(followed, step)
    followed.train(step)
    tracker = opened(followed)
    tracker.begun(step)
    tracker.finished(step)
    again = run_of(followed, step.id)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert not again.data.tags["preceptor.failed"]
    same_curves(followed, step)


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_of_other_values_is_replaced(followed: Followed, ended: bool) -> None:
    one, other = followed.trainings[:2]
    followed.train(one)
    if ended:
        opened(followed).finished(one)
    else:
        opened(followed).epoch(one)
    before = run_of(followed, one.id).info.run_id
    shutil.copy(followed.whole / "runs" / other.id / "metrics.csv", followed.curves(one))
    opened(followed).finished(one)
    same_curves(followed, one)
    assert run_of(followed, one.id).info.run_id != before


def test_long_curves_and_names_that_mlflow_refuses(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step)
    table = pd.DataFrame({"epoch": range(1, 302)})
    for place in range(9):
        table[f"val (day {place})_auc"] = table["epoch"] / 512
    table.to_csv(followed.curves(step), index=False)
    opened(followed).finished(step)
    run = run_of(followed, step.id)
    for place in range(9):
        history = client().get_metric_history(run.info.run_id, f"val _day {place}__auc")
        assert sorted((one.step, one.value) for one in history) == [
            (epoch, epoch / 512) for epoch in range(1, 302)
        ]


def test_the_study(followed: Followed) -> None:
    tracker = opened(followed)
    tracker.study({"an-id": Failure("train", "train student", "no space left")}, followed.report)
    run = run_of(followed, "study")
    assert run.info.status == "FAILED"
    assert run.data.params["seeds"] == "1"
    assert run.data.tags["preceptor.failed"] == "- train student: no space left"
    table = pd.read_csv(followed.out / "table.csv")
    student = table[(table["key"] == "student") & (table["set"] == "test-unseen")]
    whole = student[student["source"].isna()].iloc[0]
    name = "test-unseen/test_byobnet/student/auc_mean"
    assert run.data.metrics[name] == whole["mean"]
    files = {one.path for one in client().list_artifacts(run.info.run_id)}
    assert {"table.csv", "table.md", "report.html", "study.yaml", "figures", "panels"} <= files
    assert "best" not in files
    place = Path(client().download_artifacts(run.info.run_id, "report.html"))
    assert place.read_bytes() == (followed.out / "report.html").read_bytes()
    panels = {one.path for one in client().list_artifacts(run.info.run_id, "panels")}
    assert panels == {"panels/index.csv", *(one.file for one in followed.report.panels)}


def test_a_study_with_other_settings_has_a_new_run_for_them(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step)
    opened(followed).finished(step)
    config = followed.plan.config.model_copy(update={"seeds": 3})
    changed = replace(followed, plan=StudyPlan(config, followed.plan.plans))
    tracker = opened(changed)
    tracker.finished(step)
    run = run_of(changed, "study")
    assert run.data.params["seeds"] == "3"
    assert run_of(changed, step.id).data.tags["mlflow.parentRunId"] == run.info.run_id


def test_an_experiment_that_was_thrown_away_comes_back(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step)
    opened(followed).finished(step)
    client().delete_experiment(run_of(followed, step.id).info.experiment_id)
    opened(followed).finished(step)
    same_curves(followed, step)


def test_in_the_study_folder_without_a_word(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(followed.out.parent)
    lines: list[str] = []
    tracker = MlflowTracker(followed.plan, followed.out, None, lines.append)
    tracker.study({}, followed.report)
    assert capfd.readouterr() == ("", "")
    assert (followed.out / "mlflow.db").is_file()
    assert list((followed.out / "mlflow-artifacts").rglob("report.html"))
    assert not (followed.out.parent / "mlruns").exists()
    assert lines == [f"to look: mlflow ui --backend-store-uri 'sqlite:///{followed.out}/mlflow.db'"]
