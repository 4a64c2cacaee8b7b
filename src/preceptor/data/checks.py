"""Reading of tables (CSV, Parquet), and checks of the cells and files of a manifest.

All problems are noted by row and value.
"""

# os.path and not Path: a million paths are joined, and Path.resolve() would follow links.
# ruff: noqa: PTH100, PTH112, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.geometry import same_aspect
from preceptor.errors import Problem, ProblemsError, is_control, without_secrets
from preceptor.metrics.split_names import KNOWN_SPLITS, kind_of, split_hint
from preceptor.utils.process import core_count

if TYPE_CHECKING:
    from preceptor.config.settings import ImageFormat
    from preceptor.data.store import FileContents
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
ROW_FROM_ZERO = "row {} (from 0)".format  # data frames and Parquet have no header row to count

_YES_NO = {"1": True, "true": True, "yes": True, "1.0": True}
_YES_NO |= {"0": False, "false": False, "no": False, "0.0": False}
_Identity = tuple[int, int] | None
_RESAVE = "save it as CSV (UTF-8) or Parquet"


class Findings:
    """Problems of one table; `rows` has the number of each row, as in an editor."""

    def __init__(self, source: str, name_row: Callable[[int], str] = "row {}".format) -> None:
        self.source, self.name_row = source, name_row
        self.rows: Sequence[int] | None = None  # None = numbers are given as they are
        self._problems: list[tuple[int, Problem]] = []

    def __len__(self) -> int:
        return len(self._problems)

    def name(self, row: int) -> str:
        """Name of a row in messages."""
        return self.name_row(self._number(row))

    def _number(self, row: int) -> int:
        return int(row if self.rows is None else self.rows[row])

    def add(self, row: int | None, what: str, fix: str, where: str = "the table") -> None:
        """Note a problem of a row, or of `where` if it does not belong to one row."""
        number = -1 if row is None else self._number(row)
        where = where if row is None else self.name(row)
        self._problems.append((number, Problem(where, without_secrets(what), fix)))

    def add_all(
        self,
        wrong: pd.Series | NDArray[np.bool_],
        what: str | Callable[[int], str],
        fix: str | Callable[[int], str],
    ) -> None:
        """Note a problem of every row with `wrong` true; texts may be functions of the row."""
        for row in np.flatnonzero(np.asarray(wrong, dtype=bool)).tolist():
            said, advice = (text if isinstance(text, str) else text(row) for text in (what, fix))
            self.add(row, said, advice)

    def raise_if_any(self) -> None:
        """Raise a ProblemsError with all problems in the order of the rows, if there are any."""
        if self._problems:
            ordered = sorted(self._problems, key=lambda pair: pair[0])
            raise ProblemsError(self.source, [problem for _, problem in ordered])


