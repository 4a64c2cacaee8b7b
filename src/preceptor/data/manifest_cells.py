"""Validation of the cells of a manifest; every problem is noted with row, value and remedy."""

# os.path and not Path: a million paths are joined, and Path.resolve() would follow links.
# ruff: noqa: PTH100, PTH118

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preceptor.data.locations.location import is_url
from preceptor.data.manifest_io import Findings, RawTable
from preceptor.errors import is_control
from preceptor.evaluation.split_names import KNOWN_SPLITS, kind_of, split_hint

REQUIRED = ("path", "label", "split")
OPTIONAL = (
    "saliency",
    "annotated",
    "source",
    "group",
    "map_weight",
    "sample_weight",
    "annotation_seconds",
)
COLUMNS = ("path", "name", "label", "split", *OPTIONAL)

_NOT_PLAIN = (bytes, list, tuple, dict, set, np.ndarray)
_OTHER_NAMES = {
    "path": ("file", "filename", "filepath", "file_path", "image", "image_path", "img"),
    "label": ("class", "category", "target", "y"),
    "split": ("set", "subset", "partition", "fold"),
}
_YES_NO = {"1": True, "true": True, "yes": True, "1.0": True}
_YES_NO |= {"0": False, "false": False, "no": False, "0.0": False}


def check_columns(columns: Sequence[str], required: Sequence[str], findings: Findings) -> None:
    """Check the column names: missing columns, and known names in another case."""
    lower = {name.lower(): name for name in columns if name not in COLUMNS}
    for name in required:
        if name in columns:
            continue
        near = [lower[other] for other in (name, *_OTHER_NAMES.get(name, ())) if other in lower]
        near = near or difflib.get_close_matches(name, [c for c in columns if c not in COLUMNS], 1)
        if near:
            fix = f"rename {near[0]!r} to {name!r}, if that is it"
        else:
            found = ", ".join(columns)
            found = found if len(found) <= 200 else found[:199] + "…"
            add = "make it with `preceptor data split`" if name == "split" else "add it"
            fix = f"{add}; the first row must contain the column names (found: {found})"
        findings.add(None, f"column {name!r} is missing", fix, where="the header")
    for name in OPTIONAL:
        if name not in columns and name in lower:
            what = f"column {lower[name]!r} is not {name!r}"
            findings.add(None, what, f"write {name!r} in small letters", where="the header")


def check_cells(
    raw: RawTable,
    root: Path,
    findings: Findings,
    need: Collection[str],
    classes: Collection[str] | None,
) -> pd.DataFrame:
    """Parse the cells of a manifest and note all problems.

    Args:
        raw: Raw table with the required columns.
        root: Base folder of relative paths.
        findings: Collects the problems.
        need: Required kinds of split; if empty, `split` may be empty as well.
        classes: Allowed labels; None = any.

    Returns:
        Table with all of `COLUMNS`, then the others; valid only if no problem was noted.
    """
    frame, rows = _of_plain_cells(raw, findings), raw.rows
    empty = pd.Series("", index=frame.index, dtype="str")
    table = pd.DataFrame(index=frame.index)
    written = text(frame["path"])
    table["path"] = absolute(written, root)
    table["name"] = text(frame["name"]) if "name" in frame else written
    table["label"] = text(frame["label"]).str.strip()
    table["split"] = text(frame["split"]).str.strip() if "split" in frame else empty
    written_maps = text(frame["saliency"]) if "saliency" in frame else empty
    table["saliency"] = absolute(written_maps, root)
    note(findings, rows, written == "", "path is empty", "write the path of the image")
    _check_annotated(frame, table, rows, findings)
    for column in ("source", "group"):
        table[column] = text(frame[column]).str.strip() if column in frame else empty
    for column in ("map_weight", "sample_weight"):
        table[column] = _weights(frame, column, rows, findings)
    table["annotation_seconds"] = _times(frame, rows, findings)
    for column in ("label", "split", "source", "group"):
        _check_printable(table[column], column, rows, findings)
    if "name" in frame:
        check_names(table["name"], rows, findings)
    _check_labels(table, rows, findings, need, classes)
    _check_splits(table, rows, findings, need)
    _check_groups(table, rows, findings)
    others = [column for column in frame.columns if column not in COLUMNS]
    return pd.concat([table[list(COLUMNS)], frame[others]], axis=1)


