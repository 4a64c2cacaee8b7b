"""MLflow tracker: one experiment per study, with one run per training nested under a study run.

The logged values are queried once, when the experiment is opened, so that each point of a curve is
logged once, also for trainings that an earlier process left unfinished.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from preceptor.report.write import WrittenReport
from preceptor.results.tables import CSV_FILES, read_table
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step
from preceptor.tracking.curves import Curves, kept_epoch, read_curves
from preceptor.tracking.mlflow_runs import (
    LoggedRun,
    RunLog,
    as_params,
    key_of,
    milliseconds,
)
from preceptor.tracking.parameters import flat, parameters, roles_of
from preceptor.training.record import RunRecord
from preceptor.utils.results import digest

# isort: split
# After mlflow_runs, which sets the environment of MLflow.
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

# Logging between epochs pauses for this many times the duration of the last logging, so that it
# takes at most a twentieth of the time with any server. The end of a training is always logged.
REST = 20.0

STUDY = "study"
_RUN, _CURVES, _ROLES = "preceptor.run", "preceptor.curves", "preceptor.roles"
_PARENT, _NOTE, _FAILED = "mlflow.parentRunId", "mlflow.note.content", "preceptor.failed"
_COUNTS = ("best_epoch", "seconds", "images_seen", "training_images", "guided_images")
_NO_REASON = {_NOTE: "", _FAILED: ""}


class MlflowTracker:
    """Tracker that logs a study to MLflow.

    Args:
        study: Plan of the study.
        out: Study folder.
        uri: URI of a server or a database; None = MLFLOW_TRACKING_URI, or `out/mlflow.db`.
        tell: Function that receives a message with the address.
    """

    def __init__(
        self, study: StudyPlan, out: Path, uri: str | None, tell: Callable[[str], None]
    ) -> None:
        self._study, self._out = study, out.absolute()
        own = f"sqlite:///{(self._out / 'mlflow.db').as_posix()}"
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        for name in ("alembic", "mlflow", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=uri)
        self._log = RunLog(self._client)
        self._experiment = self._opened(uri)
        self._touched: set[str] = set()
        self._rest = 0.0
        self._runs = self._known()
        self._parent = self._study_run()
        where = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri == own else _shown(uri)
        tell(f"to look: {where}")

    def begun(self, step: Step) -> None:
        """Log the parameters of a training, with status running."""
        if step.kind == "train":
            self._running(step)

    def epoch(self, step: Step) -> None:
        """Log new points of the curves, unless the last logging was too recent."""
        started = time.monotonic()
        if step.kind == "train" and started >= self._rest:
            self._running(step)
            self._log_curves(step, read_curves(self._study.folder(step)), whole=False)
            now = time.monotonic()
            self._rest = now + REST * (now - started)

    def finished(self, step: Step) -> None:
        """Log the complete curves, the metrics of the selected epoch, and the roles of the run."""
        if step.kind != "train":
            return
        folder = self._study.folder(step)
        curves = read_curves(folder)
        tags = {_CURVES: curves.digest(len(curves.rows)), _ROLES: roles_of(step, self._study)}
        run = self._runs.get(step.id)
        ended = run is not None and run.status == "FINISHED"
        if run is not None and ended and run.tags.get(_CURVES) == tags[_CURVES]:
            self._log.log(run, tags=tags)
            return
        record = RunRecord.read(folder)
        end = (folder / "run.json").stat().st_mtime
        if run is None:
            self._create(step, end - record.seconds)
        elif ended:  # the run was computed again
            self._replaced(step)
        else:
            self._log.log(run, params=as_params(parameters(step, self._study)))
        run = self._log_curves(step, curves, whole=True)
        tags |= {"preceptor.device": record.device} | _NO_REASON
        self._log.log(run, metrics=_kept(record), tags=tags, step=record.best_epoch)
        self._log.end(run, "FINISHED", end)
        run.points = None  # not kept in memory for a thousand runs

    def failed(self, step: Step, reason: str) -> None:
        """Log the available curves and the reason of the failure."""
        if step.kind != "train":
            return
        run = self._log_curves(step, read_curves(self._study.folder(step)), whole=False)
        self._log.log(run, tags={_NOTE: reason, _FAILED: reason})
        self._log.end(run, "FAILED")
        run.points = None

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
        """Log the tables as metrics, and the files of the study folder as artifacts."""
        run = self._parent
        table, summary = self._out / "table.csv", self._out / "summary.md"
        if table.is_file():
            self._log.log(run, metrics=_table(read_table(table, CSV_FILES[table.name])))
        lines = [f"- {one.title}: {one.reason}" for one in failed.values()]
        text = summary.read_text(encoding="utf-8") if summary.is_file() else ""
        self._log.log(run, tags={_NOTE: text, _FAILED: "\n".join(lines)})
        for name in [*report.files, "report.html"]:
            path = report.folder / name
            if not path.is_dir():
                self._client.log_artifact(run.id, str(path))
            elif name != "best/":  # a model is large and is in the study folder already
                self._client.log_artifacts(run.id, str(path), name.rstrip("/"))
        self._log.end(run, "FAILED" if failed else "FINISHED")

    def close(self) -> None:
        """Mark running trainings as interrupted."""
        for run in [*(self._runs[key] for key in self._touched), self._parent]:
            if run.status == "RUNNING":
                self._log.end(run, "KILLED")

    # Opening.

    def _opened(self, uri: str) -> str:
        """Id of the study's experiment, which is created if necessary."""
        name = f"{self._out.name} {digest(str(self._out))[:8]}"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            served = uri.startswith(("http:", "https:", "databricks", "uc:"))
            place = None if served else (self._out / "mlflow-artifacts").as_uri()
            kind = {
                "mlflow.experimentKind": "custom_model_development"
            }  # no artifacts of language models
            made: str = self._client.create_experiment(name, artifact_location=place, tags=kind)
            return made
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        identity: str = found.experiment_id
        return identity

    def _known(self) -> dict[str, LoggedRun]:
        """Runs logged by earlier calls, by run id of preceptor."""
        found: dict[str, LoggedRun] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            runs = [LoggedRun.of(run) for run in page]
            found |= {run.tags[_RUN]: run for run in runs if _RUN in run.tags}
            token = page.token
            if not token:
                return found

    def _study_run(self) -> LoggedRun:
        """Parent run of all other runs.

        Parameters cannot be changed in MLflow; a study with changed settings gets a new run.
        """
        settings = as_params(flat(self._study.config.model_dump(mode="json")))
        run = self._runs.pop(STUDY, None)
        if run is not None and run.params != settings:
            self._client.delete_run(run.id)
            run = None
        if run is None:
            tags = {_RUN: STUDY}
            made = self._client.create_run(self._experiment, run_name=STUDY, tags=tags)
            run = LoggedRun(made.info.run_id, tags=tags, points={})
            self._log.log(run, params=settings)
            for child in self._runs.values():
                self._log.log(child, tags={_PARENT: run.id})
        self._resume(run)
        return run

    # Trainings.

    def _resume(self, run: LoggedRun) -> None:
        if self._log.resume(run):
            self._log.log(run, tags=_NO_REASON)

    def _running(self, step: Step) -> LoggedRun:
        run = self._runs.get(step.id) or self._create(step)
        if run.status == "FINISHED":  # it was damaged and is computed again
            run = self._replaced(step)
        if step.id not in self._touched:  # may be missing if an earlier process died
            self._log.log(run, params=as_params(parameters(step, self._study)))
        self._touched.add(step.id)
        self._resume(run)
        return run

    def _create(self, step: Step, since: float | None = None) -> LoggedRun:
        since = since or time.time()
        tags = {_RUN: step.id, _PARENT: self._parent.id, _ROLES: roles_of(step, self._study)}
        made = self._client.create_run(
            self._experiment, run_name=step.name, tags=tags, start_time=milliseconds(since)
        )
        run = self._runs[step.id] = LoggedRun(made.info.run_id, tags=tags, points={}, since=since)
        self._log.log(run, params=as_params(parameters(step, self._study)))
        return run

    def _replaced(self, step: Step) -> LoggedRun:
        self._client.delete_run(self._runs[step.id].id)
        return self._create(step)

    def _log_curves(self, step: Step, curves: Curves, *, whole: bool) -> LoggedRun:
        """Log missing points of the curves; a run with other values is replaced.

        Args:
            step: Training step.
            curves: Curves of its run folder.
            whole: Whether the curves are complete; a run with more points is then replaced too.
        """
        run = self._runs.get(step.id) or self._create(step)
        points = {
            (key_of(name), epoch): value
            for epoch, row in curves.rows
            for name, value in row.items()
        }
        if run.points is None:
            names = [
                name
                for name in sorted(run.metrics)
                if not name.startswith("kept/") and name not in _COUNTS
            ]
            run.points = self._log.points(run, names)
        known = run.points
        other = any(points.get(key, value) != value for key, value in known.items())
        if other or (whole and known.keys() - points.keys()):
            run = self._replaced(step)
            known = {}
        fresh = {key: value for key, value in points.items() if key not in known}
        self._log.add_points(run, fresh)
        run.points = known | fresh
        return run


def _kept(record: RunRecord) -> dict[str, float]:
    """Metrics of the selected epoch, and the training time."""
    found = {key_of(name): value for name, value in kept_epoch(record).items()}
    return found | {name: float(getattr(record, name)) for name in _COUNTS}


def _table(table: pd.DataFrame) -> dict[str, float]:
    """Mean and std of the AUC over seeds for every row of the tables, on whole sets."""
    found = {}
    for line in table[table["source"] == ""].to_dict("records"):
        where = [line[name] for name in ("domain", "set", "backbone", "key") if name in line]
        for name in ("mean", "std"):
            if line[name] == line[name]:
                found[key_of("/".join(map(str, [*where, f"auc_{name}"])))] = float(line[name])
    return found


def _shown(uri: str) -> str:
    """URI without its password.

    Example:
        >>> _shown("https://me:secret@host/path"), _shown("sqlite:///x.db")
        ('https://host/path', 'sqlite:///x.db')
    """
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