def read_table(path: Path, findings: Findings, header: list[str] | None = None) -> pd.DataFrame:
    """Uninterpreted cells of a CSV or Parquet file; rows of another length are noted and omitted.

    Problems that prevent further reading are raised. `header` names the columns of a CSV file
    without a header row.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _alone(findings, "there is no such file", "correct the path") from None
    except IsADirectoryError:
        raise _alone(findings, "it is a folder", "name the manifest file in it") from None
    except (OSError, ValueError) as error:
        raise _alone(findings, f"cannot be read ({error})", "check the path") from None
    if data.startswith(b"PAR1"):
        return _read_parquet(data, findings)
    if path.suffix.lower() in (".parquet", ".pq") and data.strip():
        raise _alone(findings, "not a Parquet file", "write it again")
    return _read_csv(_decode(data, findings), findings, header)


def _alone(findings: Findings, what: str, fix: str) -> ProblemsError:
    return ProblemsError(findings.source, [Problem("the file", what, fix)])


def _read_parquet(data: bytes, findings: Findings) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [str(name).strip() for name in file.schema_arrow.names]
        _refuse_repeated(names, findings)
        table = file.read().rename_columns(names)
        table.validate(full=True)
        # By the metadata of pandas, a column such as group may be the index.
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        frame = frame.loc[:, [not name.startswith("__index_level_") for name in names]]
    except ProblemsError:
        raise
    except Exception as error:  # pyarrow raises ArrowException, OSError, ValueError and others
        reason = " ".join(str(error).split())[:200]
        raise _alone(findings, f"not a sound Parquet file ({reason})", "write it again") from error
    findings.name_row = ROW_FROM_ZERO
    return frame


def _decode(data: bytes, findings: Findings) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"PK\x03\x04")) or b"\0" in data:
        raise _alone(findings, "the file is not UTF-8 text", _RESAVE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start:,} of the file)"
        line = data[: error.start].count(b"\n") + 1
        raise ProblemsError(findings.source, [Problem(f"row {line}", what, _RESAVE)]) from None


def _read_csv(text: str, findings: Findings, header: list[str] | None) -> pd.DataFrame:
    """Parse CSV text into cells, all of them strings; blank lines are omitted."""
    first = re.search(r"\S[^\r\n]*", text)
    bare = re.sub(r'"[^"]*"', "", first[0] if first else "")
    delimiter = max((",", ";", "\t"), key=bare.count)  # the first of equals
    if (quick := _read_plain_csv(text, delimiter, header, findings)) is not None:
        return quick
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    records: list[tuple[int, list[str]]] = []  # with the number of their first line, from 1
    begin = 1
    try:
        for record in reader:
            if any(map(str.strip, record)):  # tables end with rows of commas
                records.append((begin, record))
            begin = reader.line_num + 1
    except csv.Error as error:
        findings.add(begin, f"cannot be parsed ({error})", "check its quotation marks")
        findings.raise_if_any()
    if records and records[0][1] == ["sep=", ""]:  # Excel's line about the delimiter
        del records[0]
    if not records:
        raise _alone(findings, "the file is empty", "write a header and one row per image")
    if header is None:
        header = [cell.strip() for cell in records.pop(0)[1]]
    _refuse_repeated(header, findings)
    whole = [(row, record) for row, record in records if len(record) == len(header)]
    for row, record in records:
        if len(record) != len(header):
            cells = f"{len(record)} cell{'s' if len(record) != 1 else ''}"
            fix = "fill the row, and quote cells that contain the delimiter"
            findings.add(row, f"has {cells} where {len(header)} are expected", fix)
    if not whole:
        if not len(findings):
            findings.add(None, "there are no rows under the header", "add one row per image")
        findings.raise_if_any()
    columns = zip(*(record for _, record in whole), strict=True)
    findings.rows = [row for row, _ in whole]
    table = dict(zip(header, map(list, columns), strict=True))
    return pd.DataFrame(table, dtype="str").drop(columns="", errors="ignore")


def _read_plain_csv(
    text: str, delimiter: str, header: list[str] | None, findings: Findings
) -> pd.DataFrame | None:
    """Cells of a table of equal rows without quotes, outer spaces and blank rows; else None."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    text = text.replace("\r\n", "\n")
    odd = ('"', "\r", f"{delimiter} ", "\n ")
    if text.startswith((" ", "\n", "sep=", "\ufeff")) or any(one in text for one in odd):
        return None
    names = header or [cell.strip() for cell in text.split("\n", 1)[0].split(delimiter)]
    unique = list(map(str, range(len(names))))
    try:
        cells = arrow.read_csv(
            pa.BufferReader(text.encode()),
            arrow.ReadOptions(column_names=unique, skip_rows=0 if header else 1),
            arrow.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.large_string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # no rows, or rows of another length, which get a message each
        return None
    first = cells.column(0).to_pylist()
    if not (first and any(names) and all(map(str.strip, first))):
        return None
    _refuse_repeated(names, findings)
    findings.rows = list(range(1 if header else 2, cells.num_rows + (1 if header else 2)))
    table: pd.DataFrame = cells.to_pandas().set_axis(names, axis=1)
    return table.drop(columns="", errors="ignore")


def _refuse_repeated(header: list[str], findings: Findings) -> None:
    for name in dict.fromkeys(name for name in header if name and header.count(name) > 1):
        what = f"column {name!r} occurs {header.count(name)} times"
        findings.add(None, what, "rename or remove all but one", where="the header")
    findings.raise_if_any()


def check_columns(raw: pd.DataFrame, required: Sequence[str], findings: Findings) -> None:
    """Check the column names, and that there are rows; raise the problems without which it ends."""
    columns = [str(column) for column in raw.columns]
    others = [name for name in columns if name not in COLUMNS]
    lower = {name.lower(): name for name in others}
    for name in required:
        if name in columns:
            continue
        near = [lower[name]] if name in lower else difflib.get_close_matches(name, others, 1)
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
        elif name not in columns and (near := difflib.get_close_matches(name, others, 1, 0.85)):
            what = f"column {near[0]!r} is not {name!r}"
            findings.add(None, what, f"rename it to {name!r}, or otherwise", where="the header")
    if not set(required) <= set(columns):
        findings.raise_if_any()
    if not len(raw):
        findings.add(None, "there are no rows", "add one row per image")
        findings.raise_if_any()


def _about(cells: pd.Series, text: str) -> Callable[[int], str]:
    """What is wrong in a row: `text` with its cell in the place of {}."""
    return lambda row: text.format(repr(cells.iloc[row]))


def check_cells(
    raw: pd.DataFrame,
    root: Path,
    findings: Findings,
    need: Collection[str],
    classes: Collection[str] | None,
) -> pd.DataFrame:
    """Parse the cells of a manifest and note all problems.

    Returns a table with all of `COLUMNS`, then the others; valid only if no problem was noted. If
    `need` is empty, `split` may be empty as well.
    """
    note, frame = findings.add_all, raw
    for name in [name for name in COLUMNS if name in frame and frame[name].dtype == object]:
        for kind in {bytes, list, tuple, dict, set, np.ndarray} & set(frame[name].map(type)):
            what = f"{name} has cells of the type {kind.__name__}"
            raise ProblemsError(
                findings.source, [Problem("the table", what, "write text or numbers")]
            )

    def column(name: str) -> pd.Series:
        missing = pd.Series("", index=frame.index, dtype="str")
        return text(frame[name]).str.strip() if name in frame else missing

    table = pd.DataFrame(index=frame.index)
    written = text(frame["path"])
    table["path"] = absolute(written, root)
    table["name"] = text(frame["name"]) if "name" in frame else written
    table["label"], table["split"] = column("label"), column("split")
    maps = text(frame["saliency"]) if "saliency" in frame else column("saliency")
    table["saliency"] = absolute(maps, root)
    note(written == "", "path is empty", "write the path of the image")
    table["annotated"] = _annotated(column("annotated").str.lower(), maps != "", findings)
    table["source"], table["group"] = column("source"), column("group")
    for name, empty, bound in (
        ("map_weight", 1.0, "finite number such as 0.5, 0 or more (empty means 1)"),
        ("sample_weight", 1.0, "finite number such as 0.5, more than 0 (empty means 1)"),
        (
            "annotation_seconds",
            np.nan,
            "finite number such as 7.5 (seconds), 0 or more (empty means unknown)",
        ),
    ):
        cells = column(name)
        values = pd.to_numeric(cells.where(cells != "", str(empty)), errors="coerce")
        table[name] = values.astype("float64")
        low = values <= 0 if name == "sample_weight" else values < 0
        wrong = (cells != "") & (low | ~np.isfinite(values.to_numpy(np.float64)))
        note(wrong, _about(cells, f"{name} is {{}}"), f"write a {bound}")
    for name in ("label", "split", "source", "group"):
        cells = table[name]
        different = cells.unique()
        wrong_letters = set(filter(is_control, set("".join(different))))
        odd = cells.isin([one for one in different if not wrong_letters.isdisjoint(one)])
        broken = f"{name} {{}} contains a line break or control character"
        note(odd, _about(cells, broken), "remove it")
    if "name" in frame:
        check_names(table["name"], findings)
    _check_labels(table, findings, need, classes)
    _check_splits(table, findings, need)
    _check_groups(table, findings)
    others = [name for name in frame.columns if name not in COLUMNS]
    return pd.concat([table[list(COLUMNS)], frame[others]], axis=1)


def text(column: pd.Series) -> pd.Series:
    """Column as strings, with "" for missing values."""
    if column.isna().any() or isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object).where(column.notna(), "")
    return column.astype("str")


