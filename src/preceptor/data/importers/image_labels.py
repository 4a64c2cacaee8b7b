"""Labels of images: from a table, from the source, or from the classes of the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.data.checks import text
from preceptor.data.importers.image_files import ImageFiles
from preceptor.data.importers.options import ImportOptions
from preceptor.data.table import Findings, read_table

_NAMES = ("path", "label", "split", "source", "group")


@dataclass(frozen=True)
class LabelTable:
    """Table of labels.

    Args:
        rows: Cells of each image, by the path of the image from the folder of images.
        columns: Names of the columns except `path`.
    """

    rows: dict[str, dict[str, str]]
    columns: tuple[str, ...]


def read_labels(path: Path, images: ImageFiles) -> LabelTable:
    """Read a table of labels with the columns `path` and `label` and any others.

    Raises:
        ProblemsError: The table is invalid; lists all problems by row.
    """
    findings = Findings(str(path))
    raw = read_table(path, findings)
    frame = raw.frame
    for name in _NAMES[:2]:
        if name not in frame.columns:
            found = ", ".join(map(str, frame.columns))[:200]
            fix = f"add it; the first row must contain the column names (found: {found})"
            findings.add(None, f"column {name!r} is missing", fix, where="the header")
    findings.raise_if_any()
    cells = pd.DataFrame({str(c): text(frame[c]).str.strip() for c in frame.columns})
    rows: dict[str, dict[str, str]] = {}
    for number, row in zip(raw.rows.tolist(), cells.to_dict("records"), strict=True):
        try:
            found = images.find(str(row["path"]))
        except LookupError as error:
            what, _, fix = str(error).rpartition("; ")
            findings.add(number, what, fix)
            continue
        if not row["label"]:
            findings.add(number, "label is empty", "write the class of the image")
        if found in rows:
            findings.add(number, f"image {found!r} is listed already", "remove one of the two")
        rows[found] = {str(key): str(value) for key, value in row.items() if key != "path"}
    findings.raise_if_any()
    return LabelTable(rows, tuple(c for c in cells.columns if c != "path"))


def label_of(stated: Sequence[str], classes: Sequence[str], options: ImportOptions) -> str:
    """Label of an image that is in no table.

    Args:
        stated: Classes of the whole image in the source.
        classes: Classes of its drawn shapes, in any order.
        options: `positive` and `negative`.

    Raises:
        LookupError: The source states several classes, or it states none and the shapes are of
            several or without a class, so that there is no one label.

    Example:
        >>> label_of([], [], ImportOptions()), label_of([], ["crack"], ImportOptions())
        ('negative', 'crack')
    """
    different = sorted(set(stated) - {""})
    if len(different) > 1:
        raise LookupError(
            f"the source gives it {len(different)} classes ({_shown(different)}); keep one there, "
            "or give --labels"
        )
    if different:
        return different[0]
    different = sorted(set(classes))
    if not different:
        return options.negative
    if "" in different:
        raise LookupError("it has a shape without a class; name the class there, or give --labels")
    if len(different) == 1:
        return different[0] if len(options.positive) < 2 else "positive"
    if options.positive:
        return "positive"
    raise LookupError(
        f"it has shapes of {len(different)} classes ({_shown(different)}), so that it has no one "
        "label; choose --positive CLASS (repeatable), or give --labels"
    )


def _shown(names: Sequence[str]) -> str:
    more = ", …" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
