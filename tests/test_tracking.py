"""Curves, parameters and results of a real study in TensorBoard, read back by it."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

from preceptor.config.files import dump_config
from preceptor.errors import InputError
from preceptor.report.write import WrittenReport, write_results
from preceptor.study.plan import Plan, StudyPlan
from preceptor.study.steps import Failure, Step
from preceptor.tracking import TensorBoard, check_tracker, open_tracker
from tests import forked
from tests.datasets import squares
from tests.studies import study, walk

SPLITS = {"train": 8, "val": 4, "test": 4, "test-unseen": 4}
FAILED = {"an-id": Failure("train", "train student", "no space left")}


@dataclass(frozen=True)
class Followed:
    """Plan of a study in a store of the test's own, its folder, and the store with all runs."""

    plan: StudyPlan
    out: Path
    whole: Path
    report: WrittenReport

    @property
    def trainings(self) -> list[Step]:
        return [step for step in self.plan.first.steps.values() if step.kind == "train"]

    def curves(self, step: Step) -> Path:
        return self.plan.folder(step) / "metrics.csv"

    def train(self, step: Step, epochs: int | None = None) -> None:
        """Leave what a training leaves after some epochs, or (None) when it has ended."""
        there, here = self.whole / "runs" / step.id, self.plan.folder(step)
        shutil.rmtree(here, ignore_errors=True)
        if epochs is None:
            shutil.copytree(there, here)
        else:
            here.mkdir(parents=True)
            lines = (there / "metrics.csv").read_text().splitlines(keepends=True)
            (here / "metrics.csv").write_text("".join(lines[: epochs + 1]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, WrittenReport]:
    """The plan of a study that was run, and its report."""
    folder = tmp_path_factory.mktemp("tracked")
    config = study(
        squares(folder / "data", splits=SPLITS, size=(40, 32)),
        seeds=1,
        training={"input_size": 32, "epochs": 4, "batch_size": 8, "schedule": "constant"},
        controls=("centre",),
        ceiling=False,
    )
    plan = walk(config, folder / "store")
    (folder / "out").mkdir()
    (folder / "out" / "study.yaml").write_text(dump_config(config))
    return plan, write_results(StudyPlan.of(plan), folder / "out", {})


@pytest.fixture
def followed(
    finished: tuple[Plan, WrittenReport],
    tmp_path: Path,
) -> Followed:
    """The study in the test's own folder, none of its runs trained yet."""
    plan, report = finished
    own = replace(plan, protocol=replace(plan.protocol, store=tmp_path / "store"))
    out = tmp_path / "a study"
    shutil.copytree(report.folder, out)
    return Followed(StudyPlan.of(own), out, plan.protocol.store, replace(report, folder=out))


class Board:
    """TensorBoard, and what it reads."""

    def open(self, followed: Followed) -> TensorBoard:
        return TensorBoard(followed.plan, followed.out, lambda line: None)

    def read(self, folder: Path) -> EventAccumulator:
        found = EventAccumulator(str(folder), {"tensors": 0, "images": 0, "scalars": 0})
        found.Reload()
        return found

    def folder(self, followed: Followed, step: Step) -> Path:
        (folder,) = (followed.out / "tensorboard").glob(f"*-{step.id[:10]}")
        return folder

    def curves(self, followed: Followed, step: Step) -> dict[str, list[tuple[int, float]]]:
        found = self.read(self.folder(followed, step))
        names = found.Tags()["scalars"]
        return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in names}

    def plugin(self, followed: Followed, step: Step, tag: str) -> HParamsPluginData:
        found = self.read(self.folder(followed, step))
        return HParamsPluginData.FromString(found.SummaryMetadata(tag).plugin_data.content)


@pytest.fixture
def logger() -> Board:
    return Board()


def same_curves(logger: Board, followed: Followed, step: Step) -> None:
    """Each point of metrics.csv is there once, and no other."""
    found, table = logger.curves(followed, step), pd.read_csv(followed.curves(step))
    for name in table.columns.drop("epoch"):
        rows = table[["epoch", name]].dropna()
        points = found.pop(name, [])
        assert [epoch for epoch, _ in points] == list(rows["epoch"])
        assert [value for _, value in points] == pytest.approx(list(rows[name]), rel=1e-6)
    assert all(name.startswith("kept/") for name in found)


def test_a_training_from_its_first_epoch_to_its_last(followed: Followed, logger: Board) -> None:
    tracker = logger.open(followed)
    step = followed.trainings[-1]
    tracker.epoch(step)
    for epoch in (1, 2, 4):
        followed.train(step, epoch)
        tracker.epoch(step)
        same_curves(logger, followed, step)
    followed.train(step)
    tracker.finished(step)
    same_curves(logger, followed, step)
    ((epoch, value),) = logger.curves(followed, step)["kept/val_auc"]
    table = pd.read_csv(followed.curves(step)).set_index("epoch")
    assert value == pytest.approx(table.loc[epoch, "val_auc"], rel=1e-5)


