"""Training of Teachers in the background of a server, whenever there are enough new answers."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from preceptor.config.yaml_file import load_config
from preceptor.errors import InputError
from preceptor.label.database import Connection, connect
from preceptor.label.teacher_config import TeacherConfig
from preceptor.runtime.child_process import call_in_child

_INTERVAL = 2.0  # seconds between two counts of the answers


def start_teacher(
    database: Path, teacher: str | None, config: Path | None, method: Literal["cells", "cam"]
) -> Callable[[], None]:
    """Start what proposes marks beside a server.

    Args:
        database: SQLite file.
        teacher: auto, a model folder, or None.
        config: Settings of auto (YAML); None = defaults.
        method: Maps of a model folder, see `teacher.LabelTeacher`.

    Returns:
        Function that ends it.

    Raises:
        InputError: The folder has no model, or the settings are invalid.
    """
    folder = teachers_folder(database)
    if teacher is None:
        return lambda: None
    if teacher != "auto":
        if not (Path(teacher) / "model.json").is_file():
            raise InputError(f"--teacher {teacher}: it has no model; name a model folder, or auto")
        child = start_child("propose_in_child", str(database), str(folder), teacher, method)
        return child.terminate
    every = (TeacherConfig() if config is None else load_config(config, TeacherConfig)).every
    auto = AutoTeacher(database, folder, config, every)
    auto.start()
    return auto.close


def teachers_folder(database: Path) -> Path:
    """Folder of the Teachers of a database, beside it."""
    return database.with_name(f"{database.name.removesuffix('.label.sqlite')}.teachers")


class AutoTeacher:
    """Thread that starts a training process at low priority after every so many answers.

    One Teacher is trained at a time. A training that fails, for instance since there are too few
    marks, is tried again after as many further answers.

    Args:
        database: SQLite file, which the server uses at the same time.
        folder: Folder of the Teachers.
        config: Settings of the Teacher (YAML); None = defaults.
        every: Number of new answers after which a Teacher is trained.
        tell: Function that receives lines of progress.
    """

    def __init__(
        self,
        database: Path,
        folder: Path,
        config: Path | None,
        every: int,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._work = (str(database), str(folder), None if config is None else str(config))
        self._database = database
        self._every = every
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="auto-teacher", daemon=True)

    def start(self) -> None:
        """Begin to count answers."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and a training that runs."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with closing(connect(self._database, readonly=True)) as connection:
            tried = answers_before_newest(connection)
            training: BaseProcess | None = None
            while not self._stop.wait(_INTERVAL):
                if training is not None and not training.is_alive():
                    if training.exitcode:
                        self._tell(f"no new Teacher (exit code {training.exitcode}); see above")
                    training = None
                answers = count_answers(connection)
                if training is None and answers - tried >= self._every:
                    tried = answers
                    training = start_child("teach_in_child", *self._work)
            if training is not None:
                training.terminate()
                training.join()


def start_child(function: str, *arguments: str | None) -> BaseProcess:
    """Start a function of `label.teach` in a process that ends with this one.

    The server itself does not import torch.
    """
    child = multiprocessing.get_context("spawn").Process(
        target=call_in_child, args=("preceptor.label.teach", function, *arguments), daemon=True
    )
    child.start()
    return child


def count_answers(connection: Connection) -> int:
    """Number of answers that a Teacher can learn from."""
    found = connection.execute(
        "SELECT count(*) FROM answers WHERE state IN ('marked', 'nothing')"
    ).fetchone()[0]
    return int(found)


def answers_before_newest(connection: Connection) -> int:
    """Number of such answers that were there before the newest Teacher was trained."""
    found = connection.execute(
        "SELECT count(*) FROM answers WHERE state IN ('marked', 'nothing') "
        "AND event <= (SELECT max(event) FROM teachers)"
    ).fetchone()[0]
    return int(found)
