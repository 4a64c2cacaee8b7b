"""Command `preceptor runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli.options import RunState
from preceptor.errors import InputError


def runs(
    folder: Annotated[Path, typer.Argument(help="Study folder or store.")],
    role: Annotated[
        str | None, typer.Option(help="Only this role, such as student or baseline1.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Only this backbone.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    state: Annotated[
        RunState | None, typer.Option(help="Only trainings in this state.", show_default=False)
    ] = None,
) -> None:
    """List the trainings of a study or a store.

    The table has the role, state, epoch and validation AUC of each training.
    """
    from preceptor.cli.runs_output import list_runs, print_runs

    found = list_runs(folder)
    if role is not None:
        if not any(one.roles for one in found):
            raise InputError(f"{folder}: a store has no roles; name a study folder")
        found = [one for one in found if role in one.roles]
    for name, value in (("backbone", backbone), ("seed", seed)):
        if value is not None:
            found = [one for one in found if getattr(one, name) == value]
    if state is not None:
        found = [one for one in found if one.state == state]
    print_runs(found)
