"""Groups of images that depend on each other, from a column or from their paths."""

from __future__ import annotations

import re

import pandas as pd

from preceptor.data.importers.shapes import Log
from preceptor.errors import InputError


def groups_of(frame: pd.DataFrame, group_by: str, log: Log) -> pd.Series:
    """Group of each image.

    Args:
        frame: Table with `name` (path of the image from its folder) and the columns of the labels.
        group_by: Name of a column, or regular expression that is looked for in `name`: the group
            is what its first parentheses match, or all that it matches.
        log: Notes the images that it does not fit, and those without a group in the column, which
            would be divided from others of the same subject.

    Raises:
        InputError: It is neither a column nor a regular expression.

    Example:
        >>> frame = pd.DataFrame({"name": ["p1_a.png", "p2_b.png"]})
        >>> groups_of(frame, r"^(p\\d+)_", Log()).tolist()
        ['p1', 'p2']
    """
    if group_by in frame.columns and group_by not in ("path", "label", "split", "saliency"):
        groups = frame[group_by].astype(str)
        for name in frame.loc[groups == "", "name"].astype(str):
            what = f"its cell of the column {group_by!r} is empty (--group-by)"
            log.problem(name, what, "write its group, or one of its own")
        return groups
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(
            f"--group-by {group_by!r}: neither a column of the labels nor a regular expression "
            f"({error}); correct it"
        ) from None
    found = []
    for name in frame["name"].astype(str):
        match = pattern.search(name)
        group = (match[1] if pattern.groups else match[0]) if match else None
        if not group:
            log.problem(name, f"--group-by {group_by!r} does not fit its path", "correct it")
        found.append(group or "")
    return pd.Series(found, index=frame.index, dtype="str")
