"""Images of a manifest in the database: added, hidden, ordered, and the number of people needed."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.label import settings as stored
from preceptor.label.database import Connection
from preceptor.label.settings import LabelSettings
from preceptor.label.sources import Row, Source


@dataclass(frozen=True)
class Changes:
    """What a manifest that has changed did to the images of a database.

    Args:
        added, hidden, shown, relabeled: Numbers of images; shown = hidden before.
    """

    added: int = 0
    hidden: int = 0
    shown: int = 0
    relabeled: int = 0


def is_current(connection: Connection, source: Source) -> bool:
    """Whether the images of a source are in the database as they are now."""
    return bool(stored.get(connection, "digest") == source.digest)


def take_in(connection: Connection, source: Source, rows: Sequence[Row]) -> Changes:
    """Bring the images of the database to the rows of a source, within a transaction.

    Rows that are gone are hidden; their marks are kept.
    """
    before = {
        row["path"]: row
        for row in connection.execute("SELECT id, path, label, split, source, listed FROM images")
    }
    added: list[Row] = []
    changed: list[tuple[str, str, str, int]] = []
    shown = relabeled = 0
    present = set()
    for row in rows:
        present.add(row.path)
        old = before.get(row.path)
        if old is None:
            added.append(row)
        elif (old["label"], old["split"], old["source"], old["listed"]) != (
            row.label,
            row.split,
            row.source,
            1,
        ):
            shown += not old["listed"]
            relabeled += old["label"] != row.label
            changed.append((row.label, row.split, row.source, old["id"]))
    gone = [(row["id"],) for path, row in before.items() if row["listed"] and path not in present]
    connection.executemany(
        "INSERT INTO images (path, label, split, source, position) VALUES (?, ?, ?, ?, 0)",
        [(row.path, row.label, row.split, row.source) for row in added],
    )
    connection.executemany(
        "UPDATE images SET label = ?, split = ?, source = ?, listed = 1 WHERE id = ?", changed
    )
    connection.executemany("UPDATE images SET listed = 0 WHERE id = ?", gone)
    stored.put(connection, "digest", source.digest)
    stored.put(connection, "arranged", None)
    return Changes(len(added), len(gone), shown, relabeled)


def remember_place(connection: Connection, source: Source, database: Path) -> None:
    """Store where the source lies, from the folder of the database."""
    place = os.path.relpath(source.place, database.absolute().parent)
    if stored.get(connection, "source") != [place, source.is_folder]:
        stored.put(connection, "source", [place, source.is_folder])


def source_of(connection: Connection, database: Path) -> tuple[Path, bool]:
    """Absolute path of the manifest or folder of a database, and whether it is a folder."""
    place, is_folder = stored.get(connection, "source")
    return Path(os.path.normpath(database.absolute().parent / place)), bool(is_folder)


def root_of(connection: Connection, database: Path) -> Path:
    """Folder that the paths of the images of a database start from."""
    place, is_folder = source_of(connection, database)
    return place if is_folder else place.parent


def arrange(connection: Connection, settings: LabelSettings) -> None:
    """Order the images and count the people needed, if something of it has changed.

    The overlap and the random position of an image depend on the seed and on its path below the
    common folder of the first images, so that neither images that are added later nor the place
    of the database change anything.
    """
    key = [
        settings.order,
        settings.seed,
        settings.overlap,
        settings.overlap_share,
        list(settings.splits),
    ]
    if stored.get(connection, "arranged") == key:
        return
    images = connection.execute("SELECT id, path, split, source, listed FROM images").fetchall()
    below = _common_folder(connection, [row["path"] for row in images])
    draws = {row["id"]: _draws(settings.seed, row["path"].removeprefix(below)) for row in images}
    by_source = settings.order == "source"
    ordered = sorted(
        images,
        key=lambda row: (
            row["source"] if by_source else "",
            draws[row["id"]][0],
        ),
    )
    counted = dict(
        connection.execute(
            "SELECT image, count(*) FROM answers WHERE state != 'skipped' GROUP BY image"
        ).fetchall()
    )
    values = []
    for position, row in enumerate(ordered):
        overlap = settings.overlap > 1 and draws[row["id"]][1] < settings.overlap_share
        asked = not settings.splits or row["split"] in settings.splits
        places = (settings.overlap if overlap else 1) - counted.get(row["id"], 0)
        if not (row["listed"] and asked):
            places = 0
        values.append((position, int(overlap), int(asked), places, row["id"]))
    connection.executemany(
        "UPDATE images SET position = ?, overlap = ?, asked = ?, places = ? WHERE id = ?", values
    )
    stored.put(connection, "arranged", key)


def _common_folder(connection: Connection, paths: Sequence[str]) -> str:
    """Common folder of the images that were arranged first, with a slash at its end, or ""."""
    known: str | None = stored.get(connection, "common_folder")
    if known is not None:
        return known
    try:
        common = posixpath.commonpath({posixpath.dirname(path) for path in paths})
    except ValueError:  # no image, or absolute and relative paths
        common = ""
    known = f"{common}/" if common else ""
    if paths:
        stored.put(connection, "common_folder", known)
    return known


def _draws(seed: int, path: str) -> tuple[int, float]:
    """Random position and random share of an image."""
    digest = hashlib.blake2b(f"{seed} {path}".encode(errors="surrogatepass"), digest_size=16)
    raw = digest.digest()
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big") / 2**64
