"""The command `preceptor label teach`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from preceptor.label.teacher_config import TeacherConfig

TeacherOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings of the Teacher (YAML).", show_default=False),
]


def teach(
    database: Annotated[Path, typer.Argument(help="Database of marks (NAME.label.sqlite).")],
    config: TeacherOption = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder of Teachers (default: NAME.teachers).", show_default=False),
    ] = None,
) -> None:
    """Train a Teacher on the marks so far, and store its proposals.

    A server may be running; its page shows the proposals immediately.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.label.auto_teacher import teachers_folder
        from preceptor.label.teach import teach_database
        from preceptor.runtime.freed_memory import keep_freed_memory

    keep_freed_memory()
    teach_database(database, to or teachers_folder(database), _teacher(config))


def _teacher(config: Path | None) -> TeacherConfig:
    from preceptor.config.yaml_file import load_config
    from preceptor.label.teacher_config import TeacherConfig

    return TeacherConfig() if config is None else load_config(config, TeacherConfig)

