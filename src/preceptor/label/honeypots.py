"""Honeypots: images whose mark is known, which everybody marks without knowing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preceptor.data.images import ImageError, decode_map
from preceptor.errors import Problem, ProblemsError
from preceptor.label import settings as stored
from preceptor.label.answers import has_work
from preceptor.label.database import Connection
from preceptor.label.image_files import FileState, write_states
from preceptor.label.pictures import PictureError, measure, version_or_none
from preceptor.label.runs import bounding_runs, decode_runs
from preceptor.label.sources import Row, Source
from preceptor.label.strokes import EMPTY, Patch

FOUND = 0.5
"""IoU with the known mark from which on it counts as found."""


def honeypots_digest(source: Source, rows: Sequence[Row]) -> str:
    """Hash of a manifest of honeypots, and of the sizes and times of its images and maps."""
    digest = hashlib.blake2b(source.digest.encode(), digest_size=16)
    for row in rows:
        for path in (source.root / row.path, Path(row.saliency) if row.saliency else None):
            version = "" if path is None else version_or_none(path)
            digest.update(f"{version} ".encode())
    return digest.hexdigest()


def are_current(connection: Connection, source: Source, rows: Sequence[Row]) -> bool:
    """Whether the honeypots of a manifest are in the database as they are now."""
    return bool(stored.get(connection, "honeypots_digest") == honeypots_digest(source, rows))


def take_in_honeypots(
    connection: Connection, source: Source, rows: Sequence[Row], root: Path
) -> int:
    """Store the honeypots of a manifest, within a transaction: its rows with annotated images.

    They replace those of an earlier manifest, whose marks and answers are kept.

    Args:
        connection: Connection.
        source: Manifest of the honeypots.
        rows: Its rows.
        root: Folder that paths of the database start from.

    Returns:
        Number of honeypots.

    Raises:
        ProblemsError: Maps are missing, damaged or of another size than their image, or an image
            has another size than the one that people have marked; lists all.
    """
    problems: list[Problem] = []
    count = 0
    connection.execute("UPDATE images SET honeypot = 0 WHERE honeypot = 1")
    for row in rows:
        if not row.annotated:
            continue
        path = source.root / row.path
        try:
            size = measure(path)
            mark = _mark(row, size)
            _check_size(connection, _from_root(path, root), size)
        except (PictureError, ImageError) as error:
            why = error.reason if isinstance(error, ImageError) else str(error)
            problems.append(Problem(row.path, why, "replace the file or remove the row"))
            continue
        if problems:
            continue
        _store(connection, _from_root(path, root), row, size, mark)
        count += 1
    if not count and not problems:
        problems.append(Problem("the table", "no row is annotated", "add rows with a human map"))
    if problems:
        raise ProblemsError(str(source.place), problems)
    stored.put(connection, "honeypots_digest", honeypots_digest(source, rows))
    stored.put(connection, "arranged", None)
    return count


def _mark(row: Row, size: tuple[int, int]) -> tuple[int, int, int, int, bytes]:
    if not row.saliency:
        return 0, 0, 0, 0, b""
    mask = decode_map(row.saliency) >= 0.5
    if mask.shape != size[::-1]:
        high, wide = mask.shape
        raise PictureError(f"its map is {wide} × {high}, the image {size[0]} × {size[1]}")
    return bounding_runs(mask) or (0, 0, 0, 0, b"")


def _check_size(connection: Connection, path: str, size: tuple[int, int]) -> None:
    """Check that an image has the size of the one that people have marked, if they have."""
    row = connection.execute(
        "SELECT id, width, height FROM images WHERE path = ?", (path,)
    ).fetchone()
    if row is None or row["width"] is None or (row["width"], row["height"]) == size:
        return
    if has_work(connection, row["id"]):
        raise PictureError(
            f"it has {size[0]} × {size[1]} pixels, and people have marked one of {row['width']} × "
            f"{row['height']}"
        )


def _store(
    connection: Connection,
    path: str,
    row: Row,
    size: tuple[int, int],
    mark: tuple[int, int, int, int, bytes],
) -> None:
    connection.execute(
        "INSERT INTO images (path, label, split, source, width, height, position, honeypot, "
        "listed) VALUES (?, ?, ?, ?, ?, ?, 0, 1, 0) ON CONFLICT (path) DO UPDATE SET honeypot = 1",
        (path, row.label, row.split, row.source, *size),
    )
    number = connection.execute("SELECT id FROM images WHERE path = ?", (path,)).fetchone()[0]
    write_states(connection, [(number, FileState(*size, None, None))])
    connection.execute(
        "INSERT OR REPLACE INTO honeypots VALUES (?, ?, ?, ?, ?, ?)", (number, *mark)
    )


def _from_root(path: Path, root: Path) -> str:
    """Path as rows of the manifest write it, so that an image of both is one image."""
    text, prefix = str(path), os.path.join(root, "")  # noqa: PTH118
    return text.removeprefix(prefix)


def known_mark(connection: Connection, image: int) -> Patch:
    """Known mark of a honeypot; empty = nothing is to be marked."""
    row = connection.execute("SELECT * FROM honeypots WHERE image = ?", (image,)).fetchone()
    if row is None or not row["w"]:
        return EMPTY
    bits = decode_runs(row["runs"], row["w"] * row["h"]).reshape(row["h"], row["w"])
    return Patch(row["x"], row["y"], bits)


def overlap_of(a: Patch, b: Patch) -> tuple[int, int, int]:
    """Numbers of pixels of two masks: in both, in a, in b."""
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.x + a.bits.shape[1], b.x + b.bits.shape[1])
    y1 = min(a.y + a.bits.shape[0], b.y + b.bits.shape[0])
    both = 0
    if x0 < x1 and y0 < y1:
        ours = a.bits[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
        both = int(np.count_nonzero(ours & b.bits[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]))
    return both, int(np.count_nonzero(a.bits)), int(np.count_nonzero(b.bits))
