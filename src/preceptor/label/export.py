"""Export of a database of marks: a manifest, maps, and maps of each annotator."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.annotations.shapes import Pixels
from preceptor.annotations.write import MERGES, MapDrawer, annotator_folders, map_name
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.label import marks
from preceptor.label.db import Connection, read_settings
from preceptor.label.sources import (
    checked_table,
    find_source,
    folder_rows,
    is_replaced,
    root_of,
    source_of,
)
from preceptor.utils.files import new_folder, replacing
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
    frame[["label", "split", "saliency"]] = ""
    return frame.assign(annotated=False), paths


_Rows = Sequence[sqlite3.Row]
_ANSWERED = ("annotation_seconds", "annotators")


class ExportedColumns:
    """What people have answered, row by row.

    If the source has no labels, images have the answered label. If people did not choose among
    labels either, images are `positive` if half or more of those who judged them marked something
    that is exported (more than half if the merged map is empty), else `negative`.
    """

    def __init__(
        self, table: pd.DataFrame, *, are_labels_answered: bool, labels: Sequence[str] = ()
    ) -> None:
        self._table, self._are_answered, self._labels = table, are_labels_answered, labels
        self._saliency = [str(path) for path in table["saliency"]]
        self._annotated = [bool(one) for one in table["annotated"]]
        # What earlier rounds of marking have left is kept where there is no new answer.
        self._columns = {name: _cells(table, name) for name in _ANSWERED}
        self._sign = [
            POSITIVE if saliency else NEGATIVE if annotated else ""
            for annotated, saliency in zip(self._annotated, self._saliency, strict=True)
        ]
        self._label = [""] * len(table)
        self._is_tie = [False] * len(table)
        self.notes: Counter[str] = Counter()
        self.are_all_missing = False

    def set(self, at: int, given: _Rows, judged: _Rows, saliency: str, marked: int) -> None:
        """Set the answers to an image, its merged map or "", and how many people have marks."""
        if not given:
            if self._annotated[at]:
                self.notes["images without an answer keep the map of the manifest"] += 1
            return
        apart = not saliency and 2 * marked > len(judged)
        self._saliency[at], self._annotated[at] = saliency, bool(judged) and not apart
        label = _most_frequent([one["label"] for one in given if one["label"]])
        seconds = str(round(sum(one["seconds"] for one in judged), 3)) if judged else ""
        values = (seconds, str(len(judged) or ""))
        for name, value in zip(_ANSWERED, values, strict=True):
            self._columns[name][at] = value
        self._label[at] = label
        sign = POSITIVE if 2 * marked + bool(saliency) > len(judged) else NEGATIVE
        self._sign[at] = sign if judged else ""
        self._is_tie[at] = not label and any(one["label"] for one in given)
        if apart:
            self.notes[NO_PIXEL] += 1
        if not judged:
            self.notes["images that nobody could judge are not annotated"] += 1

    def table(self) -> pd.DataFrame:
        """Table of the manifest; rows that cannot be in it are left out, with a note."""
        table = self._table.assign(
            saliency=self._saliency, annotated=[int(one) for one in self._annotated]
        )
        for name, values in self._columns.items():
            if any(values):
                table[name] = values
            elif name in table:
                table = table.drop(columns=name)
        if self._are_answered:
            table["label"] = self._label if self._labels else self._sign
        missing = ~table["path"].map(lambda path: Path(path).is_file()).astype(bool)
        self.are_all_missing = bool(missing.all())
        gone = {"images whose file is missing": missing}
        if self._are_answered:
            without = table["label"] == ""
            ties = pd.Series(self._is_tie, index=table.index) & without
            gone["images on whose label people disagree"] = ties & ~missing
            gone["images without a label"] = without & ~ties & ~missing
        for what, rows in gone.items():
            if rows.any():
                self.notes[f"{what} are left out"] += int(rows.sum())
        return table[~pd.concat(gone, axis=1).any(axis=1)].reset_index(drop=True)


def _cells(table: pd.DataFrame, name: str) -> list[str]:
    if name not in table:
        return [""] * len(table)
    return [
        value if isinstance(value, str) else "" if pd.isna(value) else f"{value:g}"
        for value in table[name]
    ]


def _most_frequent(labels: Sequence[str]) -> str:
    """The label that most people have answered; "" if there are several."""
    ranked = [*Counter(labels).most_common(2), ("", 0), ("", 0)]
    return ranked[0][0] if ranked[0][1] > ranked[1][1] else ""


MANIFEST, RECORD = "manifest.csv", "import.json"
REPLACED = "images have another size than the ones that were marked; their marks are left out"
UNANSWERED = "images have marks without an answer that counts; these marks are left out"
NO_PIXEL = "images have marks of most people that share no pixel; they are not annotated"


def export_marks(
    connection: Connection,
    database: Path,
    to: Path,
    *,
    merge: str = "mean",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the marks of a database, as they are at one moment, to a new or empty folder.

    Images with a judgement (marked, or nothing to mark) get its map; those with other answers are
    not annotated; those without an answer keep what the manifest says, as do those whose file was
    replaced by one of another size.

    Args:
        merge: Key of `MERGES`, or the name of a person.

    Returns:
        Content of `import.json`, and the numbers of annotated images and of strokes in the maps.
    """
    to = new_folder(to)
    connection.execute("BEGIN")
    try:
        with replacing(to, new=True) as partial:
            partial.mkdir()
            return _export(connection, database, to, partial, merge, progress)
    finally:
        connection.execute("ROLLBACK")