def absolute(names: pd.Series, root: Path) -> pd.Series:
    """Absolute paths of names relative to `root`; `..` is kept: it may follow a link."""
    start = os.path.abspath(root)

    def joined(name: str) -> str:
        return os.path.join(start, name) if name else ""

    return names.map(joined).astype("str")


def _annotated(written: pd.Series, has_map: pd.Series, findings: Findings) -> pd.Series:
    """(n,) whether a person examined each image: as written, otherwise if it has a map."""
    known = written.map(_YES_NO)
    bad = (written != "") & known.isna()
    about = _about(written, "annotated is {}")
    findings.add_all(bad, about, "write 1, 0 or nothing")
    no = known.isin([False])
    fix = "set annotated to 1 or empty the map"
    findings.add_all(no & has_map, "has a map but annotated 0", fix)
    return (has_map & ~no) | known.isin([True])


def check_names(names: pd.Series, findings: Findings) -> None:
    """Note names of images that are empty or occur again."""
    fix = "write a unique name (it identifies the image in outputs), or rename the column"
    findings.add_all(names == "", "name is empty", fix)
    again = names.duplicated() & (names != "")
    findings.add_all(again, _about(names, "name {} occurs again"), fix)


def _check_labels(
    table: pd.DataFrame, findings: Findings, need: Collection[str], classes: Collection[str] | None
) -> None:
    labels = table["label"]
    findings.add_all(labels == "", "label is empty", "write the class of the image")
    present = sorted(set(labels.unique()) - {""})
    if classes is not None:
        findings.add_all(
            (labels != "") & ~labels.isin(list(classes)),
            _about(labels, "label {} is not one of the classes"),
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
            findings.add(int(at[0]), what, "add training images of it, or correct the label")


def _check_splits(table: pd.DataFrame, findings: Findings, need: Collection[str]) -> None:
    splits, kinds = table["split"], kind_of(table["split"])
    if need and splits.any():  # else that there is no training split says it
        findings.add_all(splits == "", "split is empty", f"write {KNOWN_SPLITS}")
    findings.add_all(
        (kinds == "") & (splits != "").to_numpy(),
        _about(splits, "split {} is unknown"),
        lambda row: split_hint(splits.iloc[row]),
    )
    for kind in need:
        if not (kinds == kind).any():
            fix = f"give some rows the split {kind!r} (`preceptor data split` makes splits)"
            findings.add(None, f"no row has a {kind} split", fix)


def _check_groups(table: pd.DataFrame, findings: Findings) -> None:
    kinds = pd.Series(kind_of(table["split"]), index=table.index)
    within = (table["group"] != "") & (kinds != "")
    pairs = pd.DataFrame({"group": table["group"], "kind": kinds})[within].drop_duplicates()
    for group, found in pairs[pairs["group"].duplicated(keep=False)].groupby("group", sort=False):
        places = [f"{kind} ({findings.name(int(i))})" for i, kind in found["kind"].items()]  # type: ignore[call-overload]
        what = f"group {group!r} is in {' and in '.join(places)}"
        findings.add(found.index[1], what, "assign all images of a group to one kind of split")


def check_files(
    table: pd.DataFrame,
    root: Path,
    findings: Findings,
    *,
    verify: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
    formats: Collection[ImageFormat] = (),
) -> FileContents | None:
    """Note files that are missing, listed twice or, with `verify`, invalid; content hashes if not.

    The cache is filled in `formats` only if no problem was noted before.
    """
    base = os.path.join(os.path.abspath(root), "")
    files: dict[str, list[str]] = {}  # without those that cannot be read
    for what, column in (("image", "path"), ("map", "saliency")):
        paths = table[column].tolist()
        identities = _identities(paths, workers or core_count())
        _note_missing(findings, base, what, paths, identities)
        found = zip(paths, identities, strict=True)
        files[what] = [path if identity else "" for path, identity in found]
        if what == "image":
            _note_repeated(findings, base, paths, identities)
    if not verify:
        return None
    from preceptor.data.store import examine

    examined = examine(
        files["image"],
        files["map"],
        cache_dir=cache_dir,
        formats=() if len(findings) else formats,
        workers=workers,
        progress=progress,
    )
    images, maps = (table[name].str.removeprefix(base) for name in ("path", "saliency"))
    for row, why in examined.wrong_images.items():
        what = f"image {images[row]!r}: {why}"
        findings.add(row, what, "replace the file or remove the row")
    for row, why in examined.wrong_maps.items():
        findings.add(row, f"map {maps[row]!r}: {why}", "replace the file or empty the cell")
    for row in _of_other_aspect(examined.map_sizes, examined.image_sizes):
        (w, h), (width, height) = examined.map_sizes[row], examined.image_sizes[row]
        what = f"map {maps[row]!r} is {w}×{h}, its image {width}×{height}"
        findings.add(row, what, "save the map with the aspect ratio of the image (any size)")
    return examined.contents


def _identities(paths: list[str], threads: int) -> list[_Identity]:
    """Device and number of each file, None if there is none."""
    identities: list[_Identity] = [None] * len(paths)

    def look(part: range) -> None:
        for at in part:
            if paths[at]:
                with contextlib.suppress(OSError, ValueError):  # a zero byte in the path
                    state = os.stat(paths[at])
                    if stat.S_ISREG(state.st_mode):
                        identities[at] = state.st_dev, state.st_ino

    with ThreadPoolExecutor(threads) as pool:  # disks behind a network take long for each file
        parts = (range(at, min(at + 4096, len(paths))) for at in range(0, len(paths), 4096))
        list(pool.map(look, parts))
    return identities


def _note_missing(
    findings: Findings, base: str, what: str, paths: list[str], identities: Sequence[_Identity]
) -> None:
    """Note files that do not exist; a folder that is missing with several files once."""
    folders: dict[str, list[int]] = {}
    for at, path in enumerate(paths):
        if path and identities[at] is None:
            folders.setdefault(os.path.dirname(path), []).append(at)
    for folder, files in folders.items():
        if not path_hint(paths[files[0]]) and len(files) > 1 and not os.path.isdir(folder):
            image = paths[files[0]].removeprefix(base)
            more = f"{len(files) - 1:,} more: there is no folder {folder.removeprefix(base)!r}"
            fix = f"paths start from {base}: correct them, or move the table"
            findings.add(files[0], f"{what} {image!r} and {more}", fix)
            continue
        for at in files:
            fix = path_hint(paths[at]) or f"paths start from {base}: correct it"
            findings.add(at, f"{what} {paths[at].removeprefix(base)!r} does not exist", fix)


def path_hint(path: str) -> str:
    """How to correct the path of a file that is missing; "" = this cannot be told."""
    if "://" in path:
        return "copy the file to this machine, or mount its file system; URLs are not read"
    if "\\" in path and os.sep == "/":
        drive = re.match("[A-Za-z]:", Path(path).name)
        return "copy it to this machine" if drive else "write / instead of \\ in paths"
    return ""


def _note_repeated(
    findings: Findings, base: str, images: list[str], identities: Sequence[_Identity]
) -> None:
    first: dict[_Identity, int] = {}
    for row, identity in enumerate(identities):
        if identity is not None and (other := first.setdefault(identity, row)) != row:
            what = f"image {images[row].removeprefix(base)!r} is listed already in "
            findings.add(row, what + findings.name(other), "remove one of the two")


def _of_other_aspect(maps: NDArray[np.int32], images: NDArray[np.int32]) -> list[int]:
    """Rows whose map has another aspect ratio than the image, among rows with both."""
    both = np.flatnonzero(maps.all(1) & images.all(1))
    same = same_aspect(maps[both].T.astype(float), images[both].T.astype(float))
    return [int(row) for row in both[~same]]
