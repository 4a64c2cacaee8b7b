"""Logs of failed steps, in the folder `failed` of the store."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

from preceptor.errors import PreceptorError
from preceptor.study.steps import Step
from preceptor.utils.files import failed_write


def keep_error(step: Step, store: Path, error: Exception, lines: Iterable[str] = ()) -> str:
    """Write the log of a failed step; returns the reason of the failure, in one line.

    Args:
        step: The step.
        store: Store of the study.
        error: Error that ended the step.
        lines: Lines of progress before the error.
    """
    reason = str(error)
    if isinstance(error, OSError):
        reason = failed_write(error, store if step.kind == "select" else step.folder(store))
    elif not isinstance(error, PreceptorError):  # an unexpected error
        reason = f"{type(error).__name__}: {' '.join(reason.split())[:200]}"
    told = "".join(f"{line}\n" for line in lines)
    traced = "".join(traceback.format_exception(error))
    return _kept(step, store, reason, told + traced)


def keep_reason(step: Step, store: Path, reason: str) -> str:
    """Write the log of a step whose worker could not do so; returns the reason with its path."""
    return _kept(step, store, reason, f"{reason}\n")


def log_of(identity: str, store: Path) -> Path:
    """Log file of a failed step."""
    return store / logged(identity)


def logged(identity: str) -> str:
    """Path of the log file relative to the store."""
    return f"failed/{identity}.log"


def _kept(step: Step, store: Path, reason: str, text: str) -> str:
    """Write a log; returns the reason, with the path of the log if it could be written."""
    log = log_of(step.id, store)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{step.title}\n{text}", encoding="utf-8")
    except OSError:  # the log cannot be written on a full disk either
        return reason
    return f"{reason} (see {logged(step.id)})"
