"""Export of a database of marks: a manifest, maps, and maps of each annotator.

The folder is that of `data import`, so that `data agreement`, `data export` and studies read it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preceptor.data.importers.draw_maps import MapDrawer, annotator_folders, check_merge
from preceptor.data.importers.map_files import MapFiles
from preceptor.data.importers.rasterize import RasterOptions
from preceptor.data.importers.shapes import Pixels
from preceptor.data.manifest import Manifest
from preceptor.data.merge_annotators import MERGES
from preceptor.errors import InputError
from preceptor.label.answers import JUDGED, marks_without_answer
from preceptor.label.database import Connection
from preceptor.label.export_table import ExportedColumns, map_name, source_table
from preceptor.label.image_files import has_other_file, is_replaced
from preceptor.label.intake import root_of
from preceptor.label.settings import read_settings
from preceptor.label.strokes import masks_of, union
from preceptor.runtime.progress import Progress
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json
from preceptor.version import __version__

MANIFEST, RECORD = "manifest.csv", "import.json"
REPLACED = "images have another size than the ones that were marked; their marks are left out"
CHANGED = "images have another file of the same size than the one that was answered; compare them"
UNANSWERED = "images have marks without an answer that counts; these marks are left out"
UNREADABLE = "images that were never readable have answers, which are left out"


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Args:
        folder: The folder.
        images, maps, annotated: Numbers of images, of maps, and of images that somebody judged.
        strokes: Number of strokes in the maps.
        annotators: Persons.
        notes: What a user has to know, with counts.
    """

    folder: Path
    images: int
    maps: int
    annotated: int
    strokes: int
    annotators: tuple[str, ...]
    notes: dict[str, int]


def export_marks(
    connection: Connection,
    database: Path,
    to: Path,
    *,
    merge: str = "mean",
    classes: Sequence[str] = (),
    add_files: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the marks of a database, as they are at one moment.

    Images with a judgement (marked, or nothing to mark) get its map; those with other answers are
    not annotated; those without an answer keep what the manifest says, as do those whose file was
    replaced by one of another size.

    Args:
        connection: Connection to the database.
        database: Its file.
        to: Output folder, new or empty.
        merge: Key of `MERGES`, or the name of a person.
        classes: Classes of marks that are exported; empty = all.
        add_files: Function that adds files to the folder, called with its temporary path.
        progress: Function called with (done, total).

    Raises:
        InputError: The folder exists, an option is invalid, no image has a label, or all
            image files are missing.
        ProblemsError: The manifest is invalid.
    """
    to = to.absolute()
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise InputError(f"{to} exists already; name a new folder with --to")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    connection.execute("BEGIN")
    try:
        return _export(connection, database, to, merge, classes, add_files, progress)
    finally:
        connection.execute("ROLLBACK")


def _export(
    connection: Connection,
    database: Path,
    to: Path,
    merge: str,
    classes: Sequence[str],
    add_files: Callable[[Path], None] | None,
    progress: Progress | None,
) -> Exported:
    settings = read_settings(connection)
    if wrong := sorted(set(classes) - set(settings.classes)):
        known = ", ".join(settings.classes)
        raise InputError(f"--class {wrong[0]!r}: there is no such class; known: {known}")
    people = dict(
        connection.execute(
            "SELECT DISTINCT people.id, name FROM people JOIN answers ON person = people.id "
            "WHERE state IN ('marked', 'nothing') ORDER BY name"
        ).fetchall()
    )
    names = list(people.values())
    check_merge(merge, names)
    answers = _answers(connection)
    table, paths = source_table(connection, database)
    root = root_of(connection, database)
    rows = {row["path"]: row for row in connection.execute("SELECT * FROM images")}
    marks = ExportedColumns(
        table, are_labels_answered=not table["label"].any(), labels=settings.labels
    )
    unanswered = marks_without_answer(connection)
    strokes = 0
    folders = annotator_folders(names)
    with replacing(to) as partial:
        partial.mkdir()
        with MapFiles(partial) as files:
            drawer = MapDrawer(files, folders, merge, RasterOptions())
            for at, path in enumerate(paths):
                row = rows.get(path)
                given = answers.pop(row["id"], []) if row is not None else []
                if given and row is not None and is_replaced(row, root / path):
                    given = []
                    marks.notes[REPLACED] += 1
                if row is not None and row["width"] is None and _judged(given):
                    given = []
                    marks.notes[UNREADABLE] += 1
                if row is not None and given and has_other_file(root / path, given):
                    marks.notes[CHANGED] += 1
                if row is not None and any(
                    merge in MERGES or merge == name for name in unanswered.get(row["id"], ())
                ):
                    marks.notes[UNANSWERED] += 1
                if merge not in MERGES:  # a person, who is one of those that judged something
                    given = [one for one in given if people.get(one["person"]) == merge]
                judged = _judged(given)
                saliency = ""
                if judged and row is not None:
                    maps: dict[str, Pixels] = {}
                    for one in judged:
                        mask, count = _mask(connection, row, one["person"], classes)
                        maps[people[one["person"]]] = mask
                        strokes += count
                    saliency = drawer.save(maps, map_name(path))
                marks.set(at, given, judged, str(partial / saliency) if saliency else "")
                if progress is not None:
                    progress(at + 1, len(paths))
        frame = marks.table()
        if marks.are_all_missing:
            raise InputError(
                f"{database.name}: none of the {len(paths):,} image files is there; connect their "
                "drive, or put them back, and export again"
            )
        if frame.empty:
            raise InputError(
                f"{database.name}: no image has a label yet; answer some images on the page of "
                "preceptor label, and export again"
            )
        manifest = Manifest.from_frame(frame, to.parent, database, need=())
        manifest.write(partial / MANIFEST)
        if answers:
            marks.notes["images with answers are no longer in the manifest"] = len(answers)
        maps_written = int(manifest.map_mask.sum())
        record = {
            "version": __version__,
            "format": "label",
            "source": database.name,
            "classes": list(classes or settings.classes),
            "images": len(manifest),
            "maps": maps_written,
            "annotators": folders,
            "options": {"merge": merge},
            "notes": dict(marks.notes),
        }
        (partial / RECORD).write_text(strict_json(record) + "\n", encoding="utf-8")
        if add_files is not None:
            add_files(partial)
    return Exported(
        to,
        len(manifest),
        maps_written,
        int(manifest.annotated_mask.sum()),
        strokes,
        tuple(names),
        dict(marks.notes),
    )


def _answers(connection: Connection) -> dict[int, list[sqlite3.Row]]:
    found: dict[int, list[sqlite3.Row]] = {}
    rows = connection.execute(
        "SELECT * FROM answers WHERE state != 'skipped' ORDER BY image, event"
    )
    for row in rows:
        found.setdefault(row["image"], []).append(row)
    return found


def _judged(given: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    """Answers that say what is marked."""
    return [one for one in given if one["state"] in JUDGED]


def _mask(
    connection: Connection, row: sqlite3.Row, person: int, classes: Sequence[str]
) -> tuple[Pixels, int]:
    """Map of the marks of a person, and the number of strokes in it."""
    strokes = connection.execute(
        "SELECT class FROM strokes WHERE image = ? AND person = ? AND undone = 0",
        (row["id"], person),
    ).fetchall()
    wanted = {one["class"] for one in strokes} if not classes else set(classes)
    masks = masks_of(connection, row["id"], person)
    mask = union(one for name, one in masks.items() if name in wanted)
    pixels = np.where(mask.whole(row["width"], row["height"]), 255, 0).astype(np.uint8)
    return pixels, sum(one["class"] in wanted for one in strokes)
