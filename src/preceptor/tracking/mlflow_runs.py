"""Runs in MLflow: their known state, and requests within MLflow's limits."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from preceptor.tracking.parameters import Value

# Set before MLflow is imported: short timeouts (seconds instead of minutes) for servers that do not
# answer, and no telemetry.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.entities import Run as MlflowRun  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

# MLflow's limits of a request.
MOST_METRICS, MOST_PARAMS = 1000, 100
LONGEST_PARAM, LONGEST_TAG = 6000, 5000

Points = dict[tuple[str, int], float]  # by metric and epoch
T = TypeVar("T")


@dataclass
class LoggedRun:
    """State of a run in MLflow.

    Args:
        id: Id in MLflow.
        status: Status in MLflow.
        params, tags: Logged parameters and tags.
        metrics: Last value of each metric.
        points: Logged points of the curves; None if they were not queried.
        since: Start time in seconds since the epoch.
    """

    id: str
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    points: Points | None = None
    since: float = 0.0

    @classmethod
    def of(cls, run: MlflowRun) -> LoggedRun:
        """State of a run that MLflow returned."""
        info, data = run.info, run.data
        since = (info.start_time or 0) / 1000
        return cls(info.run_id, info.status, data.params, data.tags, data.metrics, since=since)


class RunLog:
    """Log of runs, which sends only new and changed values.

    Args:
        client: Client of the server or the database.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def log(
        self,
        run: LoggedRun,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log new and changed values of a run."""
        now = milliseconds(time.time())
        new_params = {key: one for key, one in (params or {}).items() if key not in run.params}
        new_metrics = {k: v for k, v in (metrics or {}).items() if run.metrics.get(k) != v}
        new_tags = {
            key: value[:LONGEST_TAG]
            for key, value in (tags or {}).items()
            if run.tags.get(key, "") != value[:LONGEST_TAG]
        }
        for part in _parts([Param(*pair) for pair in new_params.items()], MOST_PARAMS):
            self._client.log_batch(run.id, params=part)
        points = [Metric(name, value, now, step) for name, value in new_metrics.items()]
        for some in _parts(points, MOST_METRICS):
            self._client.log_batch(run.id, metrics=some)
        if new_tags:
            self._client.log_batch(run.id, tags=[RunTag(*pair) for pair in new_tags.items()])
        run.params = run.params | new_params
        run.metrics = run.metrics | new_metrics
        run.tags = run.tags | new_tags

    def add_points(self, run: LoggedRun, points: Points) -> None:
        """Log points of curves."""
        now = milliseconds(time.time())
        metrics = [Metric(name, value, now, epoch) for (name, epoch), value in points.items()]
        for part in _parts(metrics, MOST_METRICS):
            self._client.log_batch(run.id, metrics=part)

    def points(self, run: LoggedRun, names: Sequence[str]) -> Points:
        """Logged points of the curves of these names."""
        return {
            (name, metric.step): metric.value
            for name in names
            for metric in self._client.get_metric_history(run.id, name)
        }

    def resume(self, run: LoggedRun) -> bool:
        """Set the status running; returns whether it was another."""
        if run.status == "RUNNING":
            return False
        self._client.update_run(run.id, status="RUNNING")
        run.status = "RUNNING"
        return True

    def end(self, run: LoggedRun, status: str, when: float | None = None) -> None:
        """Set the final status of a run, and the time of its end; None = now."""
        when = max(when or time.time(), run.since)
        self._client.set_terminated(run.id, status, milliseconds(when))
        run.status = status


def key_of(name: str) -> str:
    """Name with the characters that MLflow allows.

    Example:
        >>> key_of("val (day 2)_auc")
        'val _day 2__auc'
    """
    return re.sub(r"[^\w./ :-]", "_", name).strip("/.")[:250]


def as_params(values: Mapping[str, Value]) -> dict[str, str]:
    """Parameters as strings of the length that MLflow allows."""
    return {key_of(name): str(value)[:LONGEST_PARAM] for name, value in values.items()}


def milliseconds(seconds: float) -> int:
    """Time of MLflow, from seconds."""
    return int(seconds * 1000)


def _parts(values: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split a list by the size limit of a request."""
    return [values[start : start + size] for start in range(0, len(values), size)]
