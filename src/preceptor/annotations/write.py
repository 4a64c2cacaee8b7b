"""Imported annotations as a folder: manifest, maps, maps of each annotator, and a record."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.annotations.files import RECORD, ImageFiles, split_of_folders
from preceptor.annotations.shapes import (
    AnnotatedImage,
    ImportedAnnotations,
    Log,
    Pixels,
    Points,
    Shape,
    rasterize,
    wrong_with,
)
from preceptor.annotations.text_formats import read_cells
from preceptor.data.checks import Findings, check_cells
from preceptor.data.images import stored_size, turned
from preceptor.data.manifest import check_raw
from preceptor.data.splits import make_splits
from preceptor.errors import InputError, ProblemsError
from preceptor.utils.files import new_folder, replacing
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

MANIFEST, MAPS, ANNOTATORS = "manifest.csv", "maps", "annotators"
POINTS = "mark_points"
"""Column of a manifest: places of marks that are points, x,y;x,y in pixels of the image."""
_NO_CENTER = (
    "images have shapes that contain the center of no pixel; they have no map and are not annotated"
)
_NO_CLASS = (
    "images that nobody examined are left out, since their class is unknown; --labels gives it"
)


def _mean(maps: Pixels) -> Pixels:
    total = maps.sum(axis=0, dtype=np.uint32)
    rounded: Pixels = ((2 * total + len(maps)) // (2 * len(maps))).astype(np.uint8)
    return rounded


def _majority(maps: Pixels) -> Pixels:
    return np.where(2 * (maps >= 128).sum(axis=0) > len(maps), 255, 0).astype(np.uint8)


MERGES: dict[str, Callable[[Pixels], Pixels]] = {
    "mean": _mean,
    "majority": _majority,
    "any": lambda maps: np.asarray(maps.max(axis=0)),
}
"""Rules of merging maps (annotators, height, width) by the name of `--merge`: the share who marked
a pixel, 255 where more than half did (a value of 128 or more), and where at least one did."""


def annotator_folders(names: Sequence[str]) -> dict[str, str]:
    """Folder of each annotator by name; no folders if there is only one.

    Example:
        >>> annotator_folders(["", "a/ann", "ann"])
        {'a/ann': 'ann', 'ann': 'ann-2'}
    """
    named = [name for name in names if name]
    taken: set[str] = set()
    return {name: unique_name(taken, "", safe_name(name)) for name in named if len(named) > 1}


def safe_name(name: str) -> str:
    """Name of a file or folder that lies in its folder on every system."""
    last = unicodedata.normalize("NFC", PurePosixPath(name.replace("\\", "/")).name)
    return re.sub(r"[^\w.@+ -]", "_", last).strip(" .")[:120] or "_"


def unique_name(taken: set[str], suffix: str, *names: str) -> str:
    """First of the names, else the last one with a number, that is not taken in any case."""
    candidates = chain(names, (f"{names[-1]}-{number}" for number in count(2)))
    name = next(name for one in candidates if (name := one + suffix).casefold() not in taken)
    taken.add(name.casefold())
    return name


def map_name(path: str) -> str:
    """Name of the map of an image in the folder of maps, without ways out of it.

    Example:
        >>> map_name("../other/a.png"), map_name("/data/b.png")
        ('other/a.png', 'data/b.png')
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join(part.replace(":", "-") for part in parts if part not in ("/", "..", "."))


class MapDrawer:
    """Writer of maps of one image after the other: one for each annotator with a folder, and one
    merged by a rule, or of one annotator alone."""

    def __init__(self, folder: Path, folders: Mapping[str, str], merge: str) -> None:
        self.folder, self.folders, self.merge = folder, folders, merge
        self._taken: set[str] = set()

    def save(self, maps: Mapping[str, Pixels], image: str) -> str:
        """Write the maps of the annotators of an image; path of the merged one, "" if empty."""
        name = unique_name(self._taken, ".png", posixpath.splitext(image)[0], image)
        for person in maps.keys() & self.folders.keys():
            self._write(f"{ANNOTATORS}/{self.folders[person]}/{name}", maps[person])
        merged = maps.get(self.merge)
        if self.merge in MERGES:
            several = list(maps.values())
            merged = MERGES[self.merge](np.stack(several)) if len(several) > 1 else several[0]
        if merged is None or not merged.any():
            return ""
        self._write(f"{MAPS}/{name}", merged)
        return f"{MAPS}/{name}"

    def _write(self, name: str, pixels: Pixels) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG", compress_level=1)


