"""Walk through the folders below a folder."""

# os.path and not Path: a million folders are looked at.
# ruff: noqa: PTH114, PTH116, PTH118

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_OF_SYSTEM = "lost+found"  # at the top of a disk, and for the administrator alone


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The same as `os.walk`, which would pass over a folder that cannot be read without a word.

    Hidden folders are left out. Links to folders are followed, and no folder comes twice: a link
    to a folder that is reached without it is left out, and so is one that leads back.

    Args:
        folder: Folder.

    Yields:
        A folder, names of its folders, which may be changed, and names of its files.

    Raises:
        OSError: A folder cannot be read.
    """
    links = _Links(folder)
    for base, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = sorted(one for one in folders if _is_shown(one) and links.follows(base, one))
        yield base, folders, names


class _Links:
    """Folders that were reached, where links can lead to one again.

    Folders that no link leads to are not compared: not all file systems number them.
    """

    def __init__(self, folder: str) -> None:
        self._root = Path(os.path.realpath(folder))
        self._seen = {_identity(folder)}
        self._linked: set[str] = set()  # folders that were reached by a link

    def follows(self, base: str, name: str) -> bool:
        """Whether a folder is walked through."""
        path = os.path.join(base, name)
        is_link = os.path.islink(path)
        identity = _identity(path)
        if is_link or base in self._linked:
            if identity in self._seen or (
                is_link and self._is_reached(Path(os.path.realpath(path)))
            ):
                return False
            self._linked.add(path)
        self._seen.add(identity)
        return True

    def _is_reached(self, target: Path) -> bool:
        """Whether the goal of a link is a folder that is reached without it."""
        inside = target.relative_to(self._root).parts if target.is_relative_to(self._root) else None
        return inside is not None and all(map(_is_shown, inside))


def _is_shown(name: str) -> bool:
    return name[0] != "." and name != _OF_SYSTEM


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _raise(error: OSError) -> None:
    raise error
