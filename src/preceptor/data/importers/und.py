"""Importer of the CYBORG release of the University of Notre Dame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Unpack

import numpy as np
import pandas as pd

from preceptor.data.images import image_suffixes
from preceptor.data.manifest import Checks, Manifest, check_raw
from preceptor.data.table import Findings, RawTable, read_table
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.evaluation.split_names import kind_or_none
from preceptor.runtime.walk import walk

_HEADER = ["split", "label", "path"]
# The authors select their model on the rows named "test".
_TRAIN_CSV_SPLITS = {"train": "train", "test": "val", "val": "val"}


def read_und(
    train_csv: Path,
    test_csvs: Sequence[Path],
    image_root: Path,
    heatmaps: Path | None,
    *,
    join: str | None = None,
    **checks: Unpack[Checks],
) -> Manifest:
    """Read the release in its published form: CSVs without header, and a folder of heat maps.

    The rows are `split,class,/path`. A heat map has the name of its image with any suffix, at the
    same relative path under `heatmaps` or, for training and validation images, anywhere in it. The
    folder of an image is its source.

    Args:
        train_csv: CSV with the splits `train` and `test`; the latter becomes the split `val`.
        test_csvs: CSVs of test sets. The name of a set is that of its file, independently of the
            splits in it: gan9.csv, test-gan9.csv and test_gan9.csv all give test-gan9.
        image_root: Base folder of the paths, with or without leading slash.
        heatmaps: Folder of heat maps, or None.
        join: Name of one test set of the images of all `test_csvs`, each of which is then a source
            with the name of its file. The published CSVs have images of one class each, so that
            only together they have an AUC. None = a test set for each CSV.
        checks: What is checked, see `Checks`; splits without rows in the files are not needed.

    Raises:
        ProblemsError: The data is invalid; lists all problems by file and row.
        InputError: `join` is no name of a test set.
    """
    if join is not None and kind_or_none(join) != "test":
        raise InputError(f"join {join!r} is no test set; name it test or test-NAME")
    problems: list[Problem] = []
    parts: list[pd.DataFrame] = []
    row_names: list[str] = []
    names: dict[str, Path] = {}
    for csv_path in map(Path, (train_csv, *test_csvs)):
        part, numbers = _read_rows(csv_path, problems)
        part["path"] = part["path"].str.strip().str.lstrip("/")
        part["source"] = [_folder(path) for path in part["path"]]
        if csv_path == Path(train_csv):
            part["split"] = part["split"].map(lambda name: _TRAIN_CSV_SPLITS.get(name, name))
        else:
            name = _test_set(csv_path.stem)
            part["split"] = name
            if join is not None:
                part["split"], part["source"] = join, csv_path.stem
            if name in names:
                what = f"its test set would be {name}, as that of {names[name]}"
                problems.append(Problem(str(csv_path), what, "rename one of the files"))
            names[name] = csv_path
        parts.append(part)
        row_names += [f"{csv_path.name} row {number}" for number in numbers]
    frame = pd.concat(parts, ignore_index=True)
    if not len(frame):
        raise ProblemsError(str(train_csv), problems)

    findings = Findings(str(train_csv), row_names.__getitem__)
    for problem in problems:
        findings.add(None, problem.what, problem.fix, where=problem.where)
    if not Path(image_root).is_dir():
        findings.add(None, f"{image_root} is not a folder", "correct the path", where="image root")
    frame["saliency"] = _find_maps(frame, heatmaps, findings)
    raw = RawTable(frame, np.arange(len(frame), dtype=np.int64))
    root = Path(image_root).absolute()
    checks.setdefault("need", ("train", "val", "test") if test_csvs else ("train", "val"))
    return replace(check_raw(raw, root, findings, **checks), source=Path(train_csv))


def _test_set(stem: str) -> str:
    """Name of the test set of a file."""
    if kind_or_none(stem) == "test":
        return stem
    return f"test-{re.sub('^test[^a-zA-Z0-9]+', '', stem)}"


def _read_rows(path: Path, problems: list[Problem]) -> tuple[pd.DataFrame, list[int]]:
    """Rows of a file and their numbers; problems are appended to `problems`."""
    findings = Findings(str(path), lambda row: f"{path.name} row {row}")
    try:
        raw = read_table(path, findings, _HEADER)
    except ProblemsError as error:
        for problem in error.problems:
            where = problem.where if path.name in problem.where else f"{path}, {problem.where}"
            problems.append(replace(problem, where=where))
        return pd.DataFrame({name: [] for name in _HEADER}, dtype="str"), []
    problems += findings.problems
    frame = raw.frame.assign(split=raw.frame["split"].str.strip())
    body = (frame["split"].str.lower() != "split").to_numpy(bool)  # a header after all
    return frame[body], raw.rows[body].tolist()


def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _find_maps(frame: pd.DataFrame, heatmaps: Path | None, findings: Findings) -> list[str]:
    """Heat map of each row, "" for none."""
    found = [""] * len(frame)
    if heatmaps is None:
        return found
    folder = Path(heatmaps).absolute()
    if not folder.is_dir():
        findings.add(None, f"{heatmaps} is not a folder", "correct the path", where="heat maps")
        return found
    suffixes = image_suffixes()
    by_place: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    files = (Path(base, name) for base, _, names in walk(str(folder)) for name in names)
    for file in sorted(files):
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            place = file.relative_to(folder).with_suffix("").as_posix()
            by_place.setdefault(place, []).append(str(file))
            by_name.setdefault(file.stem, []).append(str(file))
    claimed: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(frame["path"], frame["split"], strict=True)):
        image = PurePosixPath(path)
        maps = by_place.get(str(image.parent / image.stem), [])
        if not maps and kind_or_none(split) != "test":
            maps = by_name.get(image.stem, [])
        if len(maps) > 1:
            what = f"{path!r} has {len(maps)} heat maps ({maps[0]}, {maps[1]}, …)"
            findings.add(row, what, "keep one file with this name")
        elif maps and maps[0] in claimed:
            what = f"{path!r} and {findings.name(claimed[maps[0]])} have one heat map ({maps[0]})"
            findings.add(row, what, "use the folder structure of the images for the heat maps")
        elif maps:
            claimed[maps[0]] = row
            found[row] = maps[0]
    return found
