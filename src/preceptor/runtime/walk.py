"""Walk through the folders below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

_OF_SYSTEM = "lost+found"  # at the top of a disk, and for the administrator alone


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The same as `os.walk`, which would pass over a folder that cannot be read without a word.

    Hidden folders are left out.

    Args:
        folder: Folder.

    Yields:
        A folder, names of its folders, which may be changed, and names of its files.

    Raises:
        OSError: A folder cannot be read.
    """
    for base, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(one for one in folders if one[0] != "." and one != _OF_SYSTEM)
        yield base, folders, names


def _raise(error: OSError) -> None:
    raise error
