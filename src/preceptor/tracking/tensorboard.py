"""TensorBoard tracker: a folder for each training and one for the results of the study.

Event files are opened and closed for each write, so that a thousand trainings keep no files open. A
record next to each event file describes its content: after a kill, new rows are appended, and a
file that does not match its record is written again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from preceptor.report.write import WrittenReport
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step
from preceptor.tracking.curves import Curves, kept_epoch, read_curves
from preceptor.tracking.parameters import Value, file_name, parameters
from preceptor.training.record import Measure, RunRecord, metric_name
from preceptor.utils.results import write_atomically

State = Literal["running", "finished", "failed"]

_KINDS = (
    (bool, api_pb2.DATA_TYPE_BOOL),
    (int | float, api_pb2.DATA_TYPE_FLOAT64),
    (object, api_pb2.DATA_TYPE_STRING),
)

STUDY = "study"
_WRITTEN = "written.json"
_MEASURES: tuple[Measure, ...] = ("auc", "accuracy", "map_correlation")  # order of columns
_TEXTS = ("summary.md", "table.md", "study.yaml")


@dataclass(frozen=True)
class _Written:
    """Content of an event file.

    Args:
        file: File name.
        size: Size in bytes; another size means that a record was truncated.
        epochs: Number of written epochs.
        digest: Hash of these epochs.
        state: State of the training.
    """

    file: str
    size: int
    epochs: int
    digest: str
    state: State


class TensorboardTracker:
    """Tracker that writes event files to `out/tensorboard`.

    Args:
        study: Plan of the study.
        out: Study folder.
        tell: Function that receives a message with the command.
    """

    def __init__(self, study: StudyPlan, out: Path, tell: Callable[[str], None]) -> None:
        self._study, self._out = study, out
        self._root = out / "tensorboard"
        self._root.mkdir(parents=True, exist_ok=True)
        self._folders = {one.name.rpartition("-")[2]: one for one in self._root.iterdir()}
        self._parameters: dict[str, dict[str, Value]] = {}  # by run id
        tell(f"to look: tensorboard --logdir {shlex.quote(str(self._root))}")

    def begun(self, step: Step) -> None:
        """Write the parameters and available curves of a training."""
        self._bring(step, "running")

    def epoch(self, step: Step) -> None:
        """Write new points of the curves."""
        self._bring(step, "running")

    def finished(self, step: Step) -> None:
        """Write the complete curves and the metrics of the selected epoch."""
        self._bring(step, "finished")

    def failed(self, step: Step, reason: str) -> None:
        """Write the available curves and the reason of the failure."""
        self._bring(step, "failed", reason)

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
        """Write the tables as text, the panels as images, and the columns of HPARAMS."""
        folder = self._root / STUDY
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)  # an open page may still read an old file
        _append(_fresh(folder), self._results(failed, report))

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _bring(self, step: Step, state: State, reason: str = "") -> None:
        """Synchronize the folder of a training with its run folder."""
        if step.kind != "train":
            return
        self._parameters.setdefault(step.id, parameters(step, self._study))
        run = self._study.folder(step)
        curves = read_curves(run)
        folder = self._folder(step)
        before = _read(folder)
        goes_on = before is not None and before.digest == curves.digest(before.epochs)
        same = before is not None and before.epochs == len(curves.rows) and before.state == state
        if goes_on and same:
            return
        if before is not None and goes_on and before.state == "running":
            file, done, events = folder / before.file, before.epochs, []
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)  # an open page may still read an old file
            file, done, events = _fresh(folder), 0, _head(self._parameters[step.id])
        events += _points(curves, done)
        if state == "finished":
            events.append(_kept(RunRecord.read(run)))
        if state == "failed":
            events.append(_event(_text("failed", reason)))
        if state != "running":
            events.append(_ended(state))
        _append(file, events)
        epochs = len(curves.rows)
        now = _Written(file.name, file.stat().st_size, epochs, curves.digest(epochs), state)
        write_atomically(folder / _WRITTEN, json.dumps(asdict(now)) + "\n")

    def _folder(self, step: Step) -> Path:
        """Folder of a training, which is the same in every call."""
        key = step.id[:10]
        if key not in self._folders:
            self._folders[key] = self._root / f"{file_name(step)}-{key}"
        return self._folders[key]

    def _results(self, failed: dict[str, Failure], report: WrittenReport) -> Iterator[Event]:
        names = [
            metric_name(one, measure)
            for measure in _MEASURES
            for plan in self._study
            for one in plan.protocol.workspace.manifest.eval_splits("val")
        ]
        yield _event(_columns(list(self._parameters.values()), list(dict.fromkeys(names))))
        for name in _TEXTS:
            file = self._out / name
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                shown = text if name.endswith(".md") else f"```\n{text}\n```"
                yield _event(_text(name, shown))
        if failed:
            lines = [f"- {one.title}: {one.reason}" for one in failed.values()]
            yield _event(_text("failed", "\n".join(lines)))
        for panel in report.panels:
            png = (report.folder / panel.file).read_bytes()
            yield _event(_picture(f"panels/{panel.name}", panel.caption, png))


def _head(values: dict[str, Value]) -> list[Event]:
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = value
    return [_event(_plugin(metadata.SESSION_START_INFO_TAG, session_start_info=start))]


def _columns(runs: list[dict[str, Value]], validation: list[str]) -> Summary.Value:
    """Columns of HPARAMS: parameters that differ first, and validation metrics."""
    found = api_pb2.Experiment(time_created_secs=time.time())
    for name in dict.fromkeys(name for values in runs for name in values):
        values = {one.get(name) for one in runs}
        there = values - {None}
        kind = next(kind for types, kind in _KINDS if all(isinstance(v, types) for v in there))
        info = found.hparam_infos.add(name=name, type=kind, differs=len(values) > 1)
        if kind != api_pb2.DATA_TYPE_FLOAT64:
            info.domain_discrete.extend(sorted(there, key=str))
    for name in (*validation, "epoch", "seconds"):
        found.metric_infos.add(name=api_pb2.MetricName(tag=f"kept/{name}"), display_name=name)
    return _plugin(metadata.EXPERIMENT_TAG, experiment=found)


def _kept(record: RunRecord) -> Event:
    """Metrics of the selected epoch, which HPARAMS shows."""
    values = kept_epoch(record)
    epoch = record.best_epoch
    values |= {"kept/epoch": epoch, "kept/seconds": record.seconds}
    return _event(*(_scalar(name, value) for name, value in values.items()), step=epoch)


def _points(curves: Curves, done: int) -> list[Event]:
    """One event per epoch for epochs that were not written yet."""
    return [
        _event(*(_scalar(name, value) for name, value in row.items()), step=epoch)
        for epoch, row in curves.rows[done:]
    ]


def _ended(state: State) -> Event:
    status = api_pb2.STATUS_SUCCESS if state == "finished" else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _event(_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end))


def _scalar(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=value)


def _text(tag: str, text: str) -> Summary.Value:
    about = text_metadata.create_summary_metadata(display_name=tag, description="")
    return Summary.Value(tag=tag, tensor=_strings(text.encode()), metadata=about)


def _picture(tag: str, caption: str, png: bytes) -> Summary.Value:
    width, height = struct.unpack(">II", png[16:24])
    about = image_metadata.create_summary_metadata(display_name=tag, description=caption)
    tensor = _strings(str(width).encode(), str(height).encode(), png)
    return Summary.Value(tag=tag, tensor=tensor, metadata=about)


def _strings(*values: bytes) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=DT_STRING, string_val=values, tensor_shape=shape)


def _plugin(tag: str, **content: Any) -> Summary.Value:
    data = plugin_data_pb2.HParamsPluginData(
        version=metadata.PLUGIN_DATA_VERSION, **content
    ).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    about = SummaryMetadata(plugin_data=plugin)
    return Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)


def _event(*values: Summary.Value, step: int = 0) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _fresh(folder: Path) -> Path:
    """New event file with a name that was not used before."""
    now = time.time()
    file = folder / f"events.out.tfevents.{int(now)}.preceptor.{time.time_ns() % 10**9}"
    _append(file, [Event(wall_time=now, file_version="brain.Event:2")])
    return file


def _append(file: Path, events: Iterable[Event]) -> None:
    with file.open("ab") as raw:
        writer = RecordWriter(raw)
        for event in events:
            writer.write(event.SerializeToString())


def _read(folder: Path) -> _Written | None:
    """Record of the content of a folder, if it is valid."""
    try:
        written = _Written(**json.loads((folder / _WRITTEN).read_text(encoding="utf-8")))
        whole = (folder / written.file).stat().st_size == written.size
    except (OSError, ValueError, TypeError):
        return None
    return written if whole else None
