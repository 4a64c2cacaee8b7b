"""Unfinished output: rows and maps so far, and the state from which the command goes on.

A folder `.NAME.partial` beside the output has `rows.jsonl` (a line per image), `maps.f16` (raw maps
of a map store) and `state.json`, which says how much of them is valid. A process that is killed
leaves longer files, whose end is cut off when it is started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from preceptor.errors import HeldError, InputError
from preceptor.runtime.file_lock import lock_for_good
from preceptor.runtime.result_folder import write_atomically

ROWS, MAPS, STATE = "rows.jsonl", "maps.f16", "state.json"


@dataclass(frozen=True)
class State:
    """Valid part of an unfinished output.

    Args:
        settings: Hash of the model and of the settings.
        batch_size: Number of images per pass.
        images: Number of images that are done, bad ones included.
        names: Hash of their names.
        rows: Length of the rows in bytes.
        maps: Length of the maps in bytes.
        grid: Size [h, w] of the maps; [] = there is none yet.
    """

    settings: str
    batch_size: int
    images: int = 0
    names: str = ""
    rows: int = 0
    maps: int = 0
    grid: Sequence[int] = ()


def chained(names: str, name: str) -> str:
    """Hash of a sequence of names, from the hash of all but the last one."""
    return hashlib.blake2b(
        f"{names}\n{name}".encode(errors="surrogateescape"), digest_size=12
    ).hexdigest()


def partial_folder(out: Path) -> Path:
    """Folder of an unfinished output."""
    return out.with_name(f".{out.name}.partial")


def is_unfinished(out: Path) -> bool:
    """Whether an output was begun and is not finished."""
    return (partial_folder(out) / STATE).is_file()


class Unfinished:
    """Folder of an unfinished output, used as a context manager; it is kept until `remove`.

    Args:
        out: Output file.
        settings: Hash of the model and of the settings.
        batch_size: Function that returns the number of images per pass of a new output.

    Raises:
        HeldError: Another process writes the same output.
        InputError: The unfinished output has another model or other settings.
    """

    def __init__(self, out: Path, settings: str, batch_size: Callable[[], int]) -> None:
        self.folder = partial_folder(out)
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        self._rows: BinaryIO | None = None
        self._maps: BinaryIO | None = None
        try:
            # Where there are no locks, two processes with the same output are not told apart.
            with self._named_errors():
                is_own = lock_for_good(self._lock.fileno())  # released if the process dies
            if not is_own:
                raise HeldError(f"{out}: another process writes it; choose another name")
            self.state = self._read(settings) or State(settings, batch_size())
            self._rows = self._open(ROWS, self.state.rows)
            self._maps = self._open(MAPS, self.state.maps)
            # From here on there is something to go on from: maps may be written before any row.
            self.keep(self.state.images, self.state.names, self.state.grid)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._rows, self._maps, self._lock):
            if file is not None:
                with contextlib.suppress(OSError):  # on a full disk; `keep` wrote all that is valid
                    file.close()

    def write(self, rows: bytes, maps: bytes) -> None:
        """Append rows and maps; they are valid after the next `keep`."""
        assert self._rows is not None
        assert self._maps is not None
        with self._named_errors():
            self._rows.write(rows)
            self._maps.write(maps)

    def keep(self, images: int, names: str, grid: Sequence[int]) -> None:
        """Make all that was written valid, also after a power failure."""
        assert self._rows is not None
        assert self._maps is not None
        with self._named_errors():
            for file in (self._rows, self._maps):
                file.flush()
                os.fsync(file.fileno())
        state = State(
            self.state.settings,
            self.state.batch_size,
            images,
            names,
            self._rows.tell(),
            self._maps.tell(),
            grid,
        )
        write_atomically(self.folder / STATE, json.dumps(asdict(state)) + "\n")
        self.state = state

    def remove(self) -> None:
        """Remove the folder, after the output is in its place."""
        self.__exit__()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Context whose errors name the folder: an open file that cannot be written names none."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.folder)
            raise

    def _read(self, settings: str) -> State | None:
        """State of an earlier process; None if there is none."""
        file = self.folder / STATE
        again = f"remove the folder {self.folder} to start again"
        try:
            state = State(**json.loads(file.read_text(encoding="utf-8")))
            sizes = [(self.folder / name).stat().st_size for name in (ROWS, MAPS)]
            damaged = sizes[0] < state.rows or sizes[1] < state.maps
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # errors of JSON, of UTF-8 and of other keys
            damaged = True
        if damaged:
            raise InputError(f"{file}: damaged; {again}")
        if state.settings != settings:
            raise InputError(
                f"{self.folder} was begun with another model or other options; repeat the command "
                f"as it was, or {again}"
            )
        return state

    def _open(self, name: str, size: int) -> BinaryIO:
        """File for appending, cut to its valid part."""
        file = (self.folder / name).open("ab")
        file.truncate(size)
        file.seek(size)
        return file
