"""Files of images: whether they can be shown, and the JPEG files that the page loads.

Marks are bitmaps in pixels of the image that was marked. A file of another size is another image:
it is not shown, and its marks are kept and left out of exports until the old file is back.

An image is sent as a whole or as tiles of a pyramid, whose levels halve the resolution down to one
tile. A pyramid is made at first use in the cache folder, and removed after some weeks without use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from PIL import Image

from preceptor.data.images import ImageError, image_size, load_image
from preceptor.deploy.http import RefusedError
from preceptor.label.db import Connection
from preceptor.label.marks import LIMIT, has_work, withdraw_others
from preceptor.utils.files import replacing
from preceptor.utils.process import DECODING

WHOLE = 4_000_000  # largest number of pixels of an image that is sent as a whole
LONGEST = 65_500  # largest side of a JPEG file
TILE = 512
UNUSED = 30 * 86_400.0  # seconds without use after which a pyramid is removed


class PictureError(Exception):
    """Image that cannot be shown; the message has no path.

    `is_passing`: its file could not be read, as opposed to a file that was read and is damaged.
    """

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        super().__init__(message)


def _error_of(error: ImageError) -> PictureError:
    cause = error.__cause__
    # Of a file whose content is wrong, Pillow raises an OSError without a number, or of a seek.
    is_passing = isinstance(cause, MemoryError) or (
        isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL)
    )
    return PictureError(error.reason, is_passing=is_passing)


def view_of(width: int, height: int) -> tuple[str, int]:
    """How an image is sent ("whole" or "tiles"), and the number of levels of its pyramid."""
    if width * height <= WHOLE and max(width, height) <= LONGEST:
        return "whole", 1
    return "tiles", 1 + max(0, math.ceil(math.log2(max(width, height) / TILE)))


def measure(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header."""
    try:
        width, height = image_size(path)
    except ImageError as error:
        raise _error_of(error) from error
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
            raise _error_of(error) from error
        yield image


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def version_of(path: Path) -> str:
    """Text that changes with the file: of its path, size and time."""
    return _digest(f"{os.path.abspath(path)} {_stamp(path)}")  # noqa: PTH100


def version_or_none(path: Path) -> str | None:
    """Text that changes with the file, and not with its place; None if there is no such file."""
    with contextlib.suppress(PictureError):
        return _digest(_stamp(path))
    return None


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise PictureError("there is no such file", is_passing=True) from error
    return f"{state.st_size} {state.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


class Pictures:
    """Encoded images and pyramids."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._lock = threading.Lock()  # one pyramid is made at a time
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End what is being made, which raises RefusedError (503), and make nothing further."""
        self._stopping.set()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise RefusedError(503, "the server is stopping; try again when it runs again")

    def whole(self, path: Path) -> bytes:
        """JPEG file of an image."""
        self._check()
        with _decoded(path) as image:
            return _jpeg(image)

    def small(self, path: Path, side: int) -> bytes | None:
        """JPEG file with sides of at most `side` pixels; of a pyramid, its top."""
        view, levels = view_of(*measure(path))
        if view == "tiles":
            return self.tile(path, levels - 1, 0, 0)
        self._check()
        with _decoded(path) as image:
            image.thumbnail((side, side))
            return _jpeg(image)

    def tile(self, path: Path, level: int, column: int, row: int) -> bytes | None:
        """JPEG file of a tile; None if there is no such tile. The pyramid is made if necessary."""
        file = self.pyramid(path) / str(level) / f"{column}-{row}.jpg"
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None

    def pyramid(self, path: Path) -> Path:
        """Folder of the pyramid of an image, which is made if necessary."""
        folder = self.cache / version_of(path)
        if _is_there(folder):
            return folder
        with self._lock:
            if not folder.is_dir():
                self.cache.mkdir(parents=True, exist_ok=True)
                self._check()
                with _decoded(path) as image:
                    _write_pyramid(image, folder, self._check)
        return folder

    def remove_unused(self, seconds: float = UNUSED) -> int:
        """Remove pyramids that no server has used for some time, also unfinished ones."""
        removed = 0
        before = time.time() - seconds
        for folder in self.cache.glob("*"):
            if self._stopping.is_set():
                break
            with contextlib.suppress(OSError):  # removed or used by another server, or not ours
                if folder.stat().st_mtime >= before:
                    continue
                hidden = folder.with_name(f".{uuid.uuid4().hex}.tmp")
                folder.rename(hidden)  # so that no pyramid is seen in part
                shutil.rmtree(hidden)
                removed += 1
        return removed


def _is_there(folder: Path) -> bool:
    """Whether a pyramid exists; records its use."""
    if not folder.is_dir():
        return False
    with contextlib.suppress(OSError):  # a cache that cannot be written, or removed just now
        if time.time() - folder.stat().st_mtime > 3600:
            os.utime(folder)
    return True


def _write_pyramid(image: Image.Image, folder: Path, check: Callable[[], None]) -> None:
    """Write a pyramid; `check` is called before each tile, and may raise."""
    with replacing(folder, flush=False) as partial:
        for level in range(view_of(*image.size)[1]):
            if level:
                image = image.reduce(2)  # means of 2 × 2; the last row or column is repeated
            place = partial / str(level)
            place.mkdir(parents=True)
            width, height = image.size
            for y, x in product(range(0, height, TILE), range(0, width, TILE)):
                check()
                box = (x, y, min(x + TILE, width), min(y + TILE, height))
                (place / f"{x // TILE}-{y // TILE}.jpg").write_bytes(_jpeg(image.crop(box)))


