"""Command `preceptor report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Study folder.")],
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Replace the tables also if trainings of them are lost or changed."
        ),
    ] = False,
) -> None:
    """Write the report of a study again.

    The report is written from the steps that have finished so far. Of an archive, the tables are
    written again from its scores.
    """
    from preceptor.errors import InputError
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.report.write import write_results
        from preceptor.results.domain import lost_runs, write_archived_tables
        from preceptor.results.record import is_archive
        from preceptor.study_folder import reopen

    if is_archive(folder):
        print(f"wrote {', '.join(write_archived_tables(folder))} in {folder}")
        return
    study = reopen(folder)
    if not partial and (lost := lost_runs(study, folder)):
        raise InputError(
            f"{folder}: its tables have trainings that new tables would not have: {lost}; restore "
            "runs and data, repeat the study, or replace the tables with --partial"
        )
    write_results(study, folder)
    print(f"report {folder / 'report.html'}")
