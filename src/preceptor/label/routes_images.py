"""Routes of images: queue, image, picture, tiles."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import PurePath
from typing import Any

from preceptor.label.answers import answer_of
from preceptor.label.bodies import MOST_IMAGES
from preceptor.label.calls import Call, Labeling
from preceptor.label.handing_out import hand_out, note_problem, path_of, sized
from preceptor.label.pictures import PictureError, version_of, view_of
from preceptor.label.proposals import proposal_for
from preceptor.label.queue import (
    answered_before,
    count_not_shown,
    not_shown,
    skipped,
)
from preceptor.label.strokes import strokes_of
from preceptor.web.refusal import RefusedError, unknown
from preceptor.web.replies import Reply, refused, told

_LISTED = 10  # images that cannot be shown, at the end
_LARGEST = 2**53
DAMAGED = 422
"""Status of a picture that cannot be shown."""


def queue(call: Call) -> Reply:
    """Next open images of the person, or earlier ones."""
    person = call.someone
    labeling = call.labeling
    count = min(call.asked("count", MOST_IMAGES) or 6, MOST_IMAGES)
    before, after = call.asked("before", _LARGEST), call.asked("after", _LARGEST)
    if before is not None:
        found = answered_before(call.reading, person.id, before, count)
    elif "skipped" in call.query:
        found = skipped(call.reading, person.id, count)
    else:
        found = hand_out(call, count, after)
    rows = sized(labeling, call.reading, found)
    images = [
        {"id": row["id"], "width": row["width"], "height": row["height"], **_view(row)}
        for row in rows
    ]
    for row in rows:
        if _view(row)["view"] == "tiles" and not row["problem"]:
            labeling.builder.submit(_build, labeling, row)
    told_of = {
        "images": images,
        "source_changed": labeling.watch.has_changed,
    }
    if not images or "skipped" in call.query:
        told_of["not_shown"] = count_not_shown(call.reading)
        told_of["problems"] = [
            {"name": PurePath(path).name, "problem": problem}
            for path, problem in not_shown(call.reading, _LISTED)
        ]
    return told(told_of)


def _build(labeling: Labeling, row: sqlite3.Row) -> None:
    try:
        labeling.pictures.pyramid(path_of(labeling, row))
    except PictureError as error:
        note_problem(labeling, row, error)
    except (OSError, RefusedError):  # told when a tile is asked for
        pass


def _view(row: sqlite3.Row) -> dict[str, Any]:
    if row["width"] is None:
        return {"view": "whole", "levels": 1}
    view, levels = view_of(row["width"], row["height"])
    return {"view": view, "levels": levels}


def image(call: Call) -> Reply:
    """One image with the person's own strokes and answer, and the proposal."""
    person = call.someone
    labeling = call.labeling
    (row,) = sized(labeling, call.reading, [call.image()["id"]])
    proposal = None
    if row["problem"] is None:
        proposal = proposal_for(call.reading, row["id"], person.id, labeling.settings)
    return told(
        {
            "id": row["id"],
            "name": PurePath(row["path"]).name,
            "label": row["label"],
            "split": row["split"],
            "width": row["width"],
            "height": row["height"],
            "version": row["looked_at"],
            "problem": row["problem"],
            **_view(row),
            "strokes": strokes_of(call.reading, row["id"], person.id),
            "answer": answer_of(call.reading, row["id"], person.id),
            "proposal": proposal,
            "open_elsewhere": labeling.tabs.elsewhere(
                row["id"], person.id, call.query.get("tab", "")
            ),
        }
    )


def whole(call: Call) -> Reply:
    """The picture as one JPEG file."""
    return _picture(call, "whole", "")


def tile(call: Call) -> Reply:
    """A tile of the pyramid."""
    place = [call.number(key, 10_000) for key in ("level", "column", "row")]
    return _picture(call, "tiles", "-".join(map(str, place)))


def _picture(call: Call, view: str, place: str) -> Reply:
    labeling = call.labeling
    (row,) = sized(labeling, call.reading, [call.image()["id"]])
    if row["problem"] is not None:
        return refused(DAMAGED, row["problem"])
    if _view(row)["view"] != view:
        raise unknown(f"this image is sent as {_view(row)['view']}")
    path = path_of(labeling, row)
    try:
        tag = f'"{version_of(path)}{place}"'
        headers = {"etag": tag, "cache-control": "private, max-age=60"}
        if tag in call.headers.get("if-none-match", ""):
            return Reply(b"", "image/jpeg", 304, headers)
        content: bytes | None
        if view == "whole":
            content = labeling.pictures.whole(path)
        else:
            level, column, line = map(int, place.split("-"))
            content = labeling.pictures.tile(path, level, column, line)
    except PictureError as error:
        note_problem(labeling, row, error)
        return refused(DAMAGED, str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RefusedError(507, "the disk is full: free some space for tiles") from error
        raise RefusedError(507, "the folder of tiles cannot be written") from error
    if content is None:
        raise unknown("there is no such tile")
    return Reply(content, "image/jpeg", 200, headers)
