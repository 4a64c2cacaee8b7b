"""Trackers of a study: TensorBoard and MLflow, imported only if requested."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from preceptor.errors import InputError, without_secrets
from preceptor.report.write import WrittenReport
from preceptor.study.plan import StudyPlan
from preceptor.study.steps import Failure, Step

NAMES = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}


class Tracker(Protocol):
    """Interface of a tracker; all calls are idempotent."""

    def begun(self, step: Step) -> None:
        """A step starts or resumes."""

    def epoch(self, step: Step) -> None:
        """A training finished an epoch: its metrics.csv has a new row."""

    def finished(self, step: Step) -> None:
        """A step has finished, now or in an earlier call."""

    def failed(self, step: Step, reason: str) -> None:
        """A step failed."""

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
        """The results of the study were written; `failed` as in `write_results`."""

    def close(self) -> None:
        """The study has ended or was interrupted; no call follows."""


class Trackers:
    """Several trackers as one; their errors do not stop the study.

    A tracker that fails is reported and not called again; the next run of the study logs what is
    missing.

    Args:
        tell: Function that receives a message if a tracker fails.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._trackers: dict[str, Tracker] = {}

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def add(self, name: str, opened: Callable[[], Tracker]) -> None:
        """Open a tracker, or report the reason of a failure."""
        with self._kept(name):
            self._trackers[name] = opened()

    def begun(self, step: Step) -> None:
        """A step starts or resumes."""
        self._each(lambda tracker: tracker.begun(step))

    def epoch(self, step: Step) -> None:
        """A training finished an epoch: its metrics.csv has a new row."""
        self._each(lambda tracker: tracker.epoch(step))

    def finished(self, step: Step) -> None:
        """A step has finished, now or in an earlier call."""
        self._each(lambda tracker: tracker.finished(step))

    def failed(self, step: Step, reason: str) -> None:
        """A step failed."""
        self._each(lambda tracker: tracker.failed(step, reason))

    def study(self, failed: dict[str, Failure], report: WrittenReport) -> None:
        """The results of the study were written."""
        self._each(lambda tracker: tracker.study(failed, report))

    def close(self) -> None:
        """The study has ended or was interrupted."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
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
    """Check that trackers can be used.

    Args:
        names: Names of trackers.
        uri: URI of the MLflow server or database.

    Raises:
        InputError: A tracker is unknown or not installed, or a URI is given without MLflow.
    """
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
    names: Sequence[str],
    study: StudyPlan,
    out: Path,
    uri: str | None,
    tell: Callable[[str], None],
) -> Trackers:
    """Open trackers of a study.

    Args:
        names: tensorboard, mlflow, both or none.
        study: Plan of the study.
        out: Study folder, for tensorboard/, or mlflow.db and mlflow-artifacts/.
        uri: URI of the MLflow server or database; None = MLFLOW_TRACKING_URI, or the study folder.
        tell: Function that receives messages with addresses, and on failures of trackers.

    Returns:
        All trackers as one; those that cannot be opened are reported and omitted.

    Raises:
        InputError: Same as in `check_trackers`.
    """
    check_trackers(names, uri)
    found = Trackers(tell)
    if "tensorboard" in names:
        from preceptor.tracking.tensorboard import TensorboardTracker

        found.add("tensorboard", lambda: TensorboardTracker(study, out, tell))
    if "mlflow" in names:
        from preceptor.tracking.mlflow import MlflowTracker

        found.add("mlflow", lambda: MlflowTracker(study, out, uri, tell))
    return found
