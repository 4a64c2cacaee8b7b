"""Class folders with a parallel tree of masks, and the CYBORG release of Notre Dame (UND)."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Unpack

import numpy as np
import pandas as pd

from preceptor.annotations.files import ImageFiles, split_of, split_of_folders
from preceptor.annotations.masks import (
    Masks,
    lone_masks,
    mask_pairs,
)
from preceptor.annotations.shapes import AnnotatedImage, ImportedAnnotations, Log
from preceptor.data.manifest import Checks, Manifest, check_raw
from preceptor.data.table import Findings, RawTable, read_table
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.metrics.split_names import kind_or_none

_UND_HEADER = ["split", "label", "path"]
# The authors select their model on the rows named "test".
_UND_SPLITS = {"train": "train", "test": "val", "val": "val"}


def read_folders(source: Path | str, masks: Path | str | None = None) -> ImportedAnnotations:
    """Class folders of images, in folders of splits or not: `train/crack/a.png`, `crack/a.png`.

    The class is the last folder that does not name a split. A mask lies at the same place in the
    folder of masks, with any suffix; in the same folder, `a_mask.png` is the mask of `a.png`.

    Args:
        source: Folder with the class folders.
        masks: Folder of the masks, or None.

    Raises:
        InputError: Something is not a folder, or has no image.
    """
    root = Path(source)
    other = None if masks is None else Path(masks)
    mixed = other is not None and os.path.realpath(other) == os.path.realpath(root)
    names = ImageFiles(root, None if mixed else other).names
    if not names:
        raise InputError(f"{root}: there is no image in it; name the folder of the class folders")
    pairs = mask_pairs(names)
    own = [*pairs, *lone_masks(names, pairs)] if mixed else []
    mask_names = ImageFiles(other).names if other is not None and not mixed else own
    names = [name for name in names if name not in set(own)]

    def read(log: Log) -> Iterator[AnnotatedImage]:
        if pairs and not mixed:
            first = next(iter(pairs))
            log.problem(
                f"{len(pairs):,} files (such as {first})",
                f"they are named as masks of images beside them ({pairs[first]})",
                f"add --masks {shlex.quote(str(root))}, or rename or move them",
            )
        given = _by_image(pairs) if mixed else _by_place(mask_names, names, log)
        records = Masks(root if other is None else other, {}, log)
        for name in names:
            folders = PurePosixPath(name).parts[:-1]
            label = next((part for part in reversed(folders) if not split_of(part)), "")
            split = split_of_folders(PurePosixPath(name))
            if not label:
                log.problem(name, "it lies in no class folder", "move it into one")
            elif name not in given:
                yield AnnotatedImage(name, None, (), (label,), split, of=name)
            elif (record := records.joined(given[name], label)) is not None:
                yield replace(record, name=name, labels=(label,), split=split, of=name)
        records.check("save masks of 0 and 255")
        _note_unused(mask_names, names, given, root, log)

    return ImportedAnnotations(
        "folders",
        root,
        read,
        annotators=(),
        count=len(names),
        masks=None if mixed else other,
        mask_files=frozenset(own),
    )


def _by_image(pairs: Mapping[str, str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for mask in sorted(pairs):
        given.setdefault(pairs[mask], []).append(mask)
    return given


def _place(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_place(masks: Sequence[str], images: Sequence[str], log: Log) -> dict[str, list[str]]:
    """Mask at the place of each image, whatever its suffix."""
    by_place: dict[str, list[str]] = {}
    for mask in masks:
        files = by_place.setdefault(_place(mask), [])
        if files:
            log.problem(mask, f"{files[0]} has the same place", "keep one of them")
        files.append(mask)
    return {image: by_place[_place(image)] for image in images if _place(image) in by_place}


def _note_unused(
    masks: Sequence[str],
    images: Sequence[str],
    given: Mapping[str, Sequence[str]],
    root: Path,
    log: Log,
) -> None:
    """Note masks without an image at their place; masks of images elsewhere in one problem."""
    used = {mask for several in given.values() for mask in several}
    by_stem = {PurePosixPath(image).stem: image for image in images}
    unused = [mask for mask in masks if mask not in used]
    moved = [mask for mask in unused if PurePosixPath(mask).stem in by_stem]
    if moved:
        image = PurePosixPath(by_stem[PurePosixPath(moved[0]).stem])
        expected = image.with_suffix(PurePosixPath(moved[0]).suffix)
        log.problem(
            f"{len(moved):,} masks (such as {moved[0]})",
            f"they lie at another place than their images in {root}; expected {expected}",
            "put the masks into the same folders as the images",
        )
    for mask in unused:
        if mask not in moved:
            log.problem(mask, f"there is no image at its place in {root}", "remove the mask")


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
    named: dict[str, Path] = {}
    for csv_path in map(Path, (train_csv, *test_csvs)):
        part, numbers = _und_rows(csv_path, problems)
        part["path"] = part["path"].str.strip().str.lstrip("/")
        folders = [str(PurePosixPath(path).parent) for path in part["path"]]
        part["source"] = ["" if folder == "." else folder for folder in folders]
        if csv_path == Path(train_csv):
            part["split"] = part["split"].map(lambda name: _UND_SPLITS.get(name, name))
        else:
            stem = csv_path.stem
            is_test = kind_or_none(stem) == "test"
            name = stem if is_test else f"test-{re.sub('^test[^a-zA-Z0-9]+', '', stem)}"
            part["split"] = name
            if join is not None:
                part["split"], part["source"] = join, stem
            if name in named:
                what = f"its test set would be {name}, as that of {named[name]}"
                problems.append(Problem(str(csv_path), what, "rename one of the files"))
            named[name] = csv_path
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
    frame["saliency"] = _und_maps(frame, heatmaps, findings)
    raw = RawTable(frame, np.arange(len(frame), dtype=np.int64))
    checks.setdefault("need", ("train", "val", "test") if test_csvs else ("train", "val"))
    manifest = check_raw(raw, Path(image_root).absolute(), findings, **checks)
    return replace(manifest, source=Path(train_csv))


def _und_rows(path: Path, problems: list[Problem]) -> tuple[pd.DataFrame, list[int]]:
    """Rows of a file and their numbers; problems are appended to `problems`."""
    findings = Findings(str(path), lambda row: f"{path.name} row {row}")
    try:
        raw = read_table(path, findings, _UND_HEADER)
    except ProblemsError as error:
        for problem in error.problems:
            where = problem.where if path.name in problem.where else f"{path}, {problem.where}"
            problems.append(replace(problem, where=where))
        return pd.DataFrame({name: [] for name in _UND_HEADER}, dtype="str"), []
    problems += findings.problems
    frame = raw.frame.assign(split=raw.frame["split"].str.strip())
    body = (frame["split"].str.lower() != "split").to_numpy(bool)  # a header after all
    return frame[body], raw.rows[body].tolist()


def _und_maps(frame: pd.DataFrame, heatmaps: Path | None, findings: Findings) -> list[str]:
    """Heat map of each row, "" for none."""
    maps = [""] * len(frame)
    if heatmaps is None:
        return maps
    folder = Path(heatmaps).absolute()
    if not folder.is_dir():
        findings.add(None, f"{heatmaps} is not a folder", "correct the path", where="heat maps")
        return maps
    by_place: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for name in ImageFiles(folder).names:
        by_place.setdefault(_place(name), []).append(str(folder / name))
        by_name.setdefault(PurePosixPath(name).stem, []).append(str(folder / name))
    claimed: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(frame["path"], frame["split"], strict=True)):
        files = by_place.get(_place(path or "."), [])
        if not files and kind_or_none(split) != "test":
            files = by_name.get(PurePosixPath(path).stem, [])
        if len(files) > 1:
            what = f"{path!r} has {len(files)} heat maps ({files[0]}, {files[1]}, …)"
            findings.add(row, what, "keep one file with this name")
        elif files and files[0] in claimed:
            first = findings.name(claimed[files[0]])
            what = f"{path!r} and {first} have one heat map ({files[0]})"
            findings.add(row, what, "use the folder structure of the images for the heat maps")
        elif files:
            claimed[files[0]] = row
            maps[row] = files[0]
    return maps