@dataclass(frozen=True)
class FileState:
    """State of the file of an image; its size is that of the marks, if there are any."""

    width: int | None
    height: int | None
    problem: str | None  # why the image cannot be shown; None = it can, as far as is known
    looked_at: str | None


def stored_state(row: sqlite3.Row) -> FileState:
    """State of an image as it is in the database."""
    return FileState(row["width"], row["height"], row["problem"], row["looked_at"])


def file_state(connection: Connection, row: sqlite3.Row, path: Path) -> FileState:
    """State of the file of an image now; its header is read only if the file has changed."""
    version, stored = version_or_none(path), stored_state(row)
    is_same = version is not None and version == row["looked_at"]
    if is_same and row["width"] is not None and row["problem"] is None:
        return stored
    try:
        size = measure(path)
    except PictureError as error:
        looked_at = None if error.is_passing else version
        return FileState(row["width"], row["height"], str(error), looked_at)
    is_size = size == (row["width"], row["height"])
    if is_same and is_size:
        return stored  # its header is sound, and its pixels are damaged
    if row["width"] is None or is_size or not has_work(connection, row["id"]):
        return FileState(*size, None, version)
    problem = (
        f"the file has {size[0]} × {size[1]} pixels, and its marks were made on "
        f"{row['width']} × {row['height']}; they are kept, put the old file back"
    )
    return FileState(row["width"], row["height"], problem, version)


def are_reachable(connection: Connection, root: Path) -> bool:
    """Whether any of some images of the manifest has a file; a whole drive may be away."""
    paths = connection.execute(
        "SELECT path FROM images WHERE listed = 1 ORDER BY random() LIMIT 64"
    ).fetchall()
    return any((root / path).is_file() for (path,) in paths)


def is_replaced(row: sqlite3.Row, path: Path) -> bool:
    """Whether the file of an image has another size than the image that was marked."""
    is_same = row["problem"] is None and version_or_none(path) == row["looked_at"]
    if row["width"] is not None and not is_same:
        with contextlib.suppress(PictureError):
            return measure(path) != (row["width"], row["height"])
    return False


def changed_states(
    connection: Connection, root: Path, rows: Iterable[sqlite3.Row]
) -> list[tuple[int, FileState]]:
    """Present states of images that are not the stored ones."""
    states = ((row, file_state(connection, row, root / row["path"])) for row in rows)
    return [(row["id"], state) for row, state in states if state != stored_state(row)]


def rows_with_work(connection: Connection) -> list[sqlite3.Row]:
    """Images with strokes, answers or a problem."""
    return connection.execute(
        "SELECT * FROM images WHERE problem IS NOT NULL "
        "OR id IN (SELECT image FROM strokes UNION SELECT image FROM answers)"
    ).fetchall()


def problems_now(connection: Connection, root: Path) -> list[str]:
    """Images that cannot be shown now: the name of each, and why."""
    rows = [row for row in rows_with_work(connection) if row["listed"]]
    now = {number: state.problem for number, state in changed_states(connection, root, rows)}
    problems = ((row["path"], now.get(row["id"], row["problem"])) for row in rows)
    return [f"{Path(path).name}: {why}" for path, why in problems if why is not None]


def write_states(connection: Connection, states: list[tuple[int, FileState]]) -> None:
    """Store states of images by their numbers, within a transaction.

    If the size of an image without marks changes, its answers are withdrawn; if it
    was marked since it was looked at, its state stays.
    """
    for image, one in states:
        size = connection.execute(
            "SELECT width, height FROM images WHERE id = ?", (image,)
        ).fetchone()
        if size["width"] is not None and tuple(size) != (one.width, one.height):
            if has_work(connection, image):
                continue
            withdraw_others(connection, image)
        connection.execute(
            "UPDATE images SET width = ?, height = ?, problem = ?, looked_at = ? WHERE id = ?",
            (one.width, one.height, one.problem, one.looked_at, image),
        )


def write_problem(connection: Connection, image: int, path: Path, problem: PictureError) -> None:
    """Store why an image cannot be shown, within a transaction."""
    size: tuple[int | None, int | None] = (None, None)
    with contextlib.suppress(PictureError):
        size = measure(path)
    connection.execute(
        "UPDATE images SET problem = ?, looked_at = ?, width = coalesce(width, ?), "
        "height = coalesce(height, ?) WHERE id = ?",
        (str(problem), None if problem.is_passing else version_or_none(path), *size, image),
    )


def look_again(connection: Connection, root: Path) -> bool:
    """Store the present state of images with work or a problem, within a transaction.

    Returns whether any that could not be shown can be.
    """
    changed = changed_states(connection, root, rows_with_work(connection))
    if any(one.looked_at is None for _, one in changed) and not are_reachable(connection, root):
        changed = [(image, one) for image, one in changed if one.looked_at is not None]
    write_states(connection, changed)
    return any(one.problem is None for _, one in changed)
