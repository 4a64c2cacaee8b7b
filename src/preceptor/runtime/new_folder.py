"""New folders that are filled in their place, and removed if they stay unfinished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from preceptor.errors import InputError
from preceptor.runtime.file_lock import locked_if_free

MARK = ".unfinished"
"""File in a folder that is not finished."""


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Context that fills a new or empty folder in its place, and removes it if the block raises.

    For contents with paths of their own, or that other processes use in the meantime; everything
    else is written by `replacing`. The contents that a killed process has left are removed at the
    next start: such a folder contains `MARK`, whose lock is free.

    Args:
        folder: Folder; parents are created.

    Raises:
        InputError: The folder has other contents, or another process fills it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "new"
        >>> with new_folder(folder):
        ...     _ = (folder / "a.txt").write_text("whole")
        >>> [one.name for one in folder.iterdir()]
        ['a.txt']
    """
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: it is a file; name a new folder")
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise InputError(f"{folder}: it is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    is_new = _created(mark)
    with locked_if_free(mark) as is_free:
        if not is_free and not is_new:  # a file system may have no locks
            raise InputError(
                f"{folder}: another process writes it, or has left it unfinished; wait until it "
                "has ended, or name a new folder"
            )
        try:
            for left in folder.iterdir():
                if left != mark:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    mark.unlink()


def _created(file: Path) -> bool:
    """Create a file; False if it is there."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
