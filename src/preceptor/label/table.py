"""Rows of a manifest that are to be marked; pandas is imported, torch is not."""

# ruff: noqa: PTH118

from __future__ import annotations

import os

import pandas as pd

from preceptor.data.checks import REQUIRED, check_cells, check_columns
from preceptor.data.locations.location import is_local, not_plain
from preceptor.data.table import Findings, read_table
from preceptor.label.sources import Row, Source


def checked_table(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """Table of a manifest as `Manifest` has it, and the paths of its images in a database.

    Files are not looked for.

    Raises:
        ProblemsError: The manifest is invalid; lists all problems.
    """
    findings = Findings(str(source.place))
    raw = read_table(source.place, findings)
    check_columns([str(column) for column in raw.frame.columns], REQUIRED[:2], findings)
    findings.raise_if_any()
    if not len(raw.frame):
        findings.add(None, "there are no rows", "add one row per image")
        findings.raise_if_any()
    table = check_cells(raw, source.root, findings, (), None)
    remote: set[int] = set()
    for column in ("path", "saliency"):
        cells = table[column].tolist()
        remote |= {at for at in not_plain(cells) if not is_local(cells[at])}
    if remote:
        example = min(remote)
        what = (
            f"{table['name'].iloc[example]!r} or its map is no local file, as of {len(remote):,} "
            "rows in all"
        )
        findings.add(raw.rows[example], what, "copy the files to a folder and write their paths")
        findings.raise_if_any()
    prefix = os.path.join(source.root, "")
    paths = [path.removeprefix(prefix) for path in table["path"]]
    first: dict[str, int] = {}
    for at, path in enumerate(paths):
        if path in first:
            what = f"image {path!r} is listed already in row {raw.rows[first[path]]}"
            findings.add(raw.rows[at], what, "remove one of the two")
        else:
            first[path] = at
    findings.raise_if_any()
    return table.reset_index(drop=True), paths


def table_rows(source: Source) -> list[Row]:
    """Rows of a manifest. An image may be missing, but not all of them: then the paths are wrong.

    Raises:
        ProblemsError: The manifest is invalid; lists all problems.
    """
    table, paths = checked_table(source)
    if not any(map(os.path.exists, table["path"])):
        findings = Findings(str(source.place))
        what = f"none of its {len(paths):,} images exists; the first one is {paths[0]!r}"
        findings.add(None, what, f"correct the paths, which start from {source.root}")
        findings.raise_if_any()
    columns = (table[name].tolist() for name in ("label", "split", "source", "saliency"))
    return [
        Row(path, label, split, origin, saliency, bool(annotated))
        for path, label, split, origin, saliency, annotated in zip(
            paths, *columns, table["annotated"].tolist(), strict=True
        )
    ]
