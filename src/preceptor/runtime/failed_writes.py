"""Errors of files that cannot be written, with their paths."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from preceptor.errors import reason


@contextlib.contextmanager
def tensors_to(path: Path) -> Iterator[None]:
    """Context in which safetensors writes a file.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be written, for example on a full disk.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, reason(error), str(path)) from error


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Context in which an error of a file that names none names a path.

    Args:
        path: What is written.

    Raises:
        OSError: The file cannot be written, for example on a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def failed_write(error: OSError, path: Path) -> str:
    """Path and reason of an error.

    Args:
        error: Error of a file.
        path: What was written, if the error names no file.

    Example:
        >>> failed_write(OSError(28, "No space left on device"), Path("runs"))
        'runs: No space left on device'
    """
    return f"{error.filename or path}: {error.strerror or reason(error)}"
