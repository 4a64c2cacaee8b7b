"""Command `preceptor doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the values as JSON.")] = False,
) -> None:
    """Check the installation, and say how to solve its problems.

    The output has versions, devices, the speed of a short training, disk space, optional extras and
    whether the model hub answers. The exit code is 1 if something that training needs is broken.
    """
    from preceptor.utils.process import bulk_import

    with bulk_import():
        from preceptor.cli.doctor_output import as_json, as_text
        from preceptor.cli.inspect_installation import inspect_installation

        found = inspect_installation()
    print(as_json(found) if json else as_text(found))
    if found.broken:
        raise typer.Exit(1)
