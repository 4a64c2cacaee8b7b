"""Checks of the cells and of the files of a manifest; all problems are noted by row and value."""

# os.path and not Path: a million paths are joined, and Path.resolve() would follow links.
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.examine import examine
from preceptor.data.remote import LocationError, is_url, not_plain, states_of
from preceptor.data.store import FileContents
from preceptor.data.table import Findings, RawTable
from preceptor.errors import is_control, without_secrets
from preceptor.metrics.split_names import KNOWN_SPLITS, kind_of, split_hint
from preceptor.utils.process import core_count
from preceptor.utils.text import Progress

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

_ASPECT_TOLERANCE = 0.02
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
    """Parse the cells of a manifest and note all problems."""
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
    odd = cells.isin([cell for cell in cells.unique() if any(map(is_control, cell))])
    if odd.any():
        note(
            findings,
            rows,
            odd,
            lambda i: f"{column} {cells.iloc[i]!r} contains a line break or control character",
            "remove it",
        )


def text(column: pd.Series) -> pd.Series:
    """Column as strings, with "" for missing values."""
    if column.isna().any() or isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object).where(column.notna(), "")
    return column.astype("str")


def absolute(names: pd.Series, root: Path) -> pd.Series:
    """Absolute paths of names relative to `root`; `..` is kept, since it may follow a link."""
    start = os.path.abspath(root)

    def joined(name: str) -> str:
        return name if not name or is_url(name) else os.path.join(start, name)

    return names.map(joined).astype("str")


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


def check_files(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    root: Path,
    findings: Findings,
    *,
    verify: bool,
    workers: int | None = None,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
    formats: Collection[ImageFormat] = (),
) -> FileContents | None:
    """Note files that are missing, listed twice or, with `verify`, invalid."""
    images, maps = table["path"].tolist(), table["saliency"].tolist()
    prefix = os.path.join(os.path.abspath(root), "")
    threads = workers or core_count()
    image_there, real = _find_files(images, threads)
    map_there, _ = _find_files(maps, threads)
    for what, paths, there in (("image", images, image_there), ("map", maps, map_there)):
        told = _note_unreadable(what, paths, there, rows, prefix, findings)
        _note_missing(what, paths, there, rows, prefix, findings)
        there[told] = False  # they are not read again
    _note_repeated(images, real, rows, prefix, findings)
    if not verify:
        return None
    examined = examine(
        [path if there else "" for path, there in zip(images, image_there, strict=True)],
        [path if there else "" for path, there in zip(maps, map_there, strict=True)],
        cache_dir=cache_dir,
        formats=() if len(findings) else formats,
        workers=workers,
        progress=progress,
    )
    for index, why in examined.wrong_images.items():
        what = f"image {images[index].removeprefix(prefix)!r}: {why}"
        findings.add(rows[index], what, "replace the file or remove the row")
    for index, why in examined.wrong_maps.items():
        what = f"map {maps[index].removeprefix(prefix)!r}: {why}"
        findings.add(rows[index], what, "replace the file or empty the cell")
    for index in _of_other_aspect(examined.map_sizes, examined.image_sizes):
        (w, h), (width, height) = examined.map_sizes[index], examined.image_sizes[index]
        what = f"map {maps[index].removeprefix(prefix)!r} is {w}×{h}, its image {width}×{height}"
        fix = "save the map with the aspect ratio of the image (any size)"
        findings.add(rows[index], what, fix)
    return examined.contents


def _find_files(paths: list[str], threads: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Whether local files exist, and their paths with resolved links; "" for others."""
    exists, real = np.zeros(len(paths), bool), [""] * len(paths)
    inside: dict[str, list[int]] = {}
    apart = set(not_plain(paths))
    for index, path in enumerate(paths):
        if index in apart:
            real[index] = path
        elif path:
            inside.setdefault(os.path.dirname(path), []).append(index)

    def look(folder: str) -> None:
        start = os.path.join(os.path.realpath(folder), "")
        plain: set[str] = set()
        if len(inside[folder]) > 1:
            with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
                plain = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
        for index in inside[folder]:
            path, name = paths[index], os.path.basename(paths[index])
            with contextlib.suppress(ValueError):  # a zero byte in the path
                if name in plain:
                    exists[index], real[index] = True, start + name
                elif os.path.isfile(path):
                    exists[index], real[index] = True, os.path.realpath(path)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(look, inside))
    return exists, real


def _note_unreadable(
    what: str,
    paths: list[str],
    there: NDArray[np.bool_],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> list[int]:
    """Note remote files and members that cannot be read, a damaged tar file once."""
    which = not_plain(paths)
    there[which] = True
    told: dict[tuple[str, str], list[int]] = {}
    for at, state in zip(which, states_of([paths[at] for at in which]), strict=True):
        if isinstance(state, OSError):
            container = state.container if isinstance(state, LocationError) else ""
            reason = state.strerror or type(state).__name__
            told.setdefault((container or paths[at], reason), []).append(at)
    for (file, reason), places in told.items():
        name, file = (without_secrets(one).removeprefix(prefix) for one in (paths[places[0]], file))
        others = "" if len(places) == 1 else f" ({len(places):,} rows)"
        place = "" if name == file else f"{file}: "
        fix = "repair the file, or remove the rows" if place else "correct the path"
        findings.add(rows[places[0]], f"{what} {name!r}: {place}{reason}{others}", fix)
    return [at for places in told.values() for at in places]


def _note_missing(
    what: str,
    paths: list[str],
    there: NDArray[np.bool_],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> None:
    """Note files that do not exist; a folder that is missing with several files once."""
    folders: dict[str, list[int]] = {}
    for at in np.flatnonzero(~there).tolist():
        if paths[at]:
            folders.setdefault(os.path.dirname(paths[at]), []).append(at)
    for folder, files in folders.items():
        name, first = folder.removeprefix(prefix), files[0]
        image = paths[first].removeprefix(prefix)
        fix = f"paths start from {prefix}: correct it"
        if "\\" in image and os.sep == "/":
            fix = "write / instead of \\ in paths"
        elif len(files) > 1 and not os.path.isdir(folder):
            said = f"{what} {image!r} and {len(files) - 1:,} more: there is no folder {name!r}"
            fix = f"paths start from {prefix}: correct them, or move the table"
            findings.add(rows[first], said, fix)
            continue
        for at in files:
            said = f"{what} {paths[at].removeprefix(prefix)!r} does not exist"
            findings.add(rows[at], said, fix)


def _note_repeated(
    images: list[str], real: list[str], rows: NDArray[np.int64], prefix: str, findings: Findings
) -> None:
    files = pd.Series(real, dtype="str")
    again = np.flatnonzero((files.duplicated() & (files != "")).to_numpy(bool)).tolist()
    first = {path: index for index, path in reversed(list(enumerate(real)))} if again else {}
    for index in again:
        name, other = images[index].removeprefix(prefix), rows[first[real[index]]]
        what = f"image {name!r} is listed already in {findings.name(other)}"
        findings.add(rows[index], what, "remove one of the two")


def _of_other_aspect(maps: NDArray[np.int32], images: NDArray[np.int32]) -> list[int]:
    """Rows whose map has another aspect ratio than the image, among rows with both."""
    both = np.flatnonzero(maps.all(1) & images.all(1))
    (w, h), (width, height) = maps[both].T.astype(float), images[both].T.astype(float)
    same = (abs(h - w * height / width) <= _ASPECT_TOLERANCE * h + 1) | (
        abs(w - h * width / height) <= _ASPECT_TOLERANCE * w + 1
    )
    return [int(row) for row in both[~same]]
