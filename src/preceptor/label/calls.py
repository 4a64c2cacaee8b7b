"""A request with the state of the server, its checked body, and the handing out of images."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from preceptor.deploy.http import Hosts, RefusedError, forbidden, malformed, parse, unknown
from preceptor.errors import is_control
from preceptor.label.db import Connection, Database, LabelSettings, in_utc
from preceptor.label.images import (
    FileState,
    PictureError,
    Pictures,
    are_reachable,
    file_state,
    stored_state,
    version_or_none,
    write_problem,
    write_states,
)
from preceptor.label.people import Keys, PasswordTries, Person, Session
from preceptor.label.queue import Claims, Tabs, open_images
from preceptor.label.sources import Source

Access = Literal["local", "password", "links"]
_LARGEST_ID = 2**53
_LOOKING_AGAIN = 60.0  # seconds until files that could not be read are looked at again


@dataclass
class Labeling:
    """State of a server."""

    database: Database
    source: Source
    settings: LabelSettings
    keys: Keys
    hosts: Hosts
    pictures: Pictures
    static: Mapping[str, Path]
    access: Access = "local"  # how people come in
    password: str = ""  # password, with access by password
    lead: int = 0  # number of the person whom the link of the terminal is for; 0 = a name is chosen
    claims: Claims = field(default_factory=Claims)
    tabs: Tabs = field(default_factory=Tabs)
    tries: PasswordTries = field(default_factory=PasswordTries)
    handing_out: threading.Lock = field(default_factory=threading.Lock)
    calls: ThreadPoolExecutor = field(default_factory=lambda: _threads(16, "label-calls"))
    decoding: ThreadPoolExecutor = field(default_factory=lambda: _threads(2, "label-pictures"))
    builder: ThreadPoolExecutor = field(default_factory=lambda: _threads(1, "label-builder"))
    look_again_at: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def cookie_name(self) -> str:
        """Name of the cookie; a browser sends cookies of a host to all of its ports."""
        return f"preceptor-label-{self.hosts.port}"

    def close(self) -> None:
        """Write what waits, and end the threads; returns when they have ended."""
        self.pictures.stop()
        for pool in (self.calls, self.decoding, self.builder):
            pool.shutdown(cancel_futures=True)
        self.database.close()


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix=name)


@dataclass(frozen=True)
class Call:
    """One request."""

    labeling: Labeling
    session: Session | None
    person: Person | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    content: bytes  # body
    headers: Mapping[str, str]
    address: str = ""

    @property
    def reading(self) -> Connection:
        """Connection for reading."""
        return self.labeling.database.reading

    @property
    def body(self) -> dict[str, Any]:
        """Object of the JSON body."""
        return parse(self.content)

    @property
    def someone(self) -> Person:
        """Person of the session."""
        if self.person is None:
            raise forbidden("choose a name first")
        return self.person

    @property
    def leads(self) -> bool:
        """Whether the page of the lead may be seen."""
        return leads(self.session, self.person)

    def image(self) -> sqlite3.Row:
        """Image of the path."""
        number = self.number("image", _LARGEST_ID)
        row: sqlite3.Row | None = self.reading.execute(
            "SELECT * FROM images WHERE id = ?", (number,)
        ).fetchone()
        if row is None:
            raise unknown("there is no such image")
        return row

    def number(self, key: str, largest: int) -> int:
        """Number in the path, from 0."""
        value = number_of(self.path[key], largest)
        if value is None:
            raise unknown(f"there is no such {key}")
        return value

    def asked(self, key: str, largest: int) -> int | None:
        """Number in the query, or None."""
        if key not in self.query:
            return None
        value = number_of(self.query[key], largest)
        if value is None:
            raise malformed(f"{key}: a whole number from 0 to {largest} is needed")
        return value


def leads(session: Session | None, person: Person | None) -> bool:
    """Whether somebody sees the page of the lead; a guest may have chosen the name of another."""
    if session is None or session.role == "guest":
        return False
    return session.role == "lead" or (person is not None and person.lead)


def number_of(text: str, largest: int) -> int | None:
    """Number of decimal digits; None for anything else."""
    if not (1 <= len(text) <= 16 and text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return value if value <= largest else None


LARGEST = 8 * 2**20
"""Largest body in bytes."""
MOST_IMAGES = 24
"""Largest number of images that are handed out at a time."""


def _utc(value: str) -> str:
    moment = datetime.fromisoformat(value)
    try:
        return in_utc(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


def _line(value: str) -> str:
    if any(map(is_control, value)):
        raise ValueError("no control characters are possible")
    return value


Number = Annotated[int, Field(ge=0, le=2**53)]
Line = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_line)]
Tab = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Time = Annotated[str, Field(max_length=40), AfterValidator(_utc)]
# A day at most: a computer may have slept.
Seconds = Annotated[float, Field(ge=0), AfterValidator(lambda value: min(value, 86400.0))]


class Body(BaseModel):
    """Body of a tab."""

    model_config = ConfigDict(strict=True, frozen=True)
    tab: Tab


class StrokeBody(Body):
    """A stroke; its rectangle lies in an image of `width` × `height` pixels."""

    uuid: Uuid
    tool: Literal["brush", "eraser", "polygon", "box", "wand", "proposal"]
    class_: str = Field(alias="class")
    erase: bool
    width: Number
    height: Number
    x: Number
    y: Number
    w: Annotated[Number, Field(ge=1)]
    h: Annotated[Number, Field(ge=1)]
    runs: str
    started: Time
    seconds: Seconds
    proposal: Number | None = None
    version: Line | None = None


class TurnBody(Body):
    """A stroke that is undone or redone."""

    uuid: Uuid


class AnswerBody(Body):
    """An answer, and whether the next image is handed out."""

    state: Literal["marked", "nothing", "cannot_judge", "skipped"]
    label: str | None = None
    certainty: Annotated[int, Field(ge=1, le=3)] | None = None
    seconds: Seconds
    proposal: Number | None = None
    version: Line | None = None
    next: bool = True


class OpenBody(Body):
    """An image that is opened, taken over or closed, and the images that come next."""

    line: Annotated[list[Number], Field(max_length=MOST_IMAGES)] = []
    close: bool = False
    take: bool = False


class SeenBody(Body):
    """From when until when an image was shown, and with which proposal."""

    from_: Time = Field(alias="from")
    until: Time
    proposal: Number | None = None


B = TypeVar("B", bound=Body)


def checked(kind: type[B], body: dict[str, Any]) -> B:
    """Body of a kind."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise malformed(f"{key}: {first['msg']}") from error


