"""Imported annotations as a folder: manifest, maps, maps of each annotator, and a record."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.annotations.files import RECORD, ImageFiles
from preceptor.annotations.merge import MERGES, MapDrawer, annotator_folders, check_merge
from preceptor.annotations.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    RasterOptions,
    Shape,
    rasterize,
    wrong_with,
)
from preceptor.data.checks import text
from preceptor.data.images import ImageError, stored_size, turned
from preceptor.data.manifest import Manifest
from preceptor.data.splits import make_splits
from preceptor.data.table import Findings, read_table
from preceptor.errors import InputError, ProblemsError
from preceptor.utils.files import replacing
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

MANIFEST = "manifest.csv"
_NO_CENTER = (
    "images have shapes that contain the center of no pixel; they have no map and are not annotated"
)
_NO_PIXEL = (
    "images have shapes of most annotators, but --merge {} leaves no pixel; they have no map and "
    "are not annotated"
)
_NO_CLASS = (
    "images that nobody examined are left out, since their class is unknown; --labels gives it"
)


@dataclass(frozen=True)
class ImportOptions:
    """How annotations become a manifest with maps.

    Args:
        raster: How shapes become maps.
        labels: CSV with `path,label[,split,source,group,annotated]`, or None: labels come from the
            source.
        positive: Classes of shapes that are drawn and give an image its label; empty = all.
        negative: Label of images without such a shape.
        unmarked: What an image without a shape means where the source does not say: `examined`
            (somebody looked, and found nothing to mark) or `unknown` (nobody looked).
        nothing_to_mark: Labels whose images without a shape were examined; others were not.
        merge: Name of a function of `MERGES`, or of an annotator whose maps alone are used.
        split: Shares of splits by name; empty = the splits of the source.
        group_by: Column of `labels`, or regular expression on the path of the image, that
            identifies images that depend on each other.
        seed: Random seed of the splits.
    """

    raster: RasterOptions = field(default_factory=RasterOptions)
    labels: Path | None = None
    positive: tuple[str, ...] = ()
    negative: str = "negative"
    unmarked: Literal["examined", "unknown"] | None = None
    nothing_to_mark: tuple[str, ...] = ()
    merge: str = "mean"
    split: dict[str, float] = field(default_factory=dict)
    group_by: str = ""
    seed: int = 0


def parse_split(shares: str) -> dict[str, float]:
    """Shares of `--split`: train, val and test, separated by commas.

    Raises:
        InputError: It is another text.

    Example:
        >>> parse_split("0.7,0.15,0.15")
        {'train': 0.7, 'val': 0.15, 'test': 0.15}
    """
    try:
        values = [float(one) for one in shares.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not (abs(sum(values) - 1) <= 1e-6 and min(values) >= 0):
        raise InputError(
            f"--split {shares!r}: write the shares of train, val and test, which add up to 1, such "
            "as 0.7,0.15,0.15"
        )
    return {name: one for name, one in zip(("train", "val", "test"), values, strict=True) if one}


@dataclass(frozen=True)
class ImportSummary:
    """What an import has written.

    Args:
        folder: The folder.
        images, maps: Numbers of images and of maps.
        annotators: Persons, if the source has several.
        notes: What a user has to know, with counts.
        without_split: Number of images that are in no split.
    """

    folder: Path
    images: int
    maps: int
    annotators: tuple[str, ...]
    notes: dict[str, int]
    without_split: int


def write_import(
    imported: ImportedAnnotations,
    images: Path,
    to: Path,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Write the maps of annotations and a manifest of their images.

        FOLDER/manifest.csv  maps/…  annotators/NAME/…  import.json

    The folder appears when it is complete. Images stay where they are.

    Args:
        imported: Annotations of a reader.
        images: Folder of the images.
        to: Output folder, new or empty.
        options: How annotations become a manifest.
        progress: Function called with (done, total).

    Returns:
        Numbers and notes.

    Raises:
        ProblemsError: Annotations, images or labels are invalid; lists all problems.
        InputError: A decision of the user is missing, or the folder exists.
    """
    target = new_folder(to)
    options = options or ImportOptions()
    files = ImageFiles(Path(images), imported.masks, imported.mask_files)
    labels = _read_labels(options.labels, files) if options.labels else None
    names = imported.annotators
    if names is None:
        names = [
            name
            for record in imported.read(Log())
            for name in (*record.annotators, *(_drawn_by(record)))
        ]
    names = sorted({"", *names})
    check_merge(options.merge, names)
    folders = annotator_folders(names)
    log = Log()
    with replacing(target) as partial:
        partial.mkdir()
        drawer = MapDrawer(partial, folders, options.merge, options.raster)
        reading = _Import(imported, files, options, drawer, log)
        for done, record in enumerate(imported.read(log), 1):
            reading.add(record)
            if progress is not None:
                progress(done, max(imported.count or 0, done))
        frame = reading.table(labels)
        if log.problems:
            raise ProblemsError(str(imported.source), log.problems)
        if options.split:
            frame = make_splits(frame, options.split, options.seed)
        manifest = Manifest.from_frame(frame, partial, imported.source, need=())
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


