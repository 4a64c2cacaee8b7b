"""Folders that all workers of a test run share: the first that asks makes them."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")
_FOLDER = "PRECEPTOR_TEST_FOLDER"


@contextmanager
def shared_folder(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Context with a folder for `made_once`, which the workers of a run share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folder of a worker is in that of the run
        base = base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_FOLDER, str(base))
        yield


def made_once(name: str, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Make a folder in the first worker that asks; the others wait for it, and none changes it."""
    base = Path(os.environ[_FOLDER])
    folder, kept = base / name, base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            made = make(folder)
            kept.write_bytes(pickle.dumps(made))
            return folder, made
        found: Made = pickle.loads(kept.read_bytes())
        return folder, found
