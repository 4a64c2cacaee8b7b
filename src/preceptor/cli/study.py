"""Commands of `preceptor study`; `study FILE` is short for `study run FILE`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli.options import (
    AddressOption,
    Commands,
    EngineOption,
    HangTimeoutOption,
    JobsOption,
    RunByDefault,
    RunsPerGpuOption,
)
from preceptor.errors import InputError
from preceptor.utils.process import bulk_import

if TYPE_CHECKING:
    from preceptor.driver import StudyResult
    from preceptor.study.config import StudyConfig


study = Commands(
    cls=RunByDefault,
    help="Run, plan or watch a study. `study FILE` is short for `study run FILE`.",
    no_args_is_help=True,
)
# A list, so that a missing or a second file gives an error of our own, with a remedy.
StudyFile = Annotated[
    list[Path] | None,
    typer.Argument(help="Study file (YAML), required.", metavar="FILE", show_default=False),
]


@study.command()
def run(
    file: StudyFile = None,
    out: Path | None = None,
    jobs: JobsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    runs_per_gpu: RunsPerGpuOption = None,
    hang_timeout: HangTimeoutOption = 30.0,
    track: list[str] | None = None,
    track_uri: str | None = None,
) -> None:
    """Run a study.

    The same command resumes an interrupted study.

    Args:
        out: Study folder, required.
        track: Tracker: tensorboard or mlflow. Repeatable.
        track_uri: URI of the MLflow server (default: a database in the study folder).
    """
    path = _the_file(file, "run")
    if out is None:
        raise InputError("study run: --out is missing; add --out FOLDER, the study folder")
    settings = _read(path)
    from preceptor.execution.process import import_early

    if engine == "local" and not Path("/dev/nvidia0").exists():  # workers on GPUs are not forked
        import_early(settings.training.threads)
    with bulk_import():
        from rich.console import Console

        from preceptor.cli.output import live
        from preceptor.driver import run_study

    console = Console()
    show = partial(live, console=console) if console.is_terminal else None
    result = run_study(
        settings,
        out,
        jobs=jobs,
        engine=engine,
        address=address,
        runs_per_gpu=runs_per_gpu,
        hang_timeout=hang_timeout,
        track=track or (),
        track_uri=track_uri,
        tell=partial(print, flush=True),
        show=show,
    )
    finish(result)


@study.command()
def init(
    manifest: Annotated[Path | None, typer.Argument()] = None,
    to: Path = Path("study.yaml"),
    backbone: str = "resnet50",
    weights: str = "hub",
    size: int = 224,
    positive: str | None = None,
) -> None:
    """Write a commented study file.

    The file includes a time estimate measured on this machine.

    Args:
        manifest: CSV or Parquet table of images, required.
        to: Output file.
        backbone: Backbone of Teacher and Student.
        weights: Initial weights: hub, none or a .safetensors file.
        size: Side of the model's input, in pixels.
        positive: Positive class (default: of two classes the only one of the training images that
            has maps, else the rarer one; of more classes none).
    """
    if manifest is None:
        raise InputError(
            "study init: the manifest is missing; add it, as in `preceptor study init x.csv`"
        )
    with bulk_import():
        from preceptor.cli.study_file import write_study_file

    time, chosen = write_study_file(
        manifest, to, backbone=backbone, weights=weights, size=size, positive=positive
    )
    print(f"wrote {to}; estimated time on this machine: {time}")
    if positive is None and chosen is not None:
        print(f"positive class: {chosen} (choose another with --positive)")
    elif positive is None:
        print(
            "positive class: none, the AUC is the mean one-vs-rest AUC (choose one with --positive)"
        )


@study.command()
def plan(file: StudyFile = None, out: Path | None = None, jobs: JobsOption = None) -> None:
    """Print the steps of a study and their estimated time.

    Args:
        out: Study folder; its finished steps are not counted.
    """
    import tempfile

    settings = _read(_the_file(file, "plan"))
    with bulk_import():
        from preceptor.cli.study_file import print_plan

    with tempfile.TemporaryDirectory() as nothing:  # without --out, nothing is left behind
        print_plan(settings, out or Path(nothing), jobs, print)


@study.command()
def status(folder: Path) -> None:
    """Print the progress of a study.

    Args:
        folder: Study folder.
    """
    from rich.console import Console

    from preceptor.cli.output import print_status
    from preceptor.execution.status import read_status

    print_status(*read_status(folder), Console())


@study.command()
def archive(folder: Path, to: Annotated[Path, typer.Option()]) -> None:
    """Write scores, choices and tables of a study to a small folder.

    It has no weights, maps and images. `preceptor report` makes the tables from it again.

    Args:
        folder: Study folder.
        to: New folder.
    """
    with bulk_import():
        from preceptor.results.domain import archive_study
        from preceptor.study_folder import reopen

    print(f"{archive_study(reopen(folder), folder, to)} runs in {to}")


def finish(result: StudyResult) -> None:
    """Print the summary of a study and the path of its report; exit with 1 if a step failed."""
    summary = result.folder / "summary.md"
    if summary.is_file():
        print(summary.read_text(encoding="utf-8"))
    print(f"report {result.folder / 'report.html'}")
    if result.failed or result.missing:
        for one in result.failed.values():
            print(f"failed: {one.title}: {one.reason}", file=sys.stderr)
        raise typer.Exit(1)


def _the_file(files: list[Path] | None, command: str) -> Path:
    """The one study file of a command."""
    if not files:
        example = "preceptor study study.yaml --out study"
        if command != "run":
            example = f"preceptor study {command} study.yaml"
        raise InputError(f"study {command}: the study file is missing; add it, as in `{example}`")
    if len(files) > 1:
        raise InputError(
            f"study {command} {files[0]} {files[1]}: two files are given; give one study file"
        )
    return files[0]


def _read(file: Path) -> StudyConfig:
    from preceptor.config.files import load_config
    from preceptor.study.config import StudyConfig

    return load_config(file, StudyConfig)