def test_again_nothing_is_logged(followed: Followed, logger: Board) -> None:
    def logged() -> Any:
        tracker = logger.open(followed)
        for step in followed.trainings:
            followed.train(step)
            tracker.finished(step)
        tracker.close()
        found = [(file, file.stat()) for file in (followed.out / "tensorboard").rglob("*")]
        return {file: (stat.st_mtime_ns, stat.st_size) for file, stat in found}

    assert logged() == logged()
    for step in followed.trainings:
        same_curves(logger, followed, step)


def test_a_killed_study_goes_on(followed: Followed, logger: Board) -> None:
    step = followed.trainings[0]
    followed.train(step, 2)
    logger.open(followed).epoch(step)
    followed.train(step, 3)
    tracker = logger.open(followed)
    tracker.epoch(step)
    same_curves(logger, followed, step)
    tracker.close()  # this one was interrupted, and could tell
    followed.train(step)
    logger.open(followed).finished(step)
    same_curves(logger, followed, step)


def test_curves_of_other_values_are_replaced(followed: Followed, logger: Board) -> None:
    one, other = followed.trainings[:2]
    followed.train(one)
    logger.open(followed).finished(one)
    shutil.copy(followed.whole / "runs" / other.id / "metrics.csv", followed.curves(one))
    logger.open(followed).finished(one)
    same_curves(logger, followed, one)


def test_one_that_failed_and_is_tried_again(followed: Followed, logger: Board) -> None:
    step = followed.trainings[0]
    followed.train(step, 2)
    tracker = logger.open(followed)
    tracker.failed(step, "the loss is nan in epoch 3")
    same_curves(logger, followed, step)

    def reason() -> str:
        found = logger.read(logger.folder(followed, step))
        (tag,) = [name for name in found.Tags()["tensors"] if "failed" in name] or [""]
        return str(make_ndarray(found.Tensors(tag)[0].tensor_proto)[0].decode()) if tag else ""

    assert reason() == "the loss is nan in epoch 3"
    followed.train(step)
    tracker.finished(step)
    same_curves(logger, followed, step)
    assert not reason()


def test_tensorboard_has_parameters_tables_and_panels(followed: Followed) -> None:
    board = Board()
    tracker = board.open(followed)
    for step in followed.trainings:
        followed.train(step)
        tracker.finished(step)
        begin = board.plugin(followed, step, metadata.SESSION_START_INFO_TAG)
        own = begin.session_start_info.hparams
        assert step.config is not None
        assert own["alpha"].number_value == step.config.alpha
        assert own["training.epochs"].number_value == 4
        assert own["maps.kind"].string_value == step.config.maps.kind
        assert own["role"].string_value.split(", ")[0] in step.title
        assert not {"training.lr", "manifest"} & set(own)  # a default, and a file of this machine
        end = board.plugin(followed, step, metadata.SESSION_END_INFO_TAG).session_end_info
        assert end.status == 1  # success
    for _ in range(2):
        tracker.study(FAILED)
    tracker.close()
    found = board.read(followed.out / "tensorboard" / "study")
    texts = {
        tag.removesuffix("/text_summary"): make_ndarray(found.Tensors(tag)[0].tensor_proto)[0]
        for tag in found.Tags()["tensors"]
    }
    assert texts["summary.md"].decode() == (followed.out / "summary.md").read_text()
    assert texts["failed"] == b"- train student: no space left"


def test_what_cannot_be_followed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker("tensorboard")
    with pytest.raises(InputError, match=r"wandb.*use tensorboard"):
        check_tracker("wandb")
    monkeypatch.setattr("preceptor.tracking.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"TensorBoard is not installed; pip install '\.\[track"):
        check_tracker("tensorboard")


def import_anew() -> None:
    """Import the project again, and print which trackers it imports."""
    trackers = ("tensorboard",)
    for name in [*sys.modules]:
        if name.startswith((*trackers, "preceptor", "torch.utils.tensorboard")):
            del sys.modules[name]
    for module in ("preceptor.tracking", "preceptor.driver"):
        importlib.import_module(module)
    print([name for name in trackers if name in sys.modules])


def test_nothing_is_imported_unless_asked_for() -> None:
    done = forked.run(import_anew, [])
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_errors_of_a_tracker_are_told_once(followed: Followed) -> None:
    lines: list[str] = []
    tracker = open_tracker("tensorboard", followed.plan, followed.out, lines.append)
    root: Path = followed.out / "tensorboard"
    shutil.rmtree(root)
    root.write_text("not a folder")
    for step in followed.trainings:
        followed.train(step)
        tracker.call(lambda board, step=step: board.finished(step))  # type: ignore[misc]
    told = [line for line in lines if "not followed any more, the study goes on: " in line]
    assert len(told) == 1
    open_tracker(None, followed.plan, followed.out, lines.append).call(lambda board: board.close())
