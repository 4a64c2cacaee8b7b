"""Checks of output files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from preceptor.errors import InputError

MANIFEST_FORMATS = (".csv", ".parquet", ".pq")
"""Suffixes of manifests."""
PARQUET_FORMATS = (".parquet", ".pq")
"""Suffixes of Parquet files."""
PAGE_FORMATS = (".html", ".htm")
"""Suffixes of pages."""
CONFIG_FORMATS = (".yaml", ".yml")
"""Suffixes of study files."""


def check_suffix(option: str, path: Path, formats: Iterable[str]) -> None:
    """Check that the suffix of an output is that of a format, before anything is read.

    Args:
        option: Name of the option.
        path: File.
        formats: Suffixes, with their dots, in lower case.

    Raises:
        InputError: It is not.
    """
    known = tuple(formats)
    if path.suffix.lower() not in known:
        raise InputError(f"{option} {path}: unknown format; name it {', '.join(known)}")


def check_target(
    option: str,
    path: Path,
    *,
    replace: bool = False,
    copied: Path | None = None,
    formats: Iterable[str] | None = None,
) -> None:
    """Check that an output can be written, before its content is computed.

    Args:
        option: Name of the option.
        path: File or folder.
        replace: Whether a file that exists is replaced.
        copied: Folder of which the output is a copy; none of its folders can hold it.
        formats: Suffixes of its formats, see `check_suffix`; None = any.

    Raises:
        InputError: It cannot be written, or its suffix is that of another format.
    """
    if formats is not None:
        check_suffix(option, path, formats)
    if path.is_dir() or (path.exists() and not replace):
        raise InputError(f"{option} {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(
            f"{option} {path}: folder {path.parent} cannot be written; choose another one"
        )
    if copied is not None and copied.resolve() in path.resolve().parents:
        raise InputError(
            f"{option} {path} is inside {copied}, which is copied; choose a place outside"
        )
