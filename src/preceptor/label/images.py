"""Files of images: whether they can be shown, and the JPEG files that the page loads.

Marks are bitmaps in pixels of the image that was marked. A file of another size is another image:
it is not shown, and its marks are kept and left out of exports until the old file is back.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from preceptor.data.images import ImageError, image_size, load_image
from preceptor.label.db import Connection
from preceptor.label.marks import LIMIT
from preceptor.utils.process import DECODING

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
