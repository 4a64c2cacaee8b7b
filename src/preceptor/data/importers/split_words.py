"""Splits as the names of files and folders state them."""

from __future__ import annotations

import re
from pathlib import PurePath

_WORD = re.compile(
    r"(?:^|[^a-z])(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[^a-z]|$)"
)


def split_in(path: PurePath) -> str:
    """Split that occurs as a word in the name of a file, or is the name of its folder; or "".

    Example:
        >>> split_in(PurePath("instances_val2017.json")), split_in(PurePath("valid/_a.json"))
        ('val', 'val')
        >>> split_in(PurePath("my test/all.json"))
        ''
    """
    found = {split_of(word) for match in _WORD.findall(path.stem.lower()) for word in match if word}
    return found.pop() if len(found) == 1 else split_of(path.parent.name)


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
