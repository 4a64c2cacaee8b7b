"""Command `preceptor report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Study folder.")],
) -> None:
    """Write the report of a study again.

    The report is written from the steps that have finished so far.
    """
    from preceptor.runtime.bulk_import import bulk_import

    with bulk_import():
        from preceptor.report.write import write_results
        from preceptor.study_folder import reopen

    write_results(reopen(folder), folder)
    print(f"report {folder / 'report.html'}")
