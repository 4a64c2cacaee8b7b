"""Export of a database of marks: a manifest, maps, and maps of each annotator.

The folder is that of preceptor data import, so that data agreement, data export and studies read
it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from preceptor.annotations.shapes import Pixels, RasterOptions
from preceptor.annotations.write import MERGES, MapDrawer, annotator_folders, check_merge
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.label.db import Connection, read_settings
from preceptor.label.images import has_other_file, is_replaced
from preceptor.label.marks import JUDGED, marks_without_answer, masks_of, union
from preceptor.label.sources import checked_table, find_source, folder_rows, root_of, source_of
from preceptor.utils.files import replacing
from preceptor.utils.results import strict_json
from preceptor.utils.text import Progress
from preceptor.version import __version__

POSITIVE, NEGATIVE = "positive", "negative"


def source_table(connection: Connection, database: Path) -> tuple[pd.DataFrame, list[str]]:
    """Table of the manifest or the folder of a database, and the paths of its images there."""
    place, is_folder = source_of(connection, database)
    if not place.exists():
        raise InputError(
            f"{place}: the manifest or folder of the database is gone; put it back, or start "
            "preceptor label with its new place and --database"
        )
    source = find_source(place)
    if not is_folder:
        return checked_table(source)
    paths = [row.path for row in folder_rows(source)]
    frame = pd.DataFrame({"path": [str(place / path) for path in paths], "name": paths})
    for column in ("label", "split", "saliency"):
        frame[column] = pd.Series([""] * len(paths), dtype="str")
    return frame.assign(annotated=False), paths


def map_name(path: str) -> str:
    """Name of the map of an image in the folder of maps, without ways out of it.

    Example:
        >>> map_name("../other/a.png"), map_name("/data/b.png")
        ('other/a.png', 'data/b.png')
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join(part.replace(":", "-") for part in parts if part not in ("/", "..", "."))


class ExportedColumns:
    """What people have answered, row by row."""

    def __init__(
        self, table: pd.DataFrame, *, are_labels_answered: bool, labels: Sequence[str] = ()
    ) -> None:
        self._table = table
        self._are_answered, self._labels = are_labels_answered, labels
        self._saliency = [str(one) for one in table["saliency"]]
        self._annotated = [bool(one) for one in table["annotated"]]
        size = len(table)
        # What earlier rounds of marking have left is kept where there is no new answer.
        self._seconds = _column(table, "annotation_seconds", size)
        self._label = _column(table, "answered_label", size)
        self._certainty = _column(table, "certainty", size)
        self._annotators = _column(table, "annotators", size)
        self._sign = [
            POSITIVE if saliency else NEGATIVE if annotated else ""
            for annotated, saliency in zip(self._annotated, self._saliency, strict=True)
        ]
        self._is_tie = [False] * size
        self.notes: Counter[str] = Counter()
        self.are_all_missing = False

    def set(
        self, at: int, given: Sequence[sqlite3.Row], judged: Sequence[sqlite3.Row], saliency: str
    ) -> None:
        """Set what was answered to an image."""
        if not given:
            if self._annotated[at]:
                self.notes["images without an answer keep the map of the manifest"] += 1
            return
        self._saliency[at] = saliency
        self._annotated[at] = bool(judged)
        self._seconds[at] = str(round(sum(one["seconds"] for one in judged), 3)) if judged else ""
        self._annotators[at] = str(len(judged) or "")
        self._label[at] = _most_frequent([one["label"] for one in given if one["label"]])
        certainties = [one["certainty"] for one in judged if one["certainty"]]
        self._certainty[at] = f"{sum(certainties) / len(certainties):g}" if certainties else ""
        marked = sum(one["state"] == "marked" for one in judged)
        sign = POSITIVE if 2 * marked >= len(judged) else NEGATIVE
        self._sign[at] = sign if judged else ""
        self._is_tie[at] = not self._label[at] and any(one["label"] for one in given)
        if not judged:
            self.notes["images that nobody could judge are not annotated"] += 1

    def table(self) -> pd.DataFrame:
        """Table of the manifest; rows that cannot be in it are left out, with a note."""
        table = self._table.assign(
            saliency=self._saliency, annotated=[int(one) for one in self._annotated]
        )
        columns = {
            "annotation_seconds": self._seconds,
            "answered_label": self._label,
            "certainty": self._certainty,
            "annotators": self._annotators,
        }
        for name, values in columns.items():
            if any(values):
                table[name] = values
            elif name in table:
                table = table.drop(columns=name)
        missing = ~table["path"].map(lambda path: Path(path).is_file()).astype(bool)
        self.are_all_missing = bool(missing.all())
        table = self._without(table, missing, "images whose file is missing")
        if not self._are_answered:
            return table
        signs = [""] * len(self._sign) if self._labels else self._sign
        table["label"] = [
            label or sign
            for label, sign, gone in zip(self._label, signs, missing, strict=True)
            if not gone
        ]
        ties = pd.Series(self._is_tie)[~missing].reset_index(drop=True) & (table["label"] == "")
        table = self._without(table, ties, "images on whose label people disagree")
        return self._without(table, table["label"] == "", "images without a label")

    def _without(self, table: pd.DataFrame, gone: pd.Series, what: str) -> pd.DataFrame:
        if gone.any():
            self.notes[f"{what} are left out"] += int(gone.sum())
        return table[~gone].reset_index(drop=True)


def _column(table: pd.DataFrame, name: str, size: int) -> list[str]:
    if name not in table:
        return [""] * size
    return [
        value if isinstance(value, str) else "" if pd.isna(value) else f"{value:g}"
        for value in table[name]
    ]


def _most_frequent(labels: Sequence[str]) -> str:
    """The label that most people have answered; "" if there are several."""
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]


MANIFEST, RECORD = "manifest.csv", "import.json"
REPLACED = "images have another size than the ones that were marked; their marks are left out"
CHANGED = "images have another file of the same size than the one that was answered; compare them"
UNANSWERED = "images have marks without an answer that counts; these marks are left out"
UNREADABLE = "images that were never readable have answers, which are left out"


@dataclass(frozen=True)
class Exported:
    """What an export has written."""

    folder: Path
    images: int  # numbers of images, of maps, and of images that somebody judged
    maps: int
    annotated: int
    strokes: int  # number of strokes in the maps
    annotators: tuple[str, ...]  # persons
    notes: dict[str, int]  # what a user has to know, with counts


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
    """Write the marks of a database, as they are at one moment."""
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
        drawer = MapDrawer(partial, folders, merge, RasterOptions())
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
