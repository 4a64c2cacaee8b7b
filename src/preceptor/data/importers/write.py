"""Imported annotations as a folder: manifest, maps, maps of each annotator, and a record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from preceptor.data.images import ImageError, decode_image
from preceptor.data.importers.draw_maps import (
    MapDrawer,
    annotator_folders,
    check_merge,
    find_annotators,
)
from preceptor.data.importers.frames import ImageFrame, frame_of
from preceptor.data.importers.image_files import ImageFiles, safe_name
from preceptor.data.importers.image_labels import LabelTable, read_labels
from preceptor.data.importers.image_rows import ImageRow, manifest_table
from preceptor.data.importers.map_files import MapFiles
from preceptor.data.importers.options import ImportOptions
from preceptor.data.importers.shape_checks import wrong_shapes
from preceptor.data.importers.shapes import (
    AnnotatedImage,
    Annotation,
    ImportedAnnotations,
    Log,
    Shape,
)
from preceptor.data.manifest import Manifest
from preceptor.data.merge_annotators import MERGES
from preceptor.data.splits import make_splits
from preceptor.errors import InputError, ProblemsError
from preceptor.runtime.progress import Progress
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json
from preceptor.version import __version__

MANIFEST, RECORD, EMBEDDED = "manifest.csv", "import.json", "images"


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
    target = Path(os.path.abspath(to))  # noqa: PTH100
    options = options or ImportOptions()
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"{to} exists already; name a new folder with --to")
    if not target.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    files = ImageFiles(Path(images), imported.masks, imported.mask_files)
    labels = read_labels(options.labels, files) if options.labels else None
    names = find_annotators(imported)
    check_merge(options.merge, names)
    folders = annotator_folders(names)
    log = Log()
    with replacing(target) as partial:
        partial.mkdir()
        with MapFiles(partial) as maps:
            drawer = MapDrawer(maps, folders, options.merge, options.raster)
            reading = _Reading(imported, files, options, drawer, log)
            for done, record in enumerate(imported.read(log), 1):
                reading.add(record)
                if progress is not None:
                    progress(done, max(imported.count or 0, done))
        reading.add_unlisted(labels)
        reading.check_positive()
        frame = manifest_table(reading.rows, labels, options, log)
        if log.problems:
            raise ProblemsError(str(imported.source), log.problems)
        if options.split:
            frame = make_splits(frame, options.split, options.seed)
        manifest = Manifest.from_frame(frame, partial, imported.source, need=())
        manifest.write(partial / MANIFEST)
        summary = _summary(to, frame, tuple(folders), log.notes)
        record_ = _record(imported, files, options, folders, summary)
        (partial / RECORD).write_text(strict_json(record_) + "\n", encoding="utf-8")
    return summary


_NO_CENTER = (
    "images have shapes that contain the center of no pixel; they have no map and are not annotated"
)
_NO_PIXEL = (
    "images have shapes of most annotators, of which --merge {} leaves no pixel; they have no map "
    "and are not annotated"
)


@dataclass
class _Reading:
    """Images of a source, taken one after the other."""

    imported: ImportedAnnotations
    files: ImageFiles
    options: ImportOptions
    drawer: MapDrawer
    log: Log
    rows: dict[str, ImageRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.files.folder.absolute()
        merge = self.options.merge
        self.alone = None if merge in MERGES else merge

    def add(self, record: AnnotatedImage) -> None:
        """Check an image, and draw its maps unless something was wrong before."""
        shown = "" if record.name.endswith(".*") or record.name == record.of else record.name
        place = ", ".join(filter(None, (record.of, f"{record.where} {shown}".strip())))
        found = self._locate(record, place)
        if found is None:
            return
        image, content, frame = found
        if image in self.rows:
            what = f"image {image!r} is listed already in {self.rows[image].where}"
            self.log.problem(place, what, "remove one of the two, or import them one at a time")
            return
        drawn = [one for one in record.annotations if self._is_drawn(one)]
        shapes = [one.shape for one in drawn]
        for number, why in wrong_shapes(shapes, frame.width, frame.height, self.options.raster):
            spot = drawn[number].where or f"shape {number + 1}"
            self.log.problem(f"{place}, {spot}", why, "correct or remove the shape")
        persons = {one.annotator for one in record.annotations if not one.prediction}
        persons.update(record.annotators)
        # The annotator of `--merge` decides; of images that this person did not see, the others.
        decides = self.alone is None or self.alone in persons
        own = [one for one in drawn if self.alone in (None, one.annotator)]
        row = ImageRow(
            place,
            record.labels,
            tuple(sorted({one.label for one in (own if decides else drawn)})),
            record.split,
            True if persons else record.examined,
            Path(EMBEDDED) if content is not None else self.root,
            nothing_to_mark=decides,
            seconds=record.seconds,
        )
        self.rows[image] = row
        if self.log.problems:  # nothing will be kept: only problems are looked for
            return
        if content is not None:
            self.drawer.files.place(f"{EMBEDDED}/{image}").write_bytes(content)
        by_person: dict[str, list[Shape]] = {name: [] for name in record.annotators}
        for one in drawn:
            by_person.setdefault(one.annotator, []).append(one.shape)
        row.saliency = self.drawer.draw(by_person, frame, image)
        if own and not row.saliency:
            self._note_lost(row, by_person)

    def _note_lost(self, row: ImageRow, by_person: Mapping[str, Sequence[Shape]]) -> None:
        """Note shapes that left no map, unless most annotators marked nothing."""
        if self.alone is not None or len(by_person) == 1:
            self.log.note(_NO_CENTER)
        elif 2 * sum(map(bool, by_person.values())) > len(by_person):
            self.log.note(_NO_PIXEL.format(self.options.merge))
        else:
            return
        row.nothing_to_mark = False

    def _locate(
        self, record: AnnotatedImage, place: str
    ) -> tuple[str, bytes | None, ImageFrame] | None:
        """Path of the image, content if it is embedded, and frame; None after a problem."""
        try:
            image, content = self._image(record)
            path = self.files.folder / image
            rule = "upright" if record.upright else self.options.exif
            frame = frame_of(path, record.size, self.imported.frame, rule, content)
        except LookupError as error:
            self.log.error(place, error, "correct the annotation")
        except ImageError as error:
            self.log.problem(place, error.reason, "replace the file or remove the annotation")
        except ValueError as error:
            fix = "use the image that was annotated, or correct the size in the file"
            self.log.problem(place, str(error), fix)
        else:
            return image, content, frame
        return None

    def _image(self, record: AnnotatedImage) -> tuple[str, bytes | None]:
        """Path of the image from the folder, or a safe name and the content of an embedded one."""
        try:
            other = record.other_name
            use_other = other and not self.files.has(record.name)
            return self.files.find(other if use_other else record.name), None
        except LookupError:
            if record.embedded is None:
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

    def add_unlisted(self, labels: LabelTable | None) -> None:
        """Add images that the source does not mention, without shapes."""
        names = [*labels.rows] if labels is not None else []
        if labels is None and self.imported.whole_folder:
            names = self.files.names
        for name in names:
            if name not in self.rows:
                self.rows[name] = ImageRow(name, (), (), "", None, self.root)

    def check_positive(self) -> None:
        """Note the classes of `--positive` that do not occur."""
        seen = {name for row in self.rows.values() for name in row.classes}
        for name in self.options.positive:
            if name not in seen and not self.log.problems:
                known = ", ".join(sorted(seen | set(self.imported.classes))) or "none"
                what = "no image has a shape of this class"
                self.log.problem(f"--positive {name!r}", what, f"known: {known}")


def _summary(
    to: Path, frame: pd.DataFrame, annotators: tuple[str, ...], notes: dict[str, int]
) -> ImportSummary:
    maps = int((frame["saliency"] != "").sum())
    return ImportSummary(to, len(frame), maps, annotators, notes, int((frame["split"] == "").sum()))


def _record(
    imported: ImportedAnnotations,
    files: ImageFiles,
    options: ImportOptions,
    folders: dict[str, str],
    summary: ImportSummary,
) -> dict[str, Any]:
    """Content of `import.json`."""
    given = asdict(options)
    given["labels"] = str(options.labels) if options.labels else None
    return {
        "version": __version__,
        "format": imported.format,
        "source": str(imported.source),
        "images_folder": str(files.folder),
        "classes": list(imported.classes),
        "images": summary.images,
        "maps": summary.maps,
        "annotators": folders,
        "options": given,
        "notes": summary.notes,
    }
