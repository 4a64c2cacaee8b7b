"""Rows of the manifest of an import: labels, splits, and whether an image was examined."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.data.importers.image_labels import LabelTable, label_of
from preceptor.data.importers.options import ImportOptions
from preceptor.data.importers.row_groups import groups_of
from preceptor.data.importers.shapes import Log

_NO_CLASS = (
    "images that nobody examined are left out, since their class is unknown; --labels gives it"
)


@dataclass
class ImageRow:
    """What is known of an image after its annotations were read.

    Args:
        where: Place in the source, for messages.
        labels: Classes of the whole image in the source.
        classes: Classes of its drawn shapes.
        split: Split in the source, or "".
        examined: Whether a person looked at it; None = unknown.
        nothing_to_mark: Whether an examined image without a map has nothing to be marked: not if
            the annotator of `--merge` did not look at it, or if its shapes left no map.
        saliency: Path of the map from the output folder, or "".
        seconds: Time spent on it, or None.
        folder: Folder of the image, where its name starts.
    """

    where: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    split: str
    examined: bool | None
    folder: Path
    nothing_to_mark: bool = True
    saliency: str = ""
    seconds: float | None = None

    @property
    def has_class(self) -> bool:
        """Whether the source says of which class it is: shapes, or their absence, say so too."""
        return any(self.labels) or bool(self.classes) or bool(self.examined)


def manifest_table(
    rows: Mapping[str, ImageRow], labels: LabelTable | None, options: ImportOptions, log: Log
) -> pd.DataFrame:
    """Table of a manifest; problems are noted in the log.

    Args:
        rows: Rows by the path of the image from its folder.
        labels: Table of labels, or None.
        options: Options of the import.
        log: Collects the problems.
    """
    _decide_unmarked(rows, labels, options, log)
    records: list[dict[str, object]] = []
    for image, row in rows.items():
        path = (row.folder / image).as_posix()
        if (shown := os.fsencode(path).decode("utf-8", "backslashreplace")) != path:
            log.problem(shown, "its name or folder is not UTF-8", "rename it")
            continue
        cells = dict(labels.rows.get(image, {})) if labels else {}
        if labels is not None and not cells:
            log.problem(row.where, f"image {image!r} is not in {options.labels}", "add its label")
            continue
        if labels is None and not row.has_class:
            log.note(_NO_CLASS)
            continue
        try:
            label = cells.pop("label", "") or label_of(row.labels, row.classes, options)
        except LookupError as error:
            log.error(row.where, error, "give --labels")
            continue
        own = {
            "path": path,
            "name": image,
            "label": label,
            "split": cells.get("split") or row.split,
            "saliency": row.saliency,
            "annotated": int(bool(row.saliency) or (bool(row.examined) and row.nothing_to_mark)),
            "source": cells.get("source", ""),
            "group": cells.get("group", ""),
            "annotation_seconds": "" if row.seconds is None else row.seconds,
        }
        records.append({**cells, **own})
    if not rows and not log.problems:
        log.problem("the source", "it names no image", "check the source and --images")
    elif not records and not log.problems:
        what = "nobody examined its images, so that their classes are unknown"
        log.problem("the source", what, "give --labels")
    frame = pd.DataFrame(records)
    if len(frame) and options.group_by:
        frame["group"] = groups_of(frame, options.group_by, log)
    if len(frame) and (frame["annotation_seconds"] == "").all():
        frame = frame.drop(columns="annotation_seconds")
    return frame


def _decide_unmarked(
    rows: Mapping[str, ImageRow], labels: LabelTable | None, options: ImportOptions, log: Log
) -> None:
    """Decide whether images without a shape were examined, where the source does not say."""
    unknown = [row for row in rows.values() if not row.classes and row.examined is None]
    matters = any(row.classes for row in rows.values()) or (
        # Shapes that were wrong are among the problems already.
        labels is None and not log.problems and not all(row.has_class for row in unknown)
    )
    if unknown and options.unmarked is None and matters:
        log.problem(
            f"{len(unknown):,} of {len(rows):,} images",
            "they have no shape, and the source does not say whether somebody looked at them",
            "add --unmarked examined (looked at, nothing to mark) or --unmarked unknown",
        )
    for row in unknown:
        row.examined = options.unmarked == "examined"
