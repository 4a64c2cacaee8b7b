"""Checks of output files."""

from __future__ import annotations

from pathlib import Path

from preceptor.errors import InputError


def check_target(option: str, path: Path, *, replace: bool = False) -> None:
    """Check that an output file can be written, before its content is computed."""
    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: folder {path.parent} does not exist; create it first")
