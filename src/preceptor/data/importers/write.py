"""Imported annotations as a folder: manifest, maps, maps of each annotator, and a record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.data.decode_pass import Progress
from preceptor.data.images import ImageError, decode_image
from preceptor.data.importers.frames import frame_of
from preceptor.data.importers.image_files import ImageFiles, safe_name
from preceptor.data.importers.image_labels import LabelTable, label_of, read_labels
from preceptor.data.importers.options import ImportOptions
from preceptor.data.importers.rasterize import rasterize
from preceptor.data.importers.row_groups import groups_of
from preceptor.data.importers.shape_checks import wrong_shape
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Pixels,
    Shape,
)
from preceptor.data.manifest import Manifest
from preceptor.data.merge_annotators import MERGES
from preceptor.data.split import make_splits
from preceptor.errors import InputError, Problem, ProblemsError
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json
from preceptor.version import __version__

MANIFEST, RECORD = "manifest.csv", "import.json"
MAPS, ANNOTATORS, EMBEDDED = "maps", "annotators", "images"


@dataclass(frozen=True)
class ImportSummary:
    """What an import has written.

    Args:
        folder: The folder.
        images, maps: Numbers of images and of maps.
        annotators: Persons, if the source has several.
        notes: What a user has to know, with counts.
        has_splits: Whether every image is in a split.
    """

    folder: Path
    images: int
    maps: int
    annotators: tuple[str, ...]
    notes: dict[str, int]
    has_splits: bool


@dataclass
class _Row:
    """Row of the manifest before the labels are complete."""

    image: str
    where: str
    stated: str
    classes: tuple[str, ...]
    split: str
    examined: bool | None
    saliency: str = ""
    seconds: float | None = None
    embedded: bool = False


def write_import(
    imported: ImportedAnnotations,
    images: Path,
    to: Path,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Write the maps of annotations and a manifest of their images.

        FOLDER/manifest.csv  maps/…  annotators/NAME/…  images/… (embedded ones)  import.json

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
    to = Path(os.path.abspath(to))  # noqa: PTH100
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"{to} exists already; name a new folder with --to")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    writer = _Writer(imported, ImageFiles(images), options or ImportOptions())
    with replacing(to) as partial:
        partial.mkdir()
        return writer.write(partial, to, progress)


@dataclass
class _Writer:
    imported: ImportedAnnotations
    images: ImageFiles
    options: ImportOptions
    log: Log = field(default_factory=Log)
    rows: dict[str, _Row] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)  # of annotators
    taken: dict[str, str] = field(default_factory=dict)  # image of each map, by its name

    def write(self, partial: Path, to: Path, progress: Progress | None) -> ImportSummary:
        """Write everything into `partial`, which becomes `to`."""
        options = self.options
        labels = read_labels(options.labels, self.images) if options.labels else None
        self._find_persons()
        total = self.imported.count or 0
        for done, record in enumerate(self.imported.read(self.log), 1):
            self._one(record, partial)
            if progress is not None:
                progress(done, max(total, done))
        self._add_unlisted(labels)
        frame = self._table(labels, to)
        if self.log.problems:
            raise ProblemsError(str(self.imported.source), self.log.problems)
        if options.split:
            frame = make_splits(frame, options.split, options.seed)
        manifest = Manifest.from_frame(frame, partial, self.imported.source, need=())
        manifest.write(partial / MANIFEST)
        summary = ImportSummary(
            to, len(frame), int((frame["saliency"] != "").sum()), tuple(sorted(self.folders)),
            self.log.notes, bool((frame["split"] != "").all()),
        )  # fmt: skip
        text = strict_json(self._record(summary)) + "\n"
        (partial / RECORD).write_text(text, encoding="utf-8")
        return summary

    def _find_persons(self) -> None:
        """Find the annotators; a pass of its own, as the maps depend on their number."""
        found = set(self.imported.annotators or ())
        for record in self.imported.read(Log()) if self.imported.annotators is None else ():
            found.update(record.annotators)
            found.update(one.annotator for one in record.annotations if not one.prediction)
        named = sorted(found - {""})
        if len(named) > 1:
            for name in named:
                folder, number = safe_name(name), 2
                while folder.casefold() in {one.casefold() for one in self.folders.values()}:
                    folder, number = f"{safe_name(name)}-{number}", number + 1
                self.folders[name] = folder
        merge = self.options.merge
        if merge not in MERGES and merge not in found:
            known = ", ".join([*MERGES, *named])
            raise InputError(f"--merge {merge!r}: neither a rule nor an annotator; known: {known}")

    def _one(self, record: AnnotatedImage, partial: Path) -> None:
        shown = "" if record.name.endswith(".*") or record.name == record.of else record.name
        place = ", ".join(filter(None, (record.of, f"{record.where} {shown}".strip())))
        try:
            image, content = self._image(record)
            path = self.images.folder / image
            by_tool = self.imported.frame
            frame = frame_of(path, record.size, by_tool, self.options.exif, content)
        except (LookupError, ValueError) as error:
            what, _, fix = str(error).rpartition("; ")
            self.log.problem(place, what or str(error), fix if what else _SIZE_FIX)
            return
        except ImageError as error:
            self.log.problem(place, error.reason, "replace the file or remove the annotation")
            return
        if image in self.rows:
            what = f"image {image!r} is listed already in {self.rows[image].where}"
            self.log.problem(place, what, "remove one of the two, or import them one at a time")
            return
        drawn = [one for one in record.annotations if self._is_drawn(one)]
        wrong = False
        for number, one in enumerate(drawn):
            if why := wrong_shape(one.shape, frame.width, frame.height, self.options.raster):
                spot = one.where or f"shape {number + 1}"
                self.log.problem(f"{place}, {spot}", why, "correct or remove the shape")
                wrong = True
        person = self._alone()
        used = [one for one in drawn if person in (None, one.annotator)]
        row = _Row(
            image, place, record.label, tuple(sorted({one.label for one in used})), record.split,
            self._examined(record), seconds=record.seconds, embedded=content is not None,
        )  # fmt: skip
        self.rows[image] = row
        if wrong or self.log.problems:  # nothing will be kept: only problems are looked for
            return
        if content is not None:
            _save(partial / EMBEDDED / image, content)
        by_person: dict[str, list[Shape]] = {name: [] for name in record.annotators}
        for one in drawn:
            by_person.setdefault(one.annotator, []).append(one.shape)
        row.saliency = self._draw(by_person, frame, image, partial)

    def _draw(
        self, by_person: dict[str, list[Shape]], frame: Any, image: str, partial: Path
    ) -> str:
        """Write the maps of an image; returns the path of the merged one, "" if it is empty."""
        merge, alone = self.options.merge, self._alone() is not None
        several = bool(self.folders)
        if not any(by_person.values()) and not (several and by_person):
            return ""
        name = self._map_name(image)
        maps: dict[str, Pixels] = {}
        for person, shapes in by_person.items():
            if alone and person != merge and not several:
                continue
            drawn = rasterize(shapes, frame.width, frame.height, self.options.raster)
            maps[person] = frame.upright(drawn)
            if several and person:
                _save_map(partial / ANNOTATORS / self.folders[person] / name, maps[person])
        if alone:
            merged = maps.get(merge)
        elif len(maps) == 1:
            merged = next(iter(maps.values()))
        else:
            merged = MERGES[merge](np.stack(list(maps.values())))
        if merged is None or not merged.any():
            return ""
        _save_map(partial / MAPS / name, merged)
        return f"{MAPS}/{name}"

    def _alone(self) -> str | None:
        """Annotator whose maps alone are used, if one is chosen."""
        return None if self.options.merge in MERGES else self.options.merge

    def _examined(self, record: AnnotatedImage) -> bool | None:
        """Whether somebody looked at an image; None = it is not known."""
        persons = {one.annotator for one in record.annotations if not one.prediction}
        persons.update(record.annotators)
        if (person := self._alone()) is not None:
            return person in persons
        return True if persons else record.examined

    def _map_name(self, image: str) -> str:
        """Name of the map of an image; with the suffix of the image if two would have one name."""
        name = PurePosixPath(image).with_suffix(".png").as_posix()
        if name.casefold() in self.taken:
            name = f"{image}.png"
        self.taken[name.casefold()] = image
        return name

    def _image(self, record: AnnotatedImage) -> tuple[str, bytes | None]:
        """Path of the image from the folder, or the embedded one with its name."""
        try:
            return self.images.find(record.name), None
        except LookupError:
            if record.embedded is None or ".." in record.name.replace("\\", "/").split("/"):
                raise
        name = safe_name(record.name)
        decode_image(Path(name), content=record.embedded)
        return name, record.embedded

    def _is_drawn(self, one: Annotation) -> bool:
        if one.prediction:
            self.log.note("shapes of models (predictions) are not drawn")
            return False
        if self.options.positive and one.label not in self.options.positive:
            self.log.note(f"shapes of the class {one.label!r} are not drawn (--positive)")
            return False
        return True

    def _add_unlisted(self, labels: LabelTable | None) -> None:
        """Add images that the source does not mention, without shapes."""
        names: list[str] = []
        if labels is not None:
            names = [name for name in labels.rows if name not in self.rows]
        elif self.imported.whole_folder:
            names = [name for name in self.images.names if name not in self.rows]
        for name in names:
            self.rows[name] = _Row(name, name, "", (), "", None)

    def _table(self, labels: LabelTable | None, to: Path) -> pd.DataFrame:
        """Table of the manifest; problems are noted."""
        self._decide_unmarked()
        positive = self.options.positive
        seen = {name for row in self.rows.values() for name in row.classes}
        for name in positive:
            if self.rows and name not in seen:
                known = ", ".join(sorted(seen | set(self.imported.classes))) or "none"
                self.log.problem(
                    f"--positive {name!r}", "no image has a shape of it", f"known: {known}"
                )
        records: list[dict[str, object]] = []
        for image, row in self.rows.items():
            cells = labels.rows.get(image) if labels else None
            if labels is not None and cells is None:
                what = f"image {image!r} is not in {self.options.labels}"
                self.log.problem(row.where, what, "add its label")
                continue
            cells = dict(cells or {})
            try:
                label = cells.pop("label", "") or label_of(row.stated, row.classes, self.options)
            except LookupError as error:
                what, _, fix = str(error).rpartition("; ")
                self.log.problem(row.where, what, fix)
                continue
            folder = Path(EMBEDDED) if row.embedded else self.images.folder.absolute()
            records.append(
                cells
                | {
                    "path": (folder / image).as_posix(),
                    "name": image,
                    "label": label,
                    "split": cells.get("split", "") or row.split,
                    "saliency": row.saliency,
                    "annotated": int(bool(row.saliency) or bool(row.examined)),
                    "source": cells.get("source", ""),
                    "group": cells.get("group", ""),
                    "annotation_seconds": "" if row.seconds is None else row.seconds,
                }
            )
        if not records and not self.log.problems:
            self.log.problem("the source", "it names no image", "check the file and --images")
        frame = pd.DataFrame(records)
        if len(frame) and self.options.group_by:
            frame["group"] = groups_of(frame, self.options.group_by, self.log)
        if len(frame) and (frame["annotation_seconds"] == "").all():
            frame = frame.drop(columns="annotation_seconds")
        return frame

    def _decide_unmarked(self) -> None:
        """Whether images without a shape were examined, where the source does not say."""
        open_rows = [r for r in self.rows.values() if not r.classes and r.examined is None]
        if not open_rows:
            return
        chosen = self.options.unmarked
        marked = sum(1 for row in self.rows.values() if row.classes)
        if chosen is None and marked:
            self.log.problem(
                f"{len(open_rows):,} of {len(self.rows):,} images",
                "they have no shape, and the source does not say whether somebody looked at them",
                "add --unmarked examined (looked at, nothing to mark) or --unmarked unknown",
            )
        for row in open_rows:
            row.examined = chosen == "examined"

    def _record(self, summary: ImportSummary) -> dict[str, Any]:
        options = self.options
        raster = options.raster
        return {
            "version": __version__,
            "format": self.imported.format,
            "source": str(self.imported.source),
            "images_folder": str(self.images.folder),
            "classes": list(self.imported.classes),
            "images": summary.images,
            "maps": summary.maps,
            "annotators": self.folders,
            "options": {
                "shape": f"soft:{raster.soft:g}" if raster.shape == "soft" else raster.shape,
                "line_width": raster.line_width,
                "point_radius": raster.point_radius,
                "labels": str(options.labels) if options.labels else None,
                "positive": list(options.positive),
                "negative": options.negative,
                "unmarked": options.unmarked,
                "merge": options.merge,
                "exif": options.exif,
                "split": options.split,
                "group_by": options.group_by or None,
                "seed": options.seed,
            },
            "notes": summary.notes,
        }


_SIZE_FIX = "use the image that was annotated, or correct the size in the file"


def _save_map(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Level 1: higher levels take several times as long for a few percent.
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def problems_of(imported: ImportedAnnotations) -> Iterator[Problem]:
    """Problems of a source by itself, without images."""
    log = Log()
    for _ in imported.read(log):
        pass
    yield from log.problems
