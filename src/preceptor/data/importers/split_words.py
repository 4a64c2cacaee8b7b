"""Splits as the names of files and folders state them."""

from __future__ import annotations

import re
from pathlib import PurePath

_WORD = re.compile(
    r"(?:^|[^a-z])(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[^a-z]|$)"
)


def split_in(path: PurePath) -> str:
    """Split that occurs as a word in the name of a file, or is the name of its folder; or "".

    Only for files of a whole split: the name of the file of one image says what is on it.

    Example:
        >>> split_in(PurePath("instances_val2017.json")), split_in(PurePath("valid/_a.json"))
        ('val', 'val')
        >>> split_in(PurePath("my test/all.json"))
        ''
    """
    found = {split_of(word) for match in _WORD.findall(path.stem.lower()) for word in match if word}
    return found.pop() if len(found) == 1 else split_of(path.parent.name)


def split_of_folders(path: PurePath) -> str:
    """Split that a folder of a path names, the nearest one, or "".

    Args:
        path: Path from the folder of the source; its last part is a file.

    Example:
        >>> split_of_folders(PurePath("train/images/test_strip_01.json"))
        'train'
        >>> split_of_folders(PurePath("test_strip_01.json"))
        ''
    """
    return next((split for one in reversed(path.parts[:-1]) if (split := split_of(one))), "")


def split_of(word: str) -> str:
    """Split that a word names, with a number behind it or without, or "".

    Example:
        >>> split_of("Validation"), split_of("train2017"), split_of("images")
        ('val', 'train', '')
    """
    match = _WORD.fullmatch(word.strip().lower().rstrip("0123456789"))
    if match is None:
        return ""
    return "train" if match[1] else "val" if match[2] else "test"
