"""New folders that are filled in their place, and removed if they cannot be finished."""

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
def new_folder(folder: Path, content: str = "") -> Iterator[bool]:
    """Context that fills a new or empty folder in its place, and removes it after an error.

    For contents with paths of their own, or that other processes use in the meantime; everything
    else is written by `replacing`. Contents that an interrupted or killed process has left are kept
    at the next start if they are of the same kind, and removed otherwise: such a folder contains
    `MARK`, whose lock is free.

    Args:
        folder: Folder; parents are created.
        content: Hash of all that the contents depend on; "" = contents are never kept.

    Yields:
        Whether contents of an earlier start are kept, see `clear`.

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
            is_kept = bool(content) and mark.read_text(encoding="utf-8") == content
            if not is_kept:
                clear(folder)
                mark.write_text(content, encoding="utf-8")
            yield is_kept
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:  # an interruption
            if not content:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    mark.unlink()


def clear(folder: Path) -> None:
    """Remove all contents of an unfinished folder."""
    for left in folder.iterdir():
        if left.name != MARK:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _created(file: Path) -> bool:
    """Create a file; False if it is there."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