@dataclass(frozen=True)
class ImportOptions:
    """How annotations become a manifest with maps."""

    # CSV with `path,label[,split,source,group,annotated]`; None = labels come from the source.
    labels: Path | None = None
    positive: tuple[str, ...] = ()  # classes that are drawn and give the label; empty = all
    negative: str = "negative"  # label of images without such a shape
    # What an image without a shape means where the source does not say.
    unmarked: Literal["examined", "unknown"] | None = None
    nothing_to_mark: tuple[str, ...] = ()  # labels whose images without a shape were examined
    split: dict[str, float] = field(default_factory=dict)  # shares; empty = as the source says
    group_by: str = ""  # see `groups_of`


def parse_split(shares: str) -> dict[str, float]:
    """Shares of `--split`: train, val and test, separated by commas."""
    try:
        values = [float(one) for one in shares.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not (abs(sum(values) - 1) <= 1e-6 and min(values) >= 0):
        what = f"--split {shares!r}: write the shares of train, val and test, which add up to 1"
        raise InputError(f"{what}, such as 0.7,0.15,0.15")
    return {name: one for name, one in zip(("train", "val", "test"), values, strict=True) if one}


@dataclass(frozen=True)
class ImportSummary:
    """What an import has written."""

    folder: Path
    images: int
    maps: int
    annotators: tuple[str, ...]  # if the source has several
    notes: dict[str, int]  # what a user has to know, with counts
    without_split: int  # images in no split


def write_import(
    imported: ImportedAnnotations,
    images: Path,
    to: Path,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Write the maps of annotations and a manifest of their images.

        FOLDER/manifest.csv  maps/…  annotators/NAME/…  import.json

    The folder appears when it is complete. Images stay where they are. A ProblemsError lists all
    that is wrong with annotations, images or labels, and the decisions that are missing.
    """
    target = new_folder(to)
    options = options or ImportOptions()
    files = ImageFiles(Path(images), imported.masks, imported.mask_files)
    labels = _read_labels(options, files) if options.labels else None
    names = imported.annotators
    if names is None:
        names = [name for record in imported.read(Log()) for name in _persons(record)]
    folders = annotator_folders(sorted({*names}))
    log = Log()
    with replacing(target, new=True) as partial:
        partial.mkdir()
        drawer = MapDrawer(partial, folders, "mean")
        reading = _Import(imported, files, labels, options, drawer, log)
        for done, record in enumerate(imported.read(log), 1):
            reading.add(record)
            if progress is not None:
                progress(done, max(imported.count or 0, done))
        frame = reading.table()
        if log.problems:
            raise ProblemsError(str(imported.source), log.problems)
        if options.split:
            frame = make_splits(frame, options.split, 0)
        findings = Findings(str(imported.source), [*frame["name"]].__getitem__)
        manifest = check_raw(frame.reset_index(drop=True), partial, findings, verify=False, need=())
        manifest.write(partial / MANIFEST)
        maps, without_split = (frame["saliency"] != "").sum(), (frame["split"] == "").sum()
        summary = ImportSummary(
            to, len(frame), int(maps), tuple(folders), log.notes, int(without_split)
        )
        content = {
            "version": __version__,
            "format": imported.format,
            "source": str(imported.source),
            "images_folder": str(files.folder),
            "classes": list(imported.classes),
            "images": summary.images,
            "maps": summary.maps,
            "annotators": folders,
            "options": asdict(options) | {"labels": options.labels and str(options.labels)},
            "notes": summary.notes,
        }
        (partial / RECORD).write_text(strict_json(content) + "\n", encoding="utf-8")
    return summary


def _persons(record: AnnotatedImage) -> set[str]:
    """Annotators who looked at an image; "" if shapes name nobody."""
    return {*record.annotators, *(one.annotator for one in record.annotations)}


@dataclass
class _Row:
    """What is known of an image after its annotations were read."""

    where: str  # place in the source, for messages
    record: AnnotatedImage
    classes: tuple[str, ...] = ()  # of its drawn shapes
    examined: bool | None = None  # whether a person looked at it; None = unknown
    nothing_to_mark: bool = True  # if examined and without a map: not if its shapes left no map
    saliency: str = ""
    points: list[list[float]] = field(default_factory=list)  # if all of its shapes are points


@dataclass
class _Import:
    """Images of a source, taken one after the other."""

    imported: ImportedAnnotations
    files: ImageFiles
    labels: Mapping[str, dict[str, str]] | None  # cells by image, or None without a table
    options: ImportOptions
    drawer: MapDrawer
    log: Log
    rows: dict[str, _Row] = field(default_factory=dict)

    def add(self, record: AnnotatedImage) -> None:
        """Check an image, and draw its maps unless something was wrong before."""
        shown = "" if record.name.endswith(".*") or record.name == record.of else record.name
        place = ", ".join(filter(None, (record.of, f"{record.where} {shown}".strip())))
        with self.log.part(place, "replace the file or remove the annotation"):
            image = self.files.find(record.name, record.other_name)
            size, orientation = _frame(self.files.folder / image, record)
            if image in self.rows:
                what = f"image {image!r} is listed already in {self.rows[image].where}"
                fix = "remove one of the two, or import them one at a time"
                raise ValueError(f"{what}; {fix}")
            self.rows[image] = self._row(record, place, image, size, orientation)

    def _row(
        self,
        record: AnnotatedImage,
        place: str,
        image: str,
        size: tuple[int, int],
        orientation: int,
    ) -> _Row:
        options, log = self.options, self.log
        for number, one in enumerate(record.annotations, 1):
            if options.positive and one.label not in options.positive:
                log.note(f"shapes of the class {one.label!r} are not drawn (--positive)")
            elif why := wrong_with(one.shape, *size):
                spot = one.where or f"shape {number}"
                log.problem(f"{place}, {spot}", why, "correct or remove the shape")
        wanted = options.positive
        drawn = [one for one in record.annotations if not wanted or one.label in wanted]
        points = [one.shape.points for one in drawn if isinstance(one.shape, Points)]
        examined = True if _persons(record) else record.examined
        row = _Row(place, record, tuple(sorted({one.label for one in drawn})), examined)
        if points and len(points) == len(drawn) and orientation == 1:
            row.points = np.concatenate(points).tolist()
        if log.problems:  # nothing will be kept: only problems are looked for
            return row
        shapes: dict[str, list[Shape]] = {name: [] for name in record.annotators}
        for one in drawn:
            shapes.setdefault(one.annotator, []).append(one.shape)
        # Of several annotators, the ones who found nothing have an empty map of their own.
        if any(shapes.values()) or (self.drawer.folders and shapes):
            maps = {}
            for who, drawing in shapes.items():
                pixels = Image.fromarray(rasterize(drawing, *size))
                maps[who] = np.asarray(turned(pixels, orientation))
            row.saliency = self.drawer.save(maps, image)
        if drawn and not row.saliency:
            log.note(_NO_CENTER)
            row.nothing_to_mark = False
        return row

    def table(self) -> pd.DataFrame:
        """Table of the manifest; problems are noted in the log."""
        options, labels, log = self.options, self.labels, self.log
        every = self.files.names if self.imported.whole_folder else []
        for name in every if labels is None else labels:
            split = split_of_folders(PurePosixPath(name))
            self.rows.setdefault(name, _Row(name, AnnotatedImage(name, None, (), split=split)))
        self._decide_unmarked()
        self._check_classes()
        records: list[dict[str, object]] = []
        for image, row in self.rows.items():
            path = (self.files.folder.absolute() / image).as_posix()
            if (printable := os.fsencode(path).decode("utf-8", "backslashreplace")) != path:
                log.problem(printable, "its name or folder is not UTF-8", "rename it")
                continue
            cells = dict((labels or {}).get(image, {}))
            if labels is not None and not cells:
                what = f"image {image!r} is not in {options.labels}"
                log.problem(row.where, what, "add its label")
                continue
            if labels is None and not (any(row.record.labels) or row.classes or row.examined):
                log.note(_NO_CLASS)
                continue
            with log.part(row.where, "give --labels"):
                label = cells.pop("label", "") or label_of(row, options, self.imported.unnamed)
                judged = bool(row.saliency) or (bool(row.examined) and row.nothing_to_mark)
                own = {
                    "path": path,
                    "name": image,
                    "label": label,
                    "split": cells.get("split") or row.record.split,
                    "saliency": row.saliency,
                    "annotated": cells.get("annotated") or int(judged),
                    "source": cells.get("source", ""),
                    "group": cells.get("group", ""),
                    POINTS: ";".join(f"{x:g},{y:g}" for x, y in row.points),
                }
                records.append({**cells, **own})
        if not records and not log.problems:
            what = "it names no image that somebody examined, so that no class is known"
            log.problem("the source", what, "check the source and --images, or give --labels")
        frame = pd.DataFrame(records)
        if len(frame) and (frame[POINTS] == "").all():
            frame = frame.drop(columns=POINTS)
        if len(frame) and options.group_by:
            frame["group"] = groups_of(frame, options.group_by, log)
        return frame

    def _cell(self, image: str, name: str) -> str:
        return (self.labels or {}).get(image, {}).get(name, "")

    def _decide_unmarked(self) -> None:
        """Decide whether images without a shape were examined, where the source does not say."""
        nothing = set(self.options.nothing_to_mark)
        unknown: list[_Row] = []
        for image, row in self.rows.items():
            if row.classes or row.examined is not None or self._cell(image, "annotated"):
                continue
            if nothing:
                row.examined = bool(nothing & {self._cell(image, "label"), *row.record.labels})
            else:
                unknown.append(row)
                if self.options.unmarked is not None:
                    row.examined = self.options.unmarked == "examined"
        matters = any(row.classes for row in self.rows.values()) or (
            # Shapes that were wrong are among the problems already.
            self.labels is None
            and not self.log.problems
            and not all(any(row.record.labels) for row in unknown)
        )
        if unknown and unknown[0].examined is None and matters:
            self.log.problem(
                f"{len(unknown):,} of {len(self.rows):,} images",
                "they have no shape, and the source does not say whether somebody looked at them",
                "add --unmarked examined (looked at, nothing to mark), --unmarked unknown, or "
                "--nothing-to-mark CLASS (looked at in this class alone)",
            )

    def _check_classes(self) -> None:
        """Note classes of `--positive` and `--nothing-to-mark` that do not occur."""
        drawn = {name for row in self.rows.values() for name in row.classes}
        given = {name for row in self.rows.values() for name in row.record.labels}
        given |= {self._cell(image, "label") for image in self.labels or {}}
        for option, wanted, used, known in (
            ("--positive", self.options.positive, drawn, drawn | {*self.imported.classes}),
            ("--nothing-to-mark", self.options.nothing_to_mark, given, given),
        ):
            for name in sorted({*wanted} - used) if not self.log.problems else ():
                listed = ", ".join(sorted(known - {""})) or "none"
                what = "no image has this label or a shape of this class"
                self.log.problem(f"{option} {name!r}", what, f"known: {listed}")


def _frame(path: Path, record: AnnotatedImage) -> tuple[tuple[int, int], int]:
    """Size that coordinates refer to, and the EXIF orientation that turns them upright."""
    stated = record.size
    stored, orientation = stored_size(path)
    upright = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if stated in (None, upright) or record.upright:
        stored, orientation = upright, 1
    if stated is not None and stated != stored:
        real = f"{upright[0]}×{upright[1]}"
        what = f"the annotations are for {stated[0]}×{stated[1]}, the image is {real}"
        fix = "use the image that was annotated, or correct the size in the file"
        raise ValueError(f"{what}; {fix}")
    return stored, orientation


def _read_labels(options: ImportOptions, images: ImageFiles) -> dict[str, dict[str, str]]:
    """Cells of a table with the columns `path` and `label`, by the path of the image."""
    assert options.labels is not None
    cells, findings = read_cells(options.labels, ("path", "label"))
    replaced = ["name", "saliency", "split" * bool(options.split), "group" * bool(options.group_by)]
    check_cells(cells.drop(columns=replaced, errors="ignore"), Path(), findings, (), None)
    rows: dict[str, dict[str, str]] = {}
    for number, row in enumerate(cells.to_dict("records")):
        try:
            image = images.find(str(row.pop("path")))
        except LookupError as error:
            what, _, fix = str(error).rpartition("; ")
            findings.add(number, what, fix)
            continue
        if image in rows:
            findings.add(number, f"image {image!r} is listed already", "remove one of the two")
        rows[image] = {str(key): str(value) for key, value in row.items()}
    findings.raise_if_any()
    return rows


def label_of(row: _Row, options: ImportOptions, unnamed: str) -> str:
    """Label of an image in no table, of stated classes of the image and classes of its shapes.

    Raises:
        LookupError: There is no one label.
    """

    def shown(names: Sequence[str]) -> str:
        more = ", …" if len(names) > 5 else ""
        return f"{len(names)} classes ({', '.join(map(repr, names[:5]))}{more})"

    different = sorted(set(row.record.labels) - {""})
    if len(different) > 1:
        what = f"the source gives it {shown(different)}"
        raise LookupError(f"{what}; keep one there, or give --labels")
    if different:
        return different[0]
    different = sorted(set(row.classes))
    if not different:
        return options.negative
    if "" in different:
        raise LookupError(f"{unnamed}, or give --labels")
    if len(options.positive) > 1 or (options.positive and len(different) > 1):
        return "positive"
    if len(different) == 1:
        return different[0]
    what = f"it has shapes of {shown(different)}, so that it has no one label"
    raise LookupError(f"{what}; choose --positive CLASS (repeatable), or give --labels")


def groups_of(frame: pd.DataFrame, group_by: str, log: Log) -> pd.Series:
    """Group of each image: the first parentheses of a regular expression on `name`.

    Images without a group are problems: they would be divided from others of the same subject.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        what = f"it is no regular expression ({error}); correct it"
        raise InputError(f"--group-by {group_by!r}: {what}") from None
    matches = frame["name"].astype(str).map(pattern.search)
    groups = matches.map(lambda one: (one[min(pattern.groups, 1)] or "") if one else "")
    if len(groups) > 1 and groups.nunique() == 1 and groups.iloc[0]:
        what = f"every image is in the group {groups.iloc[0]!r}"
        raise InputError(f"--group-by {group_by!r}: {what}; put what differs in parentheses")
    for name in frame.loc[groups == "", "name"].astype(str):
        log.problem(name, f"--group-by '{group_by}' does not fit its path", "correct it")
    return groups.astype("str")
