"""Command `preceptor demo`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import JobsOption
from preceptor.cli.study import finish


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the images and the study.")] = Path(
        "demo-study"
    ),
    jobs: JobsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
) -> None:
    """Run a small study on forged photographs.

    The study has three draws, two controls and no ceiling, and takes a few minutes.
    """
    from preceptor.runtime.process import bulk_import

    with bulk_import():
        from preceptor.cli.demo_study import run_demo

    finish(run_demo(out, jobs=jobs, first=seed, tell=partial(print, flush=True)))