def _export(
    connection: Connection,
    database: Path,
    to: Path,
    partial: Path,
    merge: str,
    progress: Progress | None,
) -> dict[str, Any]:
    settings = read_settings(connection)
    people = dict(
        connection.execute(
            "SELECT DISTINCT people.id, name FROM people JOIN answers ON person = people.id "
            "WHERE state IN ('marked', 'nothing') ORDER BY name"
        ).fetchall()
    )
    names = list(people.values())
    if merge not in MERGES and merge not in names:
        known = ", ".join([*MERGES, *names])
        raise InputError(f"--merge {merge!r}: neither a rule nor an annotator; known: {known}")
    answers = _answers(connection)
    table, paths = source_table(connection, database)
    root = root_of(connection, database)
    rows = {row["path"]: row for row in connection.execute("SELECT * FROM images")}
    exported = ExportedColumns(
        table, are_labels_answered=not table["label"].any(), labels=settings.labels
    )
    unanswered = marks.marks_without_answer(connection)
    folders = annotator_folders(names)
    drawer = MapDrawer(partial, folders, merge)
    strokes = 0
    for at, path in enumerate(paths):
        row = rows.get(path)
        given, judged, saliency, marked = [], [], "", 0
        if row is not None:
            given = answers.pop(row["id"], [])
            if given and is_replaced(row, root / path):
                exported.notes[REPLACED] += 1
                given = []
            if any(merge in MERGES or merge == name for name in unanswered.get(row["id"], ())):
                exported.notes[UNANSWERED] += 1
            if merge not in MERGES:  # a person, who is one of those that judged something
                given = [one for one in given if people.get(one["person"]) == merge]
            judged = _judged(given)
        if row is not None and judged:
            maps: dict[str, Pixels] = {}
            for one in judged:
                maps[people[one["person"]]], count = _mask(connection, row, one["person"])
                strokes += count
            name = drawer.save(maps, map_name(str(table["name"].iloc[at])))
            saliency = str(partial / name) if name else ""
            marked = sum(bool(maps[people[one["person"]]].any()) for one in judged)
        exported.set(at, given, judged, saliency, marked)
        if progress is not None:
            progress(at + 1, len(paths))
    frame = exported.table()
    if exported.are_all_missing:
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
        exported.notes["images with answers are no longer in the manifest"] = len(answers)
    record = {
        "version": __version__,
        "format": "label",
        "source": database.name,
        "images": len(manifest),
        "maps": int(manifest.map_mask.sum()),
        "annotators": folders,
        "options": {"merge": merge},
        "notes": dict(exported.notes),
    }
    (partial / RECORD).write_text(strict_json(record) + "\n", encoding="utf-8")
    return record | {"annotated": int(manifest.annotated_mask.sum()), "strokes": strokes}


def _answers(connection: Connection) -> dict[int, list[sqlite3.Row]]:
    rows = connection.execute("SELECT * FROM answers ORDER BY image, number")
    return {image: list(group) for image, group in groupby(rows, key=lambda row: row["image"])}


def _judged(given: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    """Answers that say what is marked."""
    return [one for one in given if one["state"] in marks.JUDGED]


def _mask(connection: Connection, row: sqlite3.Row, person: int) -> tuple[Pixels, int]:
    """Map of the marks of a person, and the number of strokes in it."""
    (strokes,) = connection.execute(
        "SELECT count(*) FROM strokes WHERE image = ? AND person = ? AND undone = 0",
        (row["id"], person),
    ).fetchone()
    mask = marks.mask_of(connection, row["id"], person).whole(row["width"], row["height"])
    return np.where(mask, 255, 0).astype(np.uint8), strokes