def _of_plain_cells(raw: RawTable, findings: Findings) -> pd.DataFrame:
    """Cells without lists, structures and bytes, which are noted as problems."""
    frame = raw.frame
    for column in COLUMNS:
        if column in frame and frame[column].dtype == object:
            kinds = [type(cell) for cell in frame[column]]
            odd = np.array([issubclass(kind, _NOT_PLAIN) for kind in kinds], dtype=bool)
            for index in np.flatnonzero(odd).tolist():
                what = f"{column} is a {kinds[index].__name__}"
                findings.add(raw.rows[index], what, "write text or a number")
            frame = frame.assign(**{column: frame[column].where(~odd, None)})
    return frame


def _check_printable(
    cells: pd.Series, column: str, rows: NDArray[np.int64], findings: Findings
) -> None:
    odd = _has_control(cells)
    if odd.any():
        note(
            findings,
            rows,
            odd,
            lambda i: f"{column} {cells.iloc[i]!r} contains a line break or control character",
            "remove it",
        )


def _has_control(cells: pd.Series) -> NDArray[np.bool_]:
    """(n,) whether a string has one of the characters of `errors.is_control`."""
    try:
        strings = pa.array(cells, pa.large_string())
    except (pa.ArrowInvalid, UnicodeEncodeError):  # surrogates, which UTF-8 does not have
        return np.array([any(map(is_control, str(cell))) for cell in cells], dtype=bool)
    found = pc.match_substring_regex(strings, r"[\p{Cc}\p{Zl}\p{Zp}]")
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def text(column: pd.Series) -> pd.Series:
    """Column as strings, with "" for missing values."""
    if column.isna().any() or isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object).where(column.notna(), "")
    return column.astype("str")


def absolute(names: pd.Series, root: Path) -> pd.Series:
    """Absolute paths of names relative to `root`; `..` is kept, since it may follow a link.

    URLs are kept as written; the container of a member is a path like any other.
    """
    if (urls := _urls(names)) is not None:
        both: pd.Series = pd.concat([names[urls], absolute(names[~urls], root)]).sort_index()
        return both
    start = os.path.abspath(root)
    special = names.str.match(r"$|\.{0,2}[/\\]|[A-Za-z]:")
    if special.all():
        return names.map(lambda name: os.path.join(start, name) if name else "").astype("str")
    joined = (start.rstrip(os.sep) + os.sep) + names
    if special.any():
        joined = pd.concat([joined[~special], absolute(names[special], root)]).sort_index()
    return joined


def _urls(names: pd.Series) -> NDArray[np.bool_] | None:
    """(n,) whether a name is a URL; None if none is."""
    try:
        schemes = pc.match_substring(pa.array(names, pa.large_string()), "://")
        if not pc.any(schemes).as_py():
            return None
    except (pa.ArrowInvalid, UnicodeEncodeError):  # surrogates
        pass
    found = np.fromiter(map(is_url, names), bool, len(names))
    return found if found.any() else None


def note(
    findings: Findings,
    rows: NDArray[np.int64],
    wrong: pd.Series | NDArray[np.bool_],
    what: str | Callable[[int], str],
    fix: str | Callable[[int], str],
) -> None:
    """Note a problem for every row with `wrong` true; texts may be functions of the index."""
    for index in np.flatnonzero(np.asarray(wrong, dtype=bool)).tolist():
        said, advice = (text if isinstance(text, str) else text(index) for text in (what, fix))
        findings.add(rows[index], said, advice)


def _check_annotated(
    frame: pd.DataFrame, table: pd.DataFrame, rows: NDArray[np.int64], findings: Findings
) -> None:
    has_map = table["saliency"] != ""
    table["annotated"] = has_map
    if "annotated" not in frame:
        return
    written = text(frame["annotated"]).str.strip().str.lower()
    known = written.map(_YES_NO)
    given = written != ""
    bad = given & known.isna()
    note(
        findings,
        rows,
        bad,
        lambda i: f"annotated is {written.iloc[i]!r}",
        "write 1, 0 or nothing",
    )
    said_no = given & ~bad & ~known.isin([True])
    note(
        findings,
        rows,
        said_no & has_map,
        "has a map but annotated 0",
        "set annotated to 1 or empty the map",
    )
    table["annotated"] = has_map.where(~given | bad, known.isin([True])).astype(bool)


