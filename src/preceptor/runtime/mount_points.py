"""Mount points, which cannot be renamed or replaced."""

from __future__ import annotations

import os
import re
from pathlib import Path

from preceptor.errors import InputError

# Mounts of this process, of Linux: a line each, whose fifth word is the mount point.
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def check_no_mount_point(folder: Path) -> None:
    """Check that a folder that will be replaced is no mount point, such as a volume of a container.

    Args:
        folder: Folder; it need not exist.

    Raises:
        InputError: It is a mount point.
    """
    if folder.is_dir() and _is_mount_point(folder):
        raise InputError(
            f"{folder} is a mount point, which cannot be replaced; name a new folder in it, such "
            f"as {folder / 'result'}"
        )


def _is_mount_point(folder: Path) -> bool:
    if folder.is_symlink():
        return False
    if folder.is_mount():
        return True
    # A folder that is mounted from the same device as its parent is not told by its number.
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:  # another system
        return False
    places = (line.split(b" ", 5)[4] for line in lines)
    place = os.fsencode(folder.resolve())
    return any(place == _ESCAPED.sub(_character, one) for one in places)


def _character(escaped: re.Match[bytes]) -> bytes:
    return bytes([int(escaped[1], 8)])
