"""Training of Teachers in the background of a server, whenever there are enough new answers."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

from preceptor.label.database import Connection, connect
from preceptor.runtime.child_process import call_in_child

_INTERVAL = 2.0  # seconds between two counts of the answers


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
                    training = multiprocessing.get_context("spawn").Process(
                        target=call_in_child,
                        args=("preceptor.label.teach", "teach_in_child", *self._work),
                    )
                    training.start()
            if training is not None:
                training.terminate()
                training.join()


def count_answers(connection: Connection) -> int:
    """Number of answers that a Teacher can learn from."""
    found = connection.execute(
        "SELECT count(*) FROM answers WHERE state IN ('marked', 'nothing')"
    ).fetchone()[0]
    return int(found)


def answers_before_newest(connection: Connection) -> int:
    """Number of such answers before the newest Teacher was made."""
    found = connection.execute(
        "SELECT count(*) FROM answers WHERE state IN ('marked', 'nothing') "
        "AND at <= (SELECT max(made) FROM teachers)"
    ).fetchone()[0]
    return int(found)