def new_folder(to: Path) -> Path:
    """Absolute path of an output folder, new or empty."""
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"{to} exists already; name a new folder with --to")
    target = Path(os.path.abspath(to))  # noqa: PTH100
    if not target.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    return target


@dataclass
class _Row:
    """What is known of an image after its annotations were read.

    Args:
        where: Place in the source, for messages.
        record: The image as the source states it.
        classes: Classes of its drawn shapes.
        examined: Whether a person looked at it; None = unknown.
        nothing_to_mark: Whether an examined image without a map has nothing to be marked: not if
            the annotator of `--merge` did not look at it, or if its shapes left no map.
        saliency: Path of the map from the output folder, or "".
    """

    where: str
    record: AnnotatedImage
    classes: tuple[str, ...] = ()
    examined: bool | None = None
    nothing_to_mark: bool = True
    saliency: str = ""


@dataclass
class _Import:
    """Images of a source, taken one after the other."""

    imported: ImportedAnnotations
    files: ImageFiles
    options: ImportOptions
    drawer: MapDrawer
    log: Log
    rows: dict[str, _Row] = field(default_factory=dict)

    def add(self, record: AnnotatedImage) -> None:
        """Check an image, and draw its maps unless something was wrong before."""
        shown = "" if record.name.endswith(".*") or record.name == record.of else record.name
        place = ", ".join(filter(None, (record.of, f"{record.where} {shown}".strip())))
        try:
            use_other = record.other_name and not self.files.has(record.name)
            image = self.files.find(record.other_name if use_other else record.name)
            size, orientation = _frame(self.files.folder / image, record)
        except LookupError as error:
            self.log.error(place, error, "correct the annotation")
            return
        except ImageError as error:
            self.log.problem(place, error.reason, "replace the file or remove the annotation")
            return
        except ValueError as error:
            fix = "use the image that was annotated, or correct the size in the file"
            self.log.problem(place, str(error), fix)
            return
        if image in self.rows:
            what = f"image {image!r} is listed already in {self.rows[image].where}"
            self.log.problem(place, what, "remove one of the two, or import them one at a time")
            return
        drawn = [one for one in record.annotations if self._is_drawn(one)]
        for number, one in enumerate(drawn, 1):
            if why := wrong_with(one.shape, *size, self.options.raster):
                spot = one.where or f"shape {number}"
                self.log.problem(f"{place}, {spot}", why, "correct or remove the shape")
        persons = {*_drawn_by(record), *record.annotators}
        # The annotator of `--merge` decides; of images that this person did not see, the others.
        alone = None if self.options.merge in MERGES else self.options.merge
        decides = alone is None or alone in persons
        own = [one for one in drawn if alone in (None, one.annotator)]
        row = self.rows[image] = _Row(
            place,
            record,
            tuple(sorted({one.label for one in (own if decides else drawn)})),
            True if persons else record.examined,
            nothing_to_mark=decides,
        )
        if self.log.problems:  # nothing will be kept: only problems are looked for
            return
        shapes: dict[str, list[Shape]] = {name: [] for name in record.annotators}
        for one in drawn:
            shapes.setdefault(one.annotator, []).append(one.shape)
        # Of several annotators, the ones who found nothing have an empty map of their own.
        if any(shapes.values()) or (self.drawer.folders and shapes):
            raster = self.drawer.before_blur
            maps = {who: rasterize(drawing, *size, raster) for who, drawing in shapes.items()}
            if orientation != 1:
                maps = {
                    who: np.asarray(turned(Image.fromarray(pixels), orientation))
                    for who, pixels in maps.items()
                }
            row.saliency = self.drawer.save(maps, image)
        if own and not row.saliency:
            if alone is not None or len(shapes) == 1:
                self.log.note(_NO_CENTER)
                row.nothing_to_mark = False
            elif 2 * sum(map(bool, shapes.values())) > len(shapes):
                self.log.note(_NO_PIXEL.format(self.options.merge))
                row.nothing_to_mark = False

    def _is_drawn(self, one: Annotation) -> bool:
        if one.prediction:
            self.log.note("shapes of models (predictions) are not drawn")
            return False
        if self.options.positive and one.label not in self.options.positive:
            self.log.note(f"shapes of the class {one.label!r} are not drawn (--positive)")
            return False
        return True

    def table(self, labels: Mapping[str, dict[str, str]] | None) -> pd.DataFrame:
        """Table of the manifest; problems are noted in the log."""
        names = self.files.names if self.imported.whole_folder else []
        for name in names if labels is None else labels:
            blank = AnnotatedImage(name, None, ())
            self.rows.setdefault(name, _Row(name, blank))
        self._decide_unmarked(labels)
        self._check_classes(labels)
        records: list[dict[str, object]] = []
        for image, row in self.rows.items():
            path = (self.files.folder.absolute() / image).as_posix()
            if (printable := os.fsencode(path).decode("utf-8", "backslashreplace")) != path:
                self.log.problem(printable, "its name or folder is not UTF-8", "rename it")
                continue
            cells = dict(labels.get(image, {})) if labels else {}
            if labels is not None and not cells:
                what = f"image {image!r} is not in {self.options.labels}"
                self.log.problem(row.where, what, "add its label")
                continue
            if labels is None and not (any(row.record.labels) or row.classes or row.examined):
                self.log.note(_NO_CLASS)
                continue
            try:
                label = cells.pop("label", "") or label_of(
                    row.record.labels, row.classes, self.options
                )
            except LookupError as error:
                self.log.error(row.where, error, "give --labels")
                continue
            judged = bool(row.saliency) or (bool(row.examined) and row.nothing_to_mark)
            seconds = row.record.seconds
            own = {
                "path": path,
                "name": image,
                "label": label,
                "split": cells.get("split") or row.record.split,
                "saliency": row.saliency,
                "annotated": cells.get("annotated") or int(judged),
                "source": cells.get("source", ""),
                "group": cells.get("group", ""),
                "annotation_seconds": "" if seconds is None else seconds,
            }
            records.append({**cells, **own})
        if not self.rows and not self.log.problems:
            self.log.problem("the source", "it names no image", "check the source and --images")
        elif not records and not self.log.problems:
            what = "nobody examined its images, so that their classes are unknown"
            self.log.problem("the source", what, "give --labels")
        frame = pd.DataFrame(records)
        if len(frame) and self.options.group_by:
            frame["group"] = groups_of(frame, self.options.group_by, self.log)
        if len(frame) and (frame["annotation_seconds"] == "").all():
            frame = frame.drop(columns="annotation_seconds")
        return frame

    def _decide_unmarked(self, labels: Mapping[str, dict[str, str]] | None) -> None:
        """Decide whether images without a shape were examined, where the source does not say."""
        nothing = set(self.options.nothing_to_mark)
        unknown: list[_Row] = []
        for image, row in self.rows.items():
            cells = (labels or {}).get(image, {})
            if row.classes or row.examined is not None or cells.get("annotated"):
                continue
            unknown.append(row)
            if nothing:
                row.examined = bool(nothing & {cells.get("label", ""), *row.record.labels})
            elif self.options.unmarked is not None:
                row.examined = self.options.unmarked == "examined"
        matters = any(row.classes for row in self.rows.values()) or (
            # Shapes that were wrong are among the problems already.
            labels is None
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

    def _check_classes(self, labels: Mapping[str, dict[str, str]] | None) -> None:
        """Note classes of `--positive` and `--nothing-to-mark` that do not occur."""
        drawn = {name for row in self.rows.values() for name in row.classes}
        given = {name for row in self.rows.values() for name in row.record.labels}
        given |= {cells.get("label", "") for cells in (labels or {}).values()}
        for option, wanted, known, what in (
            ("--positive", self.options.positive, drawn, "no image has a shape of this class"),
            ("--nothing-to-mark", self.options.nothing_to_mark, given, "no image has this label"),
        ):
            for name in wanted:
                if name not in known and not self.log.problems:
                    more = set(self.imported.classes) if option == "--positive" else set()
                    listed = ", ".join(sorted((known | more) - {""})) or "none"
                    self.log.problem(f"{option} {name!r}", what, f"known: {listed}")


def _drawn_by(record: AnnotatedImage) -> set[str]:
    """Annotators of the shapes of an image."""
    return {one.annotator for one in record.annotations if not one.prediction}


def _frame(path: Path, record: AnnotatedImage) -> tuple[tuple[int, int], int]:
    """Size of the pixels that coordinates refer to, and the EXIF orientation that turns them.

    They are upright, unless the orientation exchanges the sides and the stated size is as stored.
    """
    stated = record.size
    stored, orientation = stored_size(path)
    upright = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if stated in (None, upright) or record.upright:
        stored, orientation = upright, 1
    if stated is not None and stated != stored:
        real = f"{upright[0]}×{upright[1]}"
        raise ValueError(f"the annotations are for {stated[0]}×{stated[1]}, the image is {real}")
    return stored, orientation


def _read_labels(path: Path, images: ImageFiles) -> dict[str, dict[str, str]]:
    """Cells of a table with the columns `path` and `label`, by the path of the image."""
    findings = Findings(str(path))
    raw = read_table(path, findings)
    frame = raw.frame
    for name in ("path", "label"):
        if name not in frame.columns:
            columns = ", ".join(map(str, frame.columns))[:200]
            fix = f"add it; the first row must contain the column names (found: {columns})"
            findings.add(None, f"column {name!r} is missing", fix, where="the header")
    findings.raise_if_any()
    cells = pd.DataFrame({str(c): text(frame[c]).str.strip() for c in frame.columns})
    rows: dict[str, dict[str, str]] = {}
    for number, row in zip(raw.rows.tolist(), cells.to_dict("records"), strict=True):
        try:
            image = images.find(str(row["path"]))
        except LookupError as error:
            what, _, fix = str(error).rpartition("; ")
            findings.add(number, what, fix)
            continue
        if not row["label"]:
            findings.add(number, "label is empty", "write the class of the image")
        if image in rows:
            findings.add(number, f"image {image!r} is listed already", "remove one of the two")
        rows[image] = {str(key): str(value) for key, value in row.items() if key != "path"}
    findings.raise_if_any()
    return rows


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

    def shown(names: Sequence[str]) -> str:
        more = ", …" if len(names) > 5 else ""
        return f"{len(names)} classes ({', '.join(map(repr, names[:5]))}{more})"

    different = sorted(set(stated) - {""})
    if len(different) > 1:
        raise LookupError(
            f"the source gives it {shown(different)}; keep one there, or give --labels"
        )
    if different:
        return different[0]
    different = sorted(set(classes))
    if not different:
        return options.negative
    if "" in different:
        raise LookupError("it has a shape without a class; name the class there, or give --labels")
    if len(options.positive) > 1 or (options.positive and len(different) > 1):
        return "positive"
    if len(different) == 1:
        return different[0]
    raise LookupError(
        f"it has shapes of {shown(different)}, so that it has no one label; choose --positive "
        "CLASS (repeatable), or give --labels"
    )


def groups_of(frame: pd.DataFrame, group_by: str, log: Log) -> pd.Series:
    """Group of each image.

    Args:
        frame: Table with `name` (path of the image from its folder) and the columns of the labels.
        group_by: Name of a column, or regular expression that is looked for in `name`: the group
            is what its first parentheses match, or all that it matches.
        log: Notes the images that it does not fit, and images without a group in the column, which
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
    matches = [pattern.search(name) for name in frame["name"].astype(str)]
    found = [(match[1] if pattern.groups else match[0]) if match else "" for match in matches]
    for name, group in zip(frame["name"].astype(str), found, strict=True):
        if not group:
            log.problem(name, f"--group-by {group_by!r} does not fit its path", "correct it")
    return pd.Series([group or "" for group in found], index=frame.index, dtype="str")
