"""TensorBoard of a study, which is imported only if it is requested."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.errors import InputError
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step, Train
from preceptor.training.record import RunRecord, flat_metrics
from preceptor.utils.results import write_atomically

Rows = list[dict[str, float]]
Tell = Callable[[str], None]


class Tracker:
    """TensorBoard of a study; one that fails is reported, and not called again."""

    def __init__(self, opened: Callable[[], TensorBoard] | None, tell: Tell) -> None:
        self._tell, self._board = tell, None
        if opened is not None:
            with self._kept():
                self._board = opened()

    def call(self, what: Callable[[TensorBoard], None]) -> None:
        """Call TensorBoard, if it is followed; all its calls are idempotent."""
        if self._board is not None:
            with self._kept():
                what(self._board)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Context in which an error ends the tracking, and not the study."""
        try:
            yield
        except Exception as error:  # any error of the library or of a disk
            self._board = None
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            self._tell(f"TensorBoard is not followed any more, the study goes on: {reason}")


def check_tracker(name: str | None) -> None:
    """Raise an InputError if a tracker is unknown or not installed."""
    if name is not None and name != "tensorboard":
        raise InputError(f"--track {name}: unknown tracker; use tensorboard")
    if name is not None and find_spec("tensorboard") is None:
        raise InputError(
            "--track tensorboard: TensorBoard is not installed; "
            "pip install '.[track]' in the source folder"
        )


def open_tracker(name: str | None, study: StudyPlan, out: Path, tell: Tell) -> Tracker:
    """Open the tracker of a study, if it has one."""
    return Tracker(None if name is None else lambda: TensorBoard(study, out, tell), tell)


class TensorBoard:
    """Writer of event files to `out/tensorboard`: a folder per training and `study`."""

    def __init__(self, study: StudyPlan, out: Path, tell: Tell) -> None:
        self._study, self._out, self._root = study, out, out / "tensorboard"
        self._root.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, tuple[Any, Rows]] = {}  # writers with the written epochs
        tell(f"to look: tensorboard --logdir {shlex.quote(str(self._root))}")

    def epoch(self, step: Step) -> None:
        """Write new points of the curves of a training that begins, resumes or goes on."""
        self._write(step).flush()

    def finished(self, step: Step) -> None:
        """Write the complete curves and the metrics of the selected epoch."""
        folder, done = self._study.folder(step), self._folder(step) / "complete"
        if done.is_file() and done.read_text(encoding="utf-8") == _digest(folder):
            return
        record, writer = RunRecord.read(folder), self._write(step)
        for name, value in _kept(record).items():
            writer.add_scalar(name, value, record.best_epoch)
        writer.file_writer.add_summary(_hparams({})[1])
        self._open.pop(step.id)
        writer.close()
        write_atomically(done, _digest(folder))

    def failed(self, step: Step, reason: str) -> None:
        """Write the available curves and the reason of the failure."""
        writer = self._write(step)
        writer.add_text("failed", reason)
        self._open.pop(step.id)
        writer.close()

    def study(self, failed: dict[str, Failure]) -> None:
        """Write the tables as text."""
        with _writer(self._root / "study") as writer:
            for name in ("summary.md", "study.yaml"):
                if (self._out / name).is_file():
                    text = (self._out / name).read_text(encoding="utf-8")
                    writer.add_text(name, text if name.endswith(".md") else f"```\n{text}\n```")
            if failed:
                writer.add_text("failed", _failures(failed))

    def close(self) -> None:
        """Close the files of interrupted trainings."""
        for writer, _ in self._open.values():
            writer.close()

    def _write(self, step: Step) -> Any:
        """Writer of a training with all its epochs; curves with other values are written again."""
        rows = _curves(self._study.folder(step))
        writer: Any
        writer, done = self._open.pop(step.id, (None, Rows()))
        if writer is None or rows[: len(done)] != done:
            if writer is not None:
                writer.close()
            writer, done = _writer(self._folder(step)), []
            writer.file_writer.add_summary(_hparams(_parameters(step, self._study))[0])
        for row in rows[len(done) :]:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], int(row["epoch"]))
        self._open[step.id] = writer, rows
        return writer

    def _folder(self, step: Step) -> Path:
        name = re.sub(r"[^\w.@=-]+", "-", step.name)[:100].strip("-.")
        return self._root / f"{name}-{step.id[:10]}"


def _writer(folder: Path) -> Any:
    """TensorBoard's writer of an empty folder."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def _hparams(parameters: dict[str, Any]) -> tuple[Any, Any]:
    """Begin and end of a training for TensorBoard's page of parameters."""
    from torch.utils.tensorboard import summary

    hparams: Any = summary.hparams
    _, begin, end = hparams(parameters, {})  # not the columns, which TensorBoard finds itself
    return begin, end


def _curves(folder: Path) -> Rows:
    """Finite values of each epoch of a run folder; empty before the first epoch."""
    file = folder / "metrics.csv"
    rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
    return [{str(k): float(v) for k, v in row.items() if math.isfinite(v)} for row in rows]


def _digest(folder: Path) -> str:
    return hashlib.blake2b((folder / "metrics.csv").read_bytes(), digest_size=10).hexdigest()


def _kept(record: RunRecord) -> dict[str, float]:
    """Validation metrics of the selected epoch."""
    metrics = flat_metrics(record.sets).items()
    return {f"kept/{name}": float(value) for name, value in metrics if math.isfinite(value)}


def _parameters(step: Step, study: StudyPlan) -> dict[str, Any]:
    """Roles and settings of a training by dotted name: varied and all non-default settings."""
    assert isinstance(step.work, Train)
    config = step.work.config
    members = [(plan.domain, m.arm) for plan in study for m in plan.members if m.run == step.id]
    parameters: dict[str, Any] = {
        "role": ", ".join(dict.fromkeys(arm.label for _, arm in members)),
        "teacher": ", ".join(dict.fromkeys(arm.teacher for _, arm in members)),
        "domain": ", ".join(dict.fromkeys(domain for domain, _ in members)),
        "maps.kind": config.maps.kind,
    }
    parameters |= {name: getattr(config, name) for name in ("backbone", "alpha", "seed", "rows")}
    settings = config.model_dump(mode="json", exclude_defaults=True)
    (flat,) = pd.json_normalize(settings, sep=".").to_dict("records")
    parameters |= {str(name): value for name, value in flat.items()}
    files = ("manifest", "maps.path", "maps.identity")  # of this machine
    return {
        name: value if isinstance(value, str | int | float) else str(value)
        for name, value in parameters.items()
        if value not in ("", None) and name not in files
    }


def _failures(failed: Mapping[str, Failure]) -> str:
    return "\n".join(f"- {failure.title}: {failure.reason}" for failure in failed.values())
