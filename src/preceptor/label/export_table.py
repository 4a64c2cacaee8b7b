"""Table of an exported manifest: that of the source, with what people have answered."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from preceptor.errors import InputError
from preceptor.label.database import Connection
from preceptor.label.intake import source_of
from preceptor.label.sources import find_source, folder_rows
from preceptor.label.table import checked_table

POSITIVE, NEGATIVE = "positive", "negative"


def source_table(connection: Connection, database: Path) -> tuple[pd.DataFrame, list[str]]:
    """Table of the manifest or the folder of a database, and the paths of its images there.

    Raises:
        InputError: The manifest or the folder is gone.
        ProblemsError: The manifest is invalid.
    """
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
    """What people have answered, row by row.

    Args:
        table: Table of the source.
        are_labels_answered: Whether the source has no labels; images then have the answered label.
        labels: Labels among which people choose; without any, images without an answered label are
            `positive` if at least half of those who judged them marked something, else `negative`.
    """

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
        """Set what was answered to an image.

        Args:
            at: Row of the table.
            given: Answers, without skipped ones.
            judged: Those that say what is marked.
            saliency: Path of the merged map, or "".
        """
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
    """The label that most people have answered; "" if there are several.

    Example:
        >>> _most_frequent(["a", "b", "a"]), _most_frequent(["a", "b"])
        ('a', '')
    """
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]