def _weights(
    frame: pd.DataFrame, column: str, rows: NDArray[np.int64], findings: Findings
) -> pd.Series:
    if column not in frame:
        return pd.Series(1.0, index=frame.index, dtype="float64")
    written = text(frame[column]).str.strip()
    values = pd.to_numeric(written.where(written != "", "1"), errors="coerce").astype("float64")
    low = values < 0 if column == "map_weight" else values <= 0
    bound = "0 or more" if column == "map_weight" else "more than 0"
    note(
        findings,
        rows,
        ~np.isfinite(values.to_numpy()) | low.to_numpy(),
        lambda i: f"{column} is {written.iloc[i]!r}",
        f"write a finite number, {bound} (empty means 1)",
    )
    return values


def _times(frame: pd.DataFrame, rows: NDArray[np.int64], findings: Findings) -> pd.Series:
    """Annotation time of each image in seconds; NaN if unknown."""
    if "annotation_seconds" not in frame:
        return pd.Series(np.nan, index=frame.index, dtype="float64")
    written = text(frame["annotation_seconds"]).str.strip()
    values = pd.to_numeric(written.where(written != "", "nan"), errors="coerce").astype("float64")
    wrong = (written != "") & ~(np.isfinite(values) & (values >= 0))
    note(
        findings,
        rows,
        wrong,
        lambda i: f"annotation_seconds is {written.iloc[i]!r}",
        "write a finite number of seconds, 0 or more (empty means unknown)",
    )
    return values


def check_names(names: pd.Series, rows: NDArray[np.int64], findings: Findings) -> None:
    """Note names of images that are empty or occur again."""
    fix = "write a unique name (it identifies the image in outputs), or rename the column"
    note(findings, rows, names == "", "name is empty", fix)
    again = names.duplicated() & (names != "")
    note(findings, rows, again, lambda i: f"name {names.iloc[i]!r} occurs again", fix)


def _check_labels(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    findings: Findings,
    need: Collection[str],
    classes: Collection[str] | None,
) -> None:
    labels = table["label"]
    note(findings, rows, labels == "", "label is empty", "write the class of the image")
    present = sorted(set(labels.unique()) - {""})
    if classes is not None:
        note(
            findings,
            rows,
            (labels != "") & ~labels.isin(list(classes)),
            lambda i: f"label {labels.iloc[i]!r} is not one of the classes",
            f"write one of {', '.join(map(repr, classes))}",
        )
    if "train" not in need:
        return
    if len(present) == 1:
        what = f"every image has the label {present[0]!r}"
        findings.add(None, what, "add images of a second class")
    trained = set(labels[table["split"] == "train"].unique())
    for label in present if trained else ():
        if label not in trained:
            at = np.flatnonzero((labels == label).to_numpy())
            what = f"label {label!r} ({len(at):,} images) does not occur in the split train"
            findings.add(rows[at[0]], what, "add training images of it, or correct the label")


def _check_splits(
    table: pd.DataFrame, rows: NDArray[np.int64], findings: Findings, need: Collection[str]
) -> None:
    splits, kinds = table["split"], kind_of(table["split"])
    if need:
        note(findings, rows, splits == "", "split is empty", f"write {KNOWN_SPLITS}")
    note(
        findings,
        rows,
        (kinds == "") & (splits != "").to_numpy(),
        lambda i: f"split {splits.iloc[i]!r} is unknown",
        lambda i: split_hint(splits.iloc[i]),
    )
    for kind in need:
        if not (kinds == kind).any():
            fix = f"give some rows the split {kind!r} (`preceptor data split` makes splits)"
            findings.add(None, f"no row has a {kind} split", fix)


def _check_groups(table: pd.DataFrame, rows: NDArray[np.int64], findings: Findings) -> None:
    kinds = pd.Series(kind_of(table["split"]), index=table.index)
    within = (table["group"] != "") & (kinds != "")
    pairs = pd.DataFrame({"group": table["group"], "kind": kinds})[within].drop_duplicates()
    for group, found in pairs[pairs["group"].duplicated(keep=False)].groupby("group", sort=False):
        places = [f"{kind} ({findings.name(int(rows[i]))})" for i, kind in found["kind"].items()]  # type: ignore[call-overload]
        findings.add(
            int(rows[found.index[1]]),
            f"group {group!r} is in {' and in '.join(places)}",
            "assign all images of a group to one kind of split",
        )
