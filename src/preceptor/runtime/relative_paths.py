"""Paths of files from a folder, which lead to the files where symbolic links are crossed."""

# os.path and not Path: a million paths are written.
# ruff: noqa: PTH100, PTH118

from __future__ import annotations

import os
from pathlib import Path


class RelativePaths:
    """Paths from a folder that the system resolves to the same files.

    `..` after a symbolic link is the parent of the link's target. Where the path of
    `os.path.relpath` would cross a link in this way, the path between the real folders is taken.

    Args:
        folder: Folder that the paths start from.

    Example:
        >>> RelativePaths("/data/tables").of("/data/images/a.png")
        '../images/a.png'
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = os.path.abspath(folder)
        self._near: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Path of a file.

        Args:
            path: Absolute path.

        Raises:
            ValueError: It is on another drive.
        """
        parent, name = os.path.split(path)
        near = self._near.get(parent)
        if near is None:
            near = self._near[parent] = self._to(parent)
        return name if near == os.curdir else os.path.join(near, name)

    def _to(self, folder: str) -> str:
        near, real = os.path.relpath(folder, self._folder), os.path.realpath(folder)
        if os.path.realpath(os.path.join(self._folder, near)) == real:
            return near
        return os.path.relpath(real, os.path.realpath(self._folder))
