"""TensorBoard's event files of a real study, read by TensorBoard."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

from preceptor.study.steps import Failure, Step
from preceptor.tracking.tensorboard import TensorboardTracker
from tests.tracking.conftest import Followed


def opened(followed: Followed) -> TensorboardTracker:
    return TensorboardTracker(followed.plan, followed.out, lambda line: None)


def folder_of(followed: Followed, step: Step) -> Path:
    (folder,) = (followed.out / "tensorboard").glob(f"*-{step.id[:10]}")
    return folder


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), {"tensors": 0, "images": 0, "scalars": 0})
    found.Reload()
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = read(folder)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def plugin(folder: Path, tag: str) -> HParamsPluginData:
    content = read(folder).SummaryMetadata(tag).plugin_data.content
    return HParamsPluginData.FromString(content)


def same_curves(followed: Followed, step: Step) -> None:
    """Each point of metrics.csv is there once, and no other."""
    folder = folder_of(followed, step)
    assert len(list(folder.glob("events.*"))) == 1
    found = scalars(folder)
    table = pd.read_csv(followed.curves(step))
    for name in table.columns.drop("epoch"):
        rows = table[["epoch", name]].dropna()
        if rows.empty:
            assert name not in found
            continue
        steps, values = zip(*found.pop(name), strict=True)
        assert list(steps) == list(rows["epoch"])
        assert values == pytest.approx(rows[name], rel=1e-6)
    assert all(name.startswith("kept/") for name in found)


def test_a_training_from_its_first_epoch_to_its_last(followed: Followed) -> None:
    tracker = opened(followed)
    for step in followed.trainings:
        tracker.begun(step)
        for epoch in (1, 2, 4):
            followed.train(step, epoch)
            tracker.epoch(step)
            same_curves(followed, step)
        followed.train(step)
        tracker.finished(step)
        same_curves(followed, step)
        folder = folder_of(followed, step)
        start = plugin(folder, metadata.SESSION_START_INFO_TAG).session_start_info.hparams
        assert step.config is not None
        assert start["alpha"].number_value == step.config.alpha
        assert start["seed"].number_value == 0
        assert start["training.epochs"].number_value == 4
        assert start["maps.kind"].string_value == step.config.maps.kind
        assert start["role"].string_value in step.title
        assert "training.lr" not in start  # it is the default
        end = plugin(folder, metadata.SESSION_END_INFO_TAG).session_end_info
        assert end.status == 1  # success
        table = pd.read_csv(followed.curves(step)).set_index("epoch")
        ((epoch, value),) = scalars(folder)["kept/val_auc"]
        assert value == pytest.approx(table.loc[epoch, "val_auc"], rel=1e-6)


def test_again_nothing_is_written(followed: Followed) -> None:
    for step in followed.trainings:
        followed.train(step)

    def files() -> dict[Path, tuple[int, int]]:
        tracker = opened(followed)
        for step in followed.trainings:
            tracker.finished(step)
        found = [(file, file.stat()) for file in (followed.out / "tensorboard").rglob("*")]
        return {file: (stat.st_mtime_ns, stat.st_size) for file, stat in found}

    assert files() == files()


@pytest.mark.parametrize("harm", ["none", "cut", "unknown", "gone"])
def test_a_killed_study_goes_on(followed: Followed, harm: str) -> None:
    step = followed.trainings[-1]
    followed.train(step, 2)
    opened(followed).epoch(step)
    folder = folder_of(followed, step)
    (file,) = folder.glob("events.*")
    before = file.read_bytes()
    if harm == "cut":
        file.write_bytes(before[:-5])
    elif harm == "unknown":
        (folder / "written.json").unlink()
    elif harm == "gone":
        shutil.rmtree(folder)
    followed.train(step, 3)
    opened(followed).epoch(step)
    same_curves(followed, step)
    followed.train(step)
    opened(followed).finished(step)
    same_curves(followed, step)
    if harm == "none":
        assert file.read_bytes().startswith(before)


def test_other_values_take_the_place_of_the_old(followed: Followed) -> None:
    one, other = followed.trainings[:2]
    followed.train(one, 3)
    tracker = opened(followed)
    tracker.epoch(one)
    shutil.copy(followed.whole / "runs" / other.id / "metrics.csv", followed.curves(one))
    tracker.epoch(one)
    same_curves(followed, one)


def test_one_that_failed_and_is_tried_again(followed: Followed) -> None:
    step = followed.trainings[0]
    followed.train(step, 2)
    tracker = opened(followed)
    tracker.begun(step)
    for _ in range(2):
        tracker.failed(step, "the loss is nan in epoch 3")
    same_curves(followed, step)
    folder = folder_of(followed, step)
    assert plugin(folder, metadata.SESSION_END_INFO_TAG).session_end_info.status == 2  # failure
    (text,) = make_ndarray(read(folder).Tensors("failed")[0].tensor_proto)
    assert text == b"the loss is nan in epoch 3"
    followed.train(step)
    opened(followed).finished(step)
    same_curves(followed, step)
    assert plugin(folder, metadata.SESSION_END_INFO_TAG).session_end_info.status == 1
    assert "failed" not in read(folder).Tags()["tensors"]


def test_what_is_no_training_has_no_folder(followed: Followed) -> None:
    tracker = opened(followed)
    for step in followed.plan.first.steps.values():
        if step.kind != "train":
            tracker.begun(step)
            tracker.finished(step)
            tracker.failed(step, "")
    assert not list((followed.out / "tensorboard").iterdir())


def test_the_study(followed: Followed) -> None:
    tracker = opened(followed)
    for step in followed.trainings:
        followed.train(step)
        tracker.finished(step)
    for _ in range(2):
        tracker.study(
            {"an-id": Failure("train", "train student", "no space left")}, followed.report
        )
    tracker.close()
    folder = followed.out / "tensorboard" / "study"
    found = read(folder)
    texts = {
        tag: make_ndarray(found.Tensors(tag)[0].tensor_proto)[0].decode()
        for tag in ("table.md", "summary.md", "study.yaml", "failed")
    }
    assert texts["table.md"] == (followed.out / "table.md").read_text()
    assert texts["failed"] == "- train student: no space left"
    pictures = [tag for tag in found.Tags()["tensors"] if tag.startswith("panels/")]
    assert len(pictures) == (followed.out / "report.html").read_text().count('class="panel"') > 0
    (drawn,) = found.Tensors(pictures[0])
    width, height, png = make_ndarray(drawn.tensor_proto)
    assert Image.open(io.BytesIO(png)).size == (int(width), int(height))
    first = followed.report.panels[0]
    assert f"panels/{first.name}" in pictures
    assert png in [(followed.out / one.file).read_bytes() for one in followed.report.panels]
    columns = plugin(folder, metadata.EXPERIMENT_TAG).experiment
    differs = {one.name: one.differs for one in columns.hparam_infos}
    assert differs["alpha"]
    assert differs["role"]
    assert not differs["backbone"]
    assert columns.metric_infos[0].name.tag == "kept/val_auc"
