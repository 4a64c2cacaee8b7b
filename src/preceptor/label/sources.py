"""Images that are to be marked: rows of a manifest or files of a folder, and their order.

Reading the rows decodes nothing and does not import torch; missing and damaged files are found when
they are shown. Marks are bitmaps in pixels of the image that was marked. A file of another size is
another image: it is not shown, and its marks are kept and left out of exports until the old file is
back.
"""

# os.path and not Path: a hundred thousand files are looked up.
# ruff: noqa: PTH100, PTH118, PTH122

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from preceptor.data.images import ImageError, image_size, image_suffixes, load_image
from preceptor.errors import InputError, is_control, one_line
from preceptor.label.db import Connection, LabelSettings, read_setting, write_setting
from preceptor.label.marks import LIMIT
from preceptor.utils.files import walk
from preceptor.utils.process import DECODING
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


WHOLE = 8_000_000  # largest number of pixels that are sent; larger images are sent reduced
LONGEST = 16_384  # largest side of what is sent


class PictureError(Exception):
    """Image that cannot be shown; the message has no path."""


def measure(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header."""
    try:
        width, height = image_size(path)
    except ImageError as error:
        raise PictureError(error.reason) from error
    if width * height > LIMIT:
        raise PictureError(
            f"{width:,} × {height:,} pixels; at most {LIMIT // 1_000_000} megapixels are possible"
        )
    return width, height


@contextlib.contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """Context with an image within the budget of all threads."""
    width, height = measure(path)
    with DECODING.reserve(width * height):
        try:
            image = load_image(path)
        except ImageError as error:
            raise PictureError(error.reason) from error
        yield image


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def version_of(path: Path) -> str:
    """Text that changes with the file, and not with its place."""
    try:
        state = path.stat()
    except OSError as error:
        raise PictureError("there is no such file") from error
    stamp = f"{state.st_size} {state.st_mtime_ns}"
    return hashlib.blake2b(stamp.encode(), digest_size=16).hexdigest()


def picture(path: Path) -> bytes:
    """JPEG file of an image, reduced by a whole number if the image is large."""
    with _decoded(path) as image:
        share = max(image.width * image.height / WHOLE, (max(image.size) / LONGEST) ** 2)
        return _jpeg(image.reduce(math.ceil(math.sqrt(share))) if share > 1 else image)


def small(path: Path, side: int) -> bytes:
    """JPEG file with sides of at most `side` pixels."""
    with _decoded(path) as image:
        image.thumbnail((side, side))
        return _jpeg(image)


class FileState(NamedTuple):
    """State of the file of an image; its size is that of the image that was shown first."""

    width: int | None
    height: int | None
    problem: str | None  # why the image cannot be shown; None = it can, as far as is known
    looked_at: str | None  # version of the file; None = it is looked at again


def file_state(row: sqlite3.Row, path: Path) -> FileState:
    """State of the file of an image now; its header is read only if the file has changed."""
    stored = FileState(*(row[name] for name in FileState._fields))
    try:
        version = version_of(path)
        if version == stored.looked_at:
            return stored
        size = measure(path)
    except PictureError as error:
        return stored._replace(problem=str(error), looked_at=None)
    known = (stored.width, stored.height)
    if known not in (size, (None, None)):
        problem = (
            f"the file has {size[0]} × {size[1]} pixels, and was shown with {known[0]} × "
            f"{known[1]}; put the old file back, or give a different image a different name"
        )
        return stored._replace(problem=problem, looked_at=None)
    return FileState(*size, None, version)


def write_states(connection: Connection, states: list[tuple[int, FileState]]) -> None:
    """Store states of images by their numbers, within a transaction."""
    connection.executemany(
        "UPDATE images SET width = ?, height = ?, problem = ?, looked_at = ? WHERE id = ?",
        [(*state, image) for image, state in states],
    )


def look_again(connection: Connection) -> None:
    """Forget why images cannot be shown."""
    connection.execute(
        "UPDATE images SET problem = NULL, looked_at = NULL WHERE problem IS NOT NULL"
    )


def forget_sizes(connection: Connection) -> None:
    """Forget the sizes of images without work: their files may be replaced."""
    connection.execute(
        "UPDATE images SET width = NULL, height = NULL, looked_at = NULL WHERE width IS NOT NULL "
        "AND id NOT IN (SELECT image FROM strokes UNION SELECT image FROM answers "
        "UNION SELECT image FROM answers_aside)"
    )


def are_reachable(connection: Connection, root: Path) -> bool:
    """Whether any of some images of the manifest has a file; a whole drive may be away."""
    paths = connection.execute(
        "SELECT path FROM images WHERE listed = 1 ORDER BY random() LIMIT 64"
    ).fetchall()
    return any((root / path).is_file() for (path,) in paths)


def is_replaced(row: sqlite3.Row, path: Path) -> bool:
    """Whether the file of an image has another size than the image that was marked."""
    with contextlib.suppress(PictureError):
        return row["width"] is not None and measure(path) != (row["width"], row["height"])
    return False
