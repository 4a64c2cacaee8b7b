"""Images that are to be marked: rows of a manifest or files of a folder, and their order.

Nothing is decoded and torch is not imported. Missing and damaged files are found when they are
shown.
"""

# os.path and not Path: a hundred thousand files are looked up.
# ruff: noqa: PTH100, PTH118, PTH122

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.data.images import image_suffixes
from preceptor.errors import InputError, is_control, one_line
from preceptor.label.db import Connection, LabelSettings, read_setting, write_setting
from preceptor.utils.files import walk
from preceptor.utils.results import file_digest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One image."""

    path: str  # path from `Source.root`, or absolute if it is not below
    label: str = ""  # as in the manifest; "" = unknown
    split: str = ""


@dataclass(frozen=True)
class Source:
    """Manifest or folder."""

    place: Path  # absolute path of the manifest or the folder
    root: Path
    is_folder: bool  # whether it is a folder
    digest: str  # hash of the table, or of the names of the files

    @property
    def database(self) -> Path:
        """Database beside it, by default."""
        name = self.place.name if self.is_folder else self.place.stem
        return self.place.with_name(f"{name}.label.sqlite")


def find_source(path: Path) -> Source:
    """Manifest or folder at a path, with its hash; raises InputError if there is neither."""
    place = Path(os.path.abspath(path))
    if place.is_dir():
        digest = hashlib.blake2b(digest_size=16)
        for name in _files(place):
            digest.update(os.fsencode(name) + b"\0")
        return Source(place, place, True, digest.hexdigest())
    if not place.is_file():
        raise InputError(f"{path}: there is no such manifest or folder; correct the path")
    if place.suffix.lower() in image_suffixes():
        raise InputError(f"{path}: it is one image; name its folder")
    return Source(place, place.parent, False, file_digest(place))


def folder_rows(source: Source) -> list[Row]:
    """One row per image file of a folder."""
    rows = [Row(name) for name in _files(source.place)]
    if not rows:
        raise InputError(f"{source.place}: there is no image in it; name a folder of images")
    return rows


def _files(folder: Path) -> list[str]:
    """Sorted paths of image files below a folder."""
    suffixes = image_suffixes()
    paths = [
        os.path.normpath(os.path.join(os.path.relpath(base, folder), name))
        for base, _, names in walk(str(folder))
        for name in names
        if name[0] != "." and os.path.splitext(name)[1].lower() in suffixes
    ]
    if odd := [path for path in paths if any(map(is_control, path))]:
        what = "the name is not UTF-8, or has control characters; rename it"
        raise InputError(f"{folder}: {one_line(odd[0])}: {what} ({len(odd):,} in all)")
    return sorted(paths)


def checked_table(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """Table of a manifest as `Manifest` has it, and the paths of its images in a database.

    Files are not looked for. Raises ProblemsError with all problems.
    """
    # pandas is imported only when a manifest has changed.
    from preceptor.data.checks import REQUIRED, Findings, check_cells, check_columns, read_table

    findings = Findings(str(source.place))
    raw = read_table(source.place, findings)
    check_columns(raw, REQUIRED[:2], findings)
    findings.raise_if_any()
    table = check_cells(raw, source.root, findings, (), None)
    prefix = os.path.join(source.root, "")
    paths = [path.removeprefix(prefix) for path in table["path"]]
    first: dict[str, int] = {}
    for at, path in enumerate(paths):
        if (other := first.setdefault(os.path.normpath(path), at)) != at:
            what = f"image {path!r} is listed already in {findings.name(other)}"
            findings.add(at, what, "remove one of the two")
    findings.raise_if_any()
    return table.reset_index(drop=True), paths


def rows_of(source: Source) -> list[Row]:
    """Images of a manifest or a folder; an image may be missing, but not all of them."""
    if source.is_folder:
        return folder_rows(source)
    table, paths = checked_table(source)
    if not any(map(os.path.exists, table["path"])):
        from preceptor.data.checks import Findings, path_hint

        findings = Findings(str(source.place))
        what = f"none of its {len(paths):,} images exists; the first one is {paths[0]!r}"
        fix = f"correct the paths, which start from {source.root}"
        findings.add(None, what, path_hint(table["path"].iloc[0]) or fix)
        findings.raise_if_any()
    columns = (table[name].tolist() for name in ("label", "split"))
    return [Row(*cells) for cells in zip(paths, *columns, strict=True)]


def take_in(connection: Connection, source: Source, rows: Sequence[Row]) -> dict[str, int]:
    """Bring the images of the database to the rows of a source, within a transaction.

    Rows that are gone are hidden; their marks are kept. Returns the numbers of images by what has
    happened to them.
    """
    stored = connection.execute("SELECT path, id, label, split, listed FROM images")
    before = {path: (number, Row(path, *cells), listed) for path, number, *cells, listed in stored}
    added = [row for row in rows if row.path not in before]
    present = {row.path: row for row in rows if row.path in before}
    changed = [
        (row, *before[path]) for path, row in present.items() if before[path][1:] != (row, 1)
    ]
    gone = [
        (number,) for path, (number, _, listed) in before.items() if listed and path not in present
    ]
    connection.executemany(
        "INSERT INTO images (path, label, split, position) VALUES (?, ?, ?, 0)",
        [(row.path, row.label, row.split) for row in added],
    )
    connection.executemany(
        "UPDATE images SET label = ?, split = ?, listed = 1 WHERE id = ?",
        [(row.label, row.split, number) for row, number, _, _ in changed],
    )
    connection.executemany("UPDATE images SET listed = 0 WHERE id = ?", gone)
    write_setting(connection, "digest", source.digest)
    write_setting(connection, "arranged", None)
    return {
        "added": len(added),
        "no longer there, hidden": len(gone),
        "there again": sum(not listed for _, _, _, listed in changed),
        "with another label": sum(row.label != old.label for row, _, old, _ in changed),
    }


def remember_place(connection: Connection, source: Source, database: Path) -> None:
    """Store where the source lies, from the folder of the database."""
    place = os.path.relpath(source.place, database.absolute().parent)
    if read_setting(connection, "source") != [place, source.is_folder]:
        write_setting(connection, "source", [place, source.is_folder])


def source_of(connection: Connection, database: Path) -> tuple[Path, bool]:
    """Absolute path of the manifest or folder of a database, and whether it is a folder."""
    place, is_folder = read_setting(connection, "source")
    return Path(os.path.normpath(database.absolute().parent / place)), bool(is_folder)


def root_of(connection: Connection, database: Path) -> Path:
    """Folder that the paths of the images of a database start from."""
    place, is_folder = source_of(connection, database)
    return place if is_folder else place.parent


def arrange(connection: Connection, settings: LabelSettings) -> None:
    """Order the images and count the people needed, if something of it has changed.

    The random position of an image depends on its path alone: later images do not change it.
    """
    key = [settings.overlap, list(settings.splits)]
    if read_setting(connection, "arranged") == key:
        return
    images = connection.execute("SELECT id, path, split, listed FROM images").fetchall()
    counted = dict(
        connection.execute("SELECT image, count(*) FROM answers GROUP BY image").fetchall()
    )
    values = []
    for position, row in enumerate(sorted(images, key=lambda row: _draw(row["path"]))):
        asked = not settings.splits or row["split"] in settings.splits
        places = settings.overlap - counted.get(row["id"], 0) if row["listed"] and asked else 0
        values.append((position, int(asked), places, row["id"]))
    connection.executemany(
        "UPDATE images SET position = ?, asked = ?, places = ? WHERE id = ?", values
    )
    write_setting(connection, "arranged", key)


def _draw(path: str) -> bytes:
    """Random text of a path."""
    return hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=8).digest()
