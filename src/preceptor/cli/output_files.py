"""Checks of output files."""

from __future__ import annotations

from pathlib import Path

from preceptor.errors import InputError


def check_target(
    option: str, path: Path, *, replace: bool = False, copied: Path | None = None
) -> None:
    """Check that an output can be written, before its content is computed.

    Args:
        option: Name of the option.
        path: File or folder.
        replace: Whether a file that exists is replaced.
        copied: Folder of which the output is a copy; none of its folders can hold it.

    Raises:
        InputError: It cannot be written.
    """
    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: folder {path.parent} does not exist; create it first")
    if copied is not None and copied.resolve() in path.resolve().parents:
        raise InputError(
            f"{option} {path} is inside {copied}, which is copied; choose a place outside"
        )
