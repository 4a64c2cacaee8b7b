"""Settings of the Teacher, and its process beside the server, which does not import torch."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from preceptor.config.files import load_config
from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.settings import Count, Settings, Weights
from preceptor.config.training import Training
from preceptor.errors import InputError
from preceptor.label.db import Connection, connect
from preceptor.utils.process import call_in_child

MARKED, NOTHING = "marked", "nothing"
"""Classes of the mapper: images with marks, and examined images without."""


class TeacherConfig(Settings):
    """Settings of the Teacher of the marking page.

    Args:
        every: Number of new answers after which a new Teacher is trained.
        backbone: Name of a timm backbone.
        weights: Initial weights: hub, none or a .safetensors file.
        backbone_args: Further arguments of the backbone.
        training: Training settings; by default 400 steps of 16 images with AdamW, and a one-cycle
            schedule up to a learning rate of 0.001.
        seed: Random seed.
    """

    every: Count = 20
    backbone: str = "resnet18"
    weights: Weights = "hub"
    backbone_args: Mapping[str, Any] = {}
    training: Training = Training(
        length="steps",
        epochs=4,
        steps=400,
        batch_size=16,
        optimizer="adamw",
        lr=1e-3,
        schedule="one_cycle",
        checkpoint="last",
    )
    seed: Annotated[int, Field(ge=0)] = 0

    def run(self, manifest: Path) -> RunConfig:
        """Config of the training of the mapper."""
        return RunConfig(
            manifest=manifest,
            backbone=self.backbone,
            weights=self.weights,
            backbone_args=self.backbone_args,
            positive=MARKED,
            rows="annotated",
            labels="marks",
            alpha=0.0,
            maps=MapSource(kind="human"),
            training=self.training.of_mapper(),
            seed=self.seed,
        )


_INTERVAL = 2.0  # seconds between two counts of the answers


def start_teacher(
    database: Path, teacher: str | None, config: Path | None, method: Literal["cells", "cam"]
) -> Callable[[], None]:
    """Start what proposes marks beside a server.

    Args:
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
        every: Number of new answers after which a Teacher is trained.
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
