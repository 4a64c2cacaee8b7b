"""Trackers of a study, TensorBoard and MLflow, which are imported only if they are requested."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.errors import InputError, without_secrets
from preceptor.report.write import WrittenReport
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step, Train
from preceptor.training.record import RunRecord, flat_metrics
from preceptor.utils.results import digest, write_atomically

NAMES = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}
Rows = list[dict[str, float]]
Tell = Callable[[str], None]


class Trackers:
    """Several trackers as one; a tracker that fails is reported and not called again."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._trackers: dict[str, Tracker] = {}

    def add(self, name: str, opened: Callable[[], Tracker]) -> None:
        """Open a tracker, or report the reason of a failure."""
        with self._kept(name):
            self._trackers[name] = opened()

    def each(self, call: Callable[[Tracker], None]) -> None:
        """Call each tracker; all calls of trackers are idempotent."""
        for name, tracker in list(self._trackers.items()):
            with self._kept(name):
                call(tracker)

    @contextlib.contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Context in which an error of a tracker disables only this tracker."""
        try:
            yield
        except Exception as error:  # any error of a library, a server or a disk
            self._trackers.pop(name, None)
            reason = " ".join(without_secrets(str(error)).split())[:300] or type(error).__name__
            self._tell(f"{NAMES[name]} is not followed any more, the study goes on: {reason}")


def check_trackers(names: Sequence[str], uri: str | None = None) -> None:
    """Raise an InputError if a tracker is unknown or not installed, or a URI has no MLflow."""
    for name in names:
        if name not in NAMES:
            raise InputError(f"--track {name}: unknown tracker; use {' or '.join(NAMES)}")
        if find_spec(name) is None:
            raise InputError(
                f"--track {name}: {NAMES[name]} is not installed; "
                "pip install '.[track]' in the source folder"
            )
    if uri is not None and "mlflow" not in names:
        raise InputError(f"--track-uri {uri}: needs MLflow; add --track mlflow")


def open_trackers(
    names: Sequence[str], study: StudyPlan, out: Path, uri: str | None, tell: Tell
) -> Trackers:
    """Open trackers of a study; one that cannot be opened is reported and omitted."""
    trackers = Trackers(tell)
    if "tensorboard" in names:
        trackers.add("tensorboard", lambda: TensorBoard(study, out, tell))
    if "mlflow" in names:
        trackers.add("mlflow", lambda: MLflow(study, out, uri, tell))
    return trackers


class TensorBoard:
    """Tracker that writes event files to `out/tensorboard`: a folder per training and `study`."""

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

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
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


class MLflow:
    """Tracker that logs one experiment per study, with a run per training under a study run.

    A training that an earlier call left unfinished, or whose curves have changed, is logged again.
    """

    def __init__(self, study: StudyPlan, out: Path, uri: str | None, tell: Tell) -> None:
        for setting in (  # seconds, not minutes, for a server that does not answer; no telemetry
            "MLFLOW_DISABLE_TELEMETRY=true",
            "DO_NOT_TRACK=true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES=1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT=10",
            "GIT_PYTHON_REFRESH=quiet",
        ):
            os.environ.setdefault(*setting.split("="))
        import mlflow

        self._study, self._out = study, out.absolute()
        own = f"sqlite:///{(self._out / 'mlflow.db').as_posix()}"
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        for name in ("alembic", "mlflow", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._mlflow: Any = mlflow
        self._mlflow.set_tracking_uri(uri)
        self._client = self._mlflow.MlflowClient()
        self._experiment = self._opened(uri)
        self._runs: dict[str, tuple[str, str]] = {}  # id and hash of the curves, by run
        for run in self._mlflow.search_runs([self._experiment], output_format="list"):
            tags = run.data.tags
            logged = run.info.run_id, tags.get("preceptor.curves", "")
            self._runs[tags.get("preceptor.run", "")] = logged
        self._open: dict[str, Rows] = {}  # logged epochs of running trainings
        self._rest = 0.0
        self._parent = self._runs.get("study", ("",))[0] or self._create("study", "study", {})
        self._client.update_run(self._parent, "RUNNING")
        where = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri == own else uri
        tell(f"to look: {re.sub('(?<=://)[^/]*@', '', where)}")

    def epoch(self, step: Step) -> None:
        """Log new points of the curves, with pauses of twenty times the time of the last call."""
        started = time.monotonic()
        if step.id not in self._open or started >= self._rest:
            self._log_curves(step)
            now = time.monotonic()
            self._rest = now + 20 * (now - started)

    def finished(self, step: Step) -> None:
        """Log the complete curves and the metrics of the selected epoch."""
        folder = self._study.folder(step)
        if self._runs.get(step.id, ("", ""))[1] == _digest(folder):
            return
        run, record = self._log_curves(step), RunRecord.read(folder)
        counts = ("best_epoch", "seconds", "images_seen", "training_images", "guided_images")
        kept = _kept(record) | {name: float(getattr(record, name)) for name in counts}
        self._log(run, kept, record.best_epoch)
        self._end(step.id, "FINISHED", curves=_digest(folder), device=record.device)

    def failed(self, step: Step, reason: str) -> None:
        """Log the available curves and the reason of the failure."""
        self._log_curves(step)
        self._end(step.id, "FAILED", failed=reason)

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
        """Log the files of the study folder as artifacts."""
        for name in [*report.files, "report.html"]:
            path = report.folder / name
            if not path.is_dir():
                self._client.log_artifact(self._parent, str(path))
            elif name != "best/":  # a model is large and is in the study folder already
                self._client.log_artifacts(self._parent, str(path), name.rstrip("/"))
        self._end("study", "FAILED" if failed else "FINISHED", failed=_failures(failed))

    def close(self) -> None:
        """Mark running trainings as interrupted."""
        for identity in list(self._open):
            self._end(identity, "KILLED")
        if self._client.get_run(self._parent).info.status == "RUNNING":
            self._end("study", "KILLED")

    def _opened(self, uri: str) -> str:
        """Id of the study's experiment, which is created if necessary."""
        name = f"{self._out.name} {digest(str(self._out))[:8]}"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            served = uri.startswith(("http:", "https:", "databricks", "uc:"))
            artifacts = None if served else (self._out / "mlflow-artifacts").as_uri()
            return str(self._client.create_experiment(name, artifacts))
        return str(experiment.experiment_id)

    def _create(self, identity: str, name: str, tags: dict[str, str]) -> str:
        tags = {"preceptor.run": identity} | tags
        run = str(self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)
        self._runs[identity] = run, ""
        return run

    def _log_curves(self, step: Step) -> str:
        """Id of the run of a training, which has all points of its curves so far."""
        rows, done = _curves(self._study.folder(step)), self._open.get(step.id)
        if done is None or rows[: len(done)] != done:
            if step.id in self._runs:
                self._client.delete_run(self._runs[step.id][0])
            run = self._create(step.id, step.name, {"mlflow.parentRunId": self._parent})
            own = {key: str(value)[:6000] for key, value in _parameters(step, self._study).items()}
            self._mlflow.log_params(own, run_id=run)
            done = []
        run = self._runs[step.id][0]
        for row in rows[len(done) :]:
            self._log(run, row, int(row["epoch"]))
        self._open[step.id] = rows
        return run

    def _log(self, run: str, metrics: Mapping[str, float], epoch: int) -> None:
        """Log metrics, with names of the characters that MLflow allows."""
        named = {re.sub(r"[^\w./ :-]", "_", key)[:250]: metrics[key] for key in metrics}
        named.pop("epoch", None)
        self._mlflow.log_metrics(named, epoch, run_id=run)

    def _end(self, identity: str, status: str, **tags: str) -> None:
        run = self._runs[identity][0]
        for name, value in ({"failed": ""} | tags).items():
            self._client.set_tag(run, f"preceptor.{name}", value[:5000])
        self._client.set_terminated(run, status)
        self._open.pop(identity, None)


Tracker = TensorBoard | MLflow


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
