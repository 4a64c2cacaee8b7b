"""A study followed in TensorBoard or MLflow; neither is imported unless it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from preceptor.errors import InputError
from preceptor.report.write import WrittenReport
from preceptor.study.steps import Step
from preceptor.study.study_plan import StudyPlan

NAMES = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}


class Tracker(Protocol):
    """What is told of a study as it goes; every call may be repeated and ends the same."""

    def begun(self, step: Step) -> None:
        """A step starts or goes on."""

    def epoch(self, step: Step) -> None:
        """A training has finished an epoch: its metrics.csv has a new row."""

    def finished(self, step: Step) -> None:
        """A step is done, now or by an earlier call."""

    def failed(self, step: Step, reason: str) -> None:
        """A step could not be done."""

    def study(self, failed: dict[str, str], report: WrittenReport) -> None:
        """The study's results have been written; `failed` as in `write_results`."""

    def close(self) -> None:
        """Nothing more will be told: the study has ended, or was interrupted."""


class Trackers:
    """Several trackers as one, none of which can stop a study.

    One that fails is told of and left out from then on; what it missed it gets when the study is
    run again.

    Args:
        tell: Receives a line where a tracker fails.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._trackers: dict[str, Tracker] = {}

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def add(self, name: str, opened: Callable[[], Tracker]) -> None:
        """Open a tracker, or tell why it cannot be."""
        with self._kept(name):
            self._trackers[name] = opened()

    def begun(self, step: Step) -> None:
        """A step starts or goes on."""
        self._each(lambda tracker: tracker.begun(step))

    def epoch(self, step: Step) -> None:
        """A training has finished an epoch: its metrics.csv has a new row."""
        self._each(lambda tracker: tracker.epoch(step))

    def finished(self, step: Step) -> None:
        """A step is done, now or by an earlier call."""
        self._each(lambda tracker: tracker.finished(step))

    def failed(self, step: Step, reason: str) -> None:
        """A step could not be done."""
        self._each(lambda tracker: tracker.failed(step, reason))

    def study(self, failed: dict[str, str], report: WrittenReport) -> None:
        """The study's results have been written."""
        self._each(lambda tracker: tracker.study(failed, report))

    def close(self) -> None:
        """The study has ended, or was interrupted."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._kept(name):
                call(tracker)

    @contextlib.contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Whatever goes wrong in a tracker ends this tracker alone."""
        try:
            yield
        except Exception as error:  # of a library, a server, a disk: any
            self._trackers.pop(name, None)
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            self._tell(f"{NAMES[name]} is not followed any more, the study goes on: {reason}")


def check_trackers(names: Sequence[str], uri: str | None = None) -> None:
    """Refuse what cannot be followed, before anything is done.

    Args:
        names: Of trackers.
        uri: MLflow's server or database.

    Raises:
        InputError: An unknown tracker, one that is not installed, or an address for none.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"--track {name}: there is no such tracker; use {' or '.join(NAMES)}")
        if find_spec(name) is None:
            raise InputError(
                f"--track {name}: {NAMES[name]} is not installed; pip install 'preceptor[track]'"
            )
    if uri is not None and "mlflow" not in names:
        raise InputError(f"--track-uri {uri}: it is for MLflow alone; add --track mlflow")


def open_trackers(
    names: Sequence[str],
    study: StudyPlan,
    out: Path,
    uri: str | None,
    tell: Callable[[str], None],
) -> Trackers:
    """Start to follow a study.

    Args:
        names: tensorboard, mlflow or both; none gives what does nothing.
        study: Its plans.
        out: The study folder, which receives tensorboard/, or mlflow.db and mlflow-artifacts/.
        uri: MLflow's server or database; None = MLFLOW_TRACKING_URI, or the study folder.
        tell: Receives a line on how to look at it, and one where a tracker fails.

    Returns:
        All of them as one; those that cannot be opened now are told of and left out.

    Raises:
        InputError: See `check_trackers`.
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