UNREACHABLE = (
    "the images cannot be reached: none of the files that were looked for is there; connect their "
    "drive, or put them back"
)
_PASSED = 256  # images among which missing ones are looked for at a time


def hand_out(call: Call, count: int, without: int | None = None) -> list[int]:
    """Next open images, kept for the person; those that cannot be shown are passed over."""
    labeling, person, reading = call.labeling, call.someone, call.reading
    while True:
        with labeling.handing_out:
            found = open_images(reading, person.id, labeling.claims, count, without)
            labeling.claims.take(found, person.id)
        hidden = [row["id"] for row in sized(labeling, reading, found) if row["problem"]]
        if not hidden and (len(found) == count or not _look_again(labeling, reading)):
            return found
        for image in hidden:
            labeling.claims.drop(image, person.id)
        if hidden:
            _pass_over(
                labeling,
                reading,
                open_images(reading, person.id, labeling.claims, _PASSED, without),
            )


def sized(
    labeling: Labeling,
    connection: Connection,
    images: Iterable[int],
    *,
    need_files: bool = True,
) -> list[sqlite3.Row]:
    """Rows of images, whose sizes are read from the files if these are new or have changed."""
    numbers = list(images)
    rows = _rows(connection, numbers)
    changed = _changed(labeling, connection, rows)
    if any(state.looked_at is None for _, state in changed) and not are_reachable(
        connection, labeling.source.root
    ):
        if need_files:
            raise RefusedError(503, UNREACHABLE)
        changed = [(image, state) for image, state in changed if state.looked_at is not None]
    if not changed:
        return rows
    labeling.database.write(lambda writing: write_states(writing, changed))
    return _rows(connection, numbers)


def path_of(labeling: Labeling, row: sqlite3.Row) -> Path:
    """File of an image; its path is from the manifest, never from a request."""
    return labeling.source.root / str(row["path"])


def note_problem(labeling: Labeling, row: sqlite3.Row, problem: PictureError) -> None:
    """Store why an image cannot be shown."""
    path = path_of(labeling, row)
    labeling.database.write(lambda connection: write_problem(connection, row["id"], path, problem))


def _rows(connection: Connection, images: list[int]) -> list[sqlite3.Row]:
    marks = ", ".join("?" * len(images))
    rows = connection.execute(f"SELECT * FROM images WHERE id IN ({marks})", images)
    found = {row["id"]: row for row in rows}
    return [found[image] for image in images]


def _changed(
    labeling: Labeling, connection: Connection, rows: Iterable[sqlite3.Row]
) -> list[tuple[int, FileState]]:
    """States of images that are not the stored ones."""
    states = ((row, file_state(connection, row, path_of(labeling, row))) for row in rows)
    return [(row["id"], state) for row, state in states if state != stored_state(row)]


def _pass_over(labeling: Labeling, connection: Connection, images: list[int]) -> None:
    """Store which of some images are missing, so that not each of them is handed out."""
    missing = [
        row for row in _rows(connection, images) if version_or_none(path_of(labeling, row)) is None
    ]
    changed = _changed(labeling, connection, missing)
    if changed:
        labeling.database.write(lambda writing: write_states(writing, changed))


def _look_again(labeling: Labeling, connection: Connection) -> bool:
    """Look again at images whose file was missing or could not be read, from time to time."""
    now = time.monotonic()
    if now < labeling.look_again_at:
        return False
    labeling.look_again_at = now + _LOOKING_AGAIN
    rows = connection.execute(
        "SELECT * FROM images WHERE problem IS NOT NULL AND looked_at IS NULL"
    )
    changed = _changed(labeling, connection, rows.fetchall())
    if changed:
        labeling.database.write(lambda writing: write_states(writing, changed))
    return any(state.problem is None for _, state in changed)
