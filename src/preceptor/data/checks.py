"""Checks of the cells and of the files of a manifest."""

# ruff: noqa: PTH100, PTH118
# ruff: noqa: PTH100, PTH113, PTH114, PTH112, PTH118, PTH120

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preceptor.data.decode_pass import DecodePass
from preceptor.data.file_table import Decoded
from preceptor.data.locations.location import is_url, not_plain
from preceptor.data.locations.states import find_unreadable
from preceptor.data.table import Findings, RawTable
from preceptor.errors import is_control, without_secrets
from preceptor.evaluation.split_names import KNOWN_SPLITS, kind_of, split_hint
from preceptor.runtime.cores import core_count
from preceptor.runtime.progress import Progress

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


_Size = tuple[int, int]

_ASPECT_TOLERANCE = 0.02
_FEW = (
    32  # below this number of files in a folder, single queries are faster than listing the folder
)


def check_files(
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    root: Path,
    findings: Findings,
    *,
    decoding: DecodePass | None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Note files that are missing, listed twice or, with `decoding`, invalid.

    Args:
        table: Table from `manifest_cells.check_cells`.
        rows: Numbers of the rows in messages.
        root: Base folder of relative paths.
        findings: Collects the problems.
        decoding: Decoding pass over every image and map; None = they must only exist.
        workers: Number of threads that look for files; None = one per core.
        progress: Function called with (done, total) while files are decoded.
    """
    threads = workers or core_count()
    images, maps = table["path"].tolist(), table["saliency"].tolist()
    image_there, real = find_files(images, threads)
    map_there, _ = find_files(maps, threads)
    prefix = os.path.join(os.path.abspath(root), "")
    for what, paths, there in (("image", images, image_there), ("map", maps, map_there)):
        told = _note_unreadable(what, paths, there, rows, prefix, findings)
        missing = [at for at in np.flatnonzero(~there).tolist() if paths[at] and at not in told]
        told = _note_missing_folders(what, paths, missing, rows, prefix, findings)
        for index in missing:
            if index not in told:
                name = paths[index].removeprefix(prefix)
                fix = f"paths start from {prefix}: correct it"
                if "\\" in name and os.sep == "/":
                    fix = "write / instead of \\ in paths"
                findings.add(rows[index], f"{what} {name!r} does not exist", fix)
    _check_twice(images, real, rows, prefix, findings)
    del real  # a million paths take 110 MB, and the decoding takes long
    if decoding is not None:
        images = [path if there else "" for path, there in zip(images, image_there, strict=True)]
        maps = [path if there else "" for path, there in zip(maps, map_there, strict=True)]
        found = decoding.decode(images, maps, complete=not findings, progress=progress)
        _check_contents(found, rows, prefix, findings)


def _note_missing_folders(
    what: str,
    paths: list[str],
    missing: list[int],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> set[int]:
    """Note each folder that is missing with several files, once.

    Args:
        what: Kind of the files in messages.
        paths: Absolute paths.
        missing: Positions of those that do not exist.
        rows: Numbers of the rows in messages.
        prefix: Beginning of paths that is left out in messages.
        findings: Collects the problems.

    Returns:
        Positions of the files in these folders.
    """
    folders: dict[str, list[int]] = {}
    for at in missing:
        folders.setdefault(os.path.dirname(paths[at]), []).append(at)
    told: set[int] = set()
    for folder, files in folders.items():
        name, first = folder.removeprefix(prefix), files[0]
        if len(files) > 1 and "\\" not in name and not os.path.isdir(folder):
            image = paths[first].removeprefix(prefix)
            said = f"{what} {image!r} and {len(files) - 1:,} more: there is no folder {name!r}"
            fix = f"paths start from {prefix}: correct them, or move the table"
            findings.add(rows[first], said, fix)
            told |= set(files)
    return told


def _note_unreadable(
    what: str,
    paths: list[str],
    there: NDArray[np.bool_],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> set[int]:
    """Look for remote files and members, and note those that cannot be read.

    Args:
        what: Kind of the files in messages.
        paths: Locations.
        there: (n,) whether they exist; set for remote files and members.
        rows: Numbers of the rows in messages.
        prefix: Beginning of paths that is left out in messages.
        findings: Collects the problems.

    Returns:
        Positions of those that were noted.
    """
    which = not_plain(paths)
    told: set[int] = set()
    for one in find_unreadable(paths, which) if which else ():
        first, count = one.at[0], len(one.at)
        name = without_secrets(paths[first]).removeprefix(prefix)
        said, fix = f"{what} {name!r}: {one.reason}", "correct the path, or remove the row"
        if one.container is not None:
            place = str(one.container).removeprefix(prefix)
            others = "" if count == 1 else f" ({count:,} rows)"
            said = f"{what} {name!r}: {place}: {one.reason}{others}"
            fix = "repair the file, or remove the rows"
        findings.add(rows[first], said, one.remedy or fix)
        told |= set(one.at)
    there[[at for at in which if at not in told]] = True
    return told


def _check_twice(
    images: list[str],
    real: list[str],
    rows: NDArray[np.int64],
    prefix: str,
    findings: Findings,
) -> None:
    files = pd.Series(real, dtype="str")
    again = np.flatnonzero((files.duplicated() & (files != "")).to_numpy(bool)).tolist()
    if not again:
        return
    first = {path: index for index, path in reversed(list(enumerate(real)))}
    for index in again:
        name, other = images[index].removeprefix(prefix), rows[first[real[index]]]
        what = f"image {name!r} is listed already in {findings.name(other)}"
        findings.add(rows[index], what, "remove one of the two")


def _check_contents(
    decoded: Decoded, rows: NDArray[np.int64], prefix: str, findings: Findings
) -> None:
    wrong_images, wrong_maps = decoded.wrong_images, decoded.wrong_maps
    other = _of_other_aspect(decoded.map_size, decoded.image_size)
    for index in sorted({*wrong_images, *wrong_maps, *other}):
        row, image = rows[index], decoded.images[index].removeprefix(prefix)
        name = decoded.maps[index].removeprefix(prefix)
        if index in wrong_images:
            what = f"image {image!r}: {wrong_images[index]}"
            findings.add(row, what, "replace the file or remove the row")
        if index in wrong_maps:
            what = f"map {name!r}: {wrong_maps[index]}"
            findings.add(row, what, "replace the file or empty the cell")
        if index in other:
            size = _size_words(decoded.map_size[index])
            of = _size_words(decoded.image_size[index])
            what = f"map {name!r} is {size}, its image {of}"
            findings.add(row, what, "save the map with the aspect ratio of the image (any size)")


def _of_other_aspect(maps: NDArray[np.int32], images: NDArray[np.int32]) -> set[int]:
    """Rows whose map has another aspect ratio than the image, among rows with both."""
    both = np.flatnonzero(maps.all(1) & images.all(1))
    pairs, which = np.unique(np.hstack([maps[both], images[both]]), axis=0, return_inverse=True)
    differ = [not same_aspect((w, h), (wide, high)) for w, h, wide, high in pairs.tolist()]
    return set(both[np.array(differ, bool)[which.ravel()]].tolist())


def _size_words(size: NDArray[np.int32]) -> str:
    return f"{size[0]}×{size[1]}"


def same_aspect(first: _Size, second: _Size) -> bool:
    """Whether two sizes have the same aspect ratio, within 2 % and a rounding of one pixel.

    Example:
        >>> same_aspect((10, 8), (299, 224)), same_aspect((224, 299), (299, 224))
        (True, False)
    """
    (w, h), (width, height) = first, second
    return (
        abs(h - w * height / width) <= _ASPECT_TOLERANCE * h + 1
        or abs(w - h * width / height) <= _ASPECT_TOLERANCE * w + 1
    )


def find_files(paths: list[str], threads: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Whether files exist, and their paths with resolved links; each folder is listed once.

    Args:
        paths: Absolute paths; "" for no file. Remote files and members are not looked for.
        threads: Number of folders that are listed at the same time.

    Returns:
        (n,) bool, and n paths, "" for those that do not exist; remote ones as they are.
    """
    exists = np.zeros(len(paths), dtype=bool)
    real = [""] * len(paths)
    names = [""] * len(paths)
    inside: dict[str, list[int]] = {}
    special = set(not_plain(paths))
    for index in special:
        real[index] = paths[index]
    for index, path in enumerate(paths):
        if path and index not in special:
            folder, names[index] = os.path.split(path) if os.altsep else _split(path)
            inside.setdefault(folder, []).append(index)

    def look(folder: str) -> None:
        plain = _plain_files(folder) if len(inside[folder]) >= _FEW else frozenset()
        start = os.path.join(os.path.realpath(folder), "")
        for index in inside[folder]:
            name = names[index]
            if name in plain:
                exists[index], real[index] = True, start + name
            elif _is_file(paths[index]):  # a link, or its name is encoded otherwise
                link = os.path.islink(paths[index])
                exists[index] = True
                real[index] = os.path.realpath(paths[index]) if link else start + name

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(look, inside):
            pass
    return exists, real


def _split(path: str) -> tuple[str, str]:
    """os.path.split for absolute POSIX paths, three times as fast."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a zero byte in the path
        return False


def _plain_files(folder: str) -> frozenset[str]:
    """Names of the files in a folder that are not links."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
    except (OSError, ValueError):
        return frozenset()
