"""Commands `preceptor label teach` and `preceptor label simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.options import LabelOrder, Proposals, finite

if TYPE_CHECKING:
    from preceptor.label.annotator_config import AnnotatorConfig
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


def simulate(
    manifest: Annotated[Path, typer.Argument(help="Manifest with human maps.")],
    to: Annotated[Path, typer.Option(help="New folder.")],
    images: Annotated[int, typer.Option(min=1, help="Number of answers.")] = 40,
    people: Annotated[
        str, typer.Option(help="Names of the people, separated by commas.")
    ] = "simulated",
    order: Annotated[LabelOrder, typer.Option(help="Order of the images.")] = "random",
    proposals: Annotated[
        Proposals, typer.Option(help="Time at which a Teacher's proposal is shown.")
    ] = "after",
    least_overlap: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Overlap with people's marks from which a Teacher's proposals are shown; 0 = "
            "always.",
            callback=finite,
        ),
    ] = 0.6,
    teacher: Annotated[
        bool, typer.Option("--teacher/--no-teacher", help="Whether Teachers are trained.")
    ] = True,
    config: TeacherOption = None,
    annotator: Annotated[
        Path | None,
        typer.Option(
            help="Costs and errors of the people (YAML with `costs` and `error`).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
) -> None:
    """Simulate people who mark images, to estimate the time that a Teacher saves.

    They mark the human maps of the manifest, with small errors; their time is computed from assumed
    costs; --annotator sets both. Server, database and Teachers are the same as in real use.
    """
    from preceptor.errors import InputError
    from preceptor.runtime.bulk_import import bulk_import

    if config is not None and not teacher:
        raise InputError("--config and --no-teacher: without Teachers there is nothing to set")
    with bulk_import():
        from preceptor.label.simulate import Simulation, simulate, summary
        from preceptor.runtime.freed_memory import keep_freed_memory

    keep_freed_memory()
    found = simulate(
        manifest,
        to,
        Simulation(
            images,
            tuple(name.strip() for name in people.split(",")),
            order,
            proposals,
            _teacher(config) if teacher else None,
            seed=seed,
            least_overlap=least_overlap,
            annotator=_annotator(annotator),
        ),
    )
    print(summary(found))


def _teacher(config: Path | None) -> TeacherConfig:
    from preceptor.config.yaml_file import load_config
    from preceptor.label.teacher_config import TeacherConfig

    return TeacherConfig() if config is None else load_config(config, TeacherConfig)


def _annotator(config: Path | None) -> AnnotatorConfig:
    from preceptor.config.yaml_file import load_config
    from preceptor.label.annotator_config import AnnotatorConfig

    return AnnotatorConfig() if config is None else load_config(config, AnnotatorConfig)
