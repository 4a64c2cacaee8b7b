"""Images that are to be marked: rows of a manifest or files of a folder, and their order.

Nothing is decoded and torch is not imported. Missing and damaged files are found when they are
shown.
"""

# os.path and not Path: a hundred thousand files are looked up.
# ruff: noqa: PTH100, PTH118, PTH122

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.data.images import image_suffixes
from preceptor.errors import InputError, is_control
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
    source: str = ""


@dataclass(frozen=True)
class Source:
    """Manifest or folder."""

    place: Path  # absolute path of the manifest or the folder
    root: Path
    is_folder: bool  # whether it is a folder
    digest: str  # hash of the table, or of the names of the files
    left_out: int = 0

    @property
    def database(self) -> Path:
        """Database beside it, by default."""
        name = self.place.name if self.is_folder else self.place.stem
        return self.place.with_name(f"{name}.label.sqlite")


def find_source(path: Path) -> Source:
    """Manifest or folder at a path, with its hash."""
    place = Path(os.path.abspath(path))
    if place.is_dir():
        digest = hashlib.blake2b(digest_size=16)
        names, left_out = _files(place)
        for name in names:
            digest.update(os.fsencode(name) + b"\0")
        return Source(place, place, True, digest.hexdigest(), left_out)
    if not place.is_file():
        raise InputError(f"{path}: there is no such manifest or folder; correct the path")
    if place.suffix.lower() in image_suffixes():
        raise InputError(f"{path}: it is one image; name its folder")
    return Source(place, place.parent, False, file_digest(place))


def folder_rows(source: Source) -> list[Row]:
    """One row per image file of a folder."""
    rows = [Row(name) for name in _files(source.place)[0]]
    if not rows and source.left_out:
        raise InputError(
            f"{source.place}: the names of its {source.left_out:,} images are not UTF-8, or have "
            "control characters; rename them"
        )
    if not rows:
        raise InputError(f"{source.place}: there is no image in it; name a folder of images")
    return rows


def _files(folder: Path) -> tuple[list[str], int]:
    """Image files below a folder, as paths from it, sorted, and the number of those whose names
    cannot be stored; hidden ones are left out."""
    found, left_out = [], 0
    suffixes = image_suffixes()
    for base, _, names in walk(str(folder)):
        inside = os.path.relpath(base, folder)
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in suffixes:
                continue
            path = name if inside == "." else os.path.join(inside, name)
            if any(map(is_control, path)):
                left_out += 1
            else:
                found.append(path)
    return sorted(found), left_out


def checked_table(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """Table of a manifest as `Manifest` has it, and the paths of its images in a database."""
    # pandas is imported only when a manifest has changed.
    from preceptor.data.checks import REQUIRED, check_cells, check_columns
    from preceptor.data.remote import is_local, not_plain
    from preceptor.data.table import Findings, read_table

    findings = Findings(str(source.place))
    raw = read_table(source.place, findings)
    check_columns([str(column) for column in raw.frame.columns], REQUIRED[:2], findings)
    findings.raise_if_any()
    if not len(raw.frame):
        findings.add(None, "there are no rows", "add one row per image")
        findings.raise_if_any()
    table = check_cells(raw, source.root, findings, (), None)
    remote: set[int] = set()
    for column in ("path", "saliency"):
        cells = table[column].tolist()
        remote |= {at for at in not_plain(cells) if not is_local(cells[at])}
    if remote:
        example = min(remote)
        what = (
            f"{table['name'].iloc[example]!r} or its map is no local file, as of {len(remote):,} "
            "rows in all"
        )
        findings.add(raw.rows[example], what, "copy the files to a folder and write their paths")
        findings.raise_if_any()
    prefix = os.path.join(source.root, "")
    paths = [path.removeprefix(prefix) for path in table["path"]]
    first: dict[str, int] = {}
    for at, path in enumerate(paths):
        if path in first:
            what = f"image {path!r} is listed already in row {raw.rows[first[path]]}"
            findings.add(raw.rows[at], what, "remove one of the two")
        else:
            first[path] = at
    findings.raise_if_any()
    return table.reset_index(drop=True), paths


def rows_of(source: Source) -> list[Row]:
    """Images of a manifest or a folder."""
    if source.is_folder:
        return folder_rows(source)
    table, paths = checked_table(source)
    if not any(map(os.path.exists, table["path"])):
        from preceptor.data.table import Findings

        findings = Findings(str(source.place))
        what = f"none of its {len(paths):,} images exists; the first one is {paths[0]!r}"
        findings.add(None, what, f"correct the paths, which start from {source.root}")
        findings.raise_if_any()
    columns = (table[name].tolist() for name in ("label", "split", "source"))
    return [Row(*cells) for cells in zip(paths, *columns, strict=True)]


@dataclass(frozen=True)
class Changes:
    """What a manifest that has changed did to the images of a database."""

    added: int = 0  # numbers of images; shown = hidden before
    hidden: int = 0
    shown: int = 0
    relabeled: int = 0


def is_current(connection: Connection, source: Source) -> bool:
    """Whether the images of a source are in the database as they are now."""
    return bool(read_setting(connection, "digest") == source.digest)


def take_in(connection: Connection, source: Source, rows: Sequence[Row]) -> Changes:
    """Bring the images of the database to the rows of a source, within a transaction."""
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
    write_setting(connection, "digest", source.digest)
    write_setting(connection, "arranged", None)
    return Changes(len(added), len(gone), shown, relabeled)


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
    """Order the images and count the people needed, if something of it has changed."""
    key = [
        settings.order,
        settings.seed,
        settings.overlap,
        settings.overlap_share,
        list(settings.splits),
    ]
    if read_setting(connection, "arranged") == key:
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
    write_setting(connection, "arranged", key)


def _common_folder(connection: Connection, paths: Sequence[str]) -> str:
    """Common folder of the images that were arranged first, with a slash at its end, or ""."""
    known: str | None = read_setting(connection, "common_folder")
    if known is not None:
        return known
    try:
        common = posixpath.commonpath({posixpath.dirname(path) for path in paths})
    except ValueError:  # no image, or absolute and relative paths
        common = ""
    known = f"{common}/" if common else ""
    if paths:
        write_setting(connection, "common_folder", known)
    return known


def _draws(seed: int, path: str) -> tuple[int, float]:
    """Random position and random share of an image."""
    digest = hashlib.blake2b(f"{seed} {path}".encode(errors="surrogatepass"), digest_size=16)
    raw = digest.digest()
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big") / 2**64
