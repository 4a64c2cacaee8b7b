"""Walk through the folders below a folder."""

# os.path and not Path: a million folders are looked at.
# ruff: noqa: PTH114, PTH118, PTH206

from __future__ import annotations

import os
from collections.abc import Iterator

_OF_SYSTEM = "lost+found"  # at the top of a disk, and for the administrator alone


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The same as `os.walk`, which would pass over a folder that cannot be read without a word.

    Hidden folders are left out. Links to folders are followed, and no folder comes twice: a link
    to a folder that is reached without it is left out, and so is one that leads back.

    Yields:
        A folder, names of its folders, which may be changed, and names of its files.

    Raises:
        OSError: A folder cannot be read.
    """
    root = os.path.realpath(folder)
    reached = {root}
    linked: set[str] = set()  # folders that were reached by a link
    for base, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        shown = []
        for name in sorted(filter(_is_shown, folders)):
            path = os.path.join(base, name)
            if base in linked or os.path.islink(path):
                real = os.path.realpath(path)
                below = real.removeprefix(os.path.join(root, ""))
                if real in reached or (below != real and all(map(_is_shown, below.split(os.sep)))):
                    continue
                reached.add(real)
                linked.add(path)
            shown.append(name)
        folders[:] = shown
        yield base, folders, names


def _is_shown(name: str) -> bool:
    return name[0] != "." and name != _OF_SYSTEM


def _raise(error: OSError) -> None:
    raise error
