"""A request: who asks, the state of the server, the checked body, and the handing out of images.

A session is a cookie with a person and a random number, signed with the key beside the database.
It stays valid over a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor as Threads
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from preceptor.deploy import http
from preceptor.deploy.http import Hosts, RefusedError
from preceptor.errors import is_control
from preceptor.label import sources as files
from preceptor.label.db import Connection, Database, LabelSettings, in_utc, now
from preceptor.label.queue import Claims, open_images
from preceptor.label.sources import Source

LONGEST = 60  # characters of a name
MOST = 1000  # people


@dataclass(frozen=True)
class Person:
    """One person."""

    id: int  # number in the database
    name: str


def check_name(name: object) -> str:
    """Name without blanks at its ends; raises RefusedError (400) if it is none."""
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= LONGEST:
        raise http.malformed(f"a name has 1 to {LONGEST} characters")
    if any(map(is_control, name)):
        raise http.malformed("a name has no control characters")
    return name.strip()


def person_by_name(connection: Connection, name: str) -> Person | None:
    """Person of a name, in any case of its letters; of several, the one with these letters."""

    def folded(text: str) -> str:  # SQLite knows the cases of ASCII letters alone
        return unicodedata.normalize("NFC", text).casefold()

    same_name = [one for one in _people(connection) if folded(one.name) == folded(name)]
    return max(same_name, key=lambda one: (one.name == name, -one.id), default=None)


def person_by_id(connection: Connection, number: int) -> Person | None:
    """Person of a number."""
    return next((one for one in _people(connection) if one.id == number), None)


def _people(connection: Connection) -> list[Person]:
    return [Person(*row) for row in connection.execute("SELECT id, name FROM people").fetchall()]


def add_person(connection: Connection, name: str) -> Person:
    """Person of a name, who is added if there is none."""
    name = check_name(name)
    person = person_by_name(connection, name)
    if person is not None:
        return person
    if connection.execute("SELECT count(*) FROM people").fetchone()[0] >= MOST:
        raise http.malformed(f"there are {MOST:,} people already")
    number = connection.execute(
        "INSERT INTO people (name, created) VALUES (?, ?)", (name, now())
    ).lastrowid
    assert number is not None
    return Person(number, name)


_COOKIE = re.compile(r"(\d{1,15})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """One session."""

    person: int  # 0 = nobody has been chosen yet
    nonce: str  # random number


class Keys:
    """Keys of sessions and of the link."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    @property
    def token(self) -> str:
        """Token of the link in the terminal."""
        return self._sign("link")[:43]

    def cookie(self, session: Session) -> str:
        """Value of the cookie of a session."""
        text = f"{session.person}.{session.nonce}"
        return f"{text}.{self._sign(f'session {text}')}"

    def session(self, cookie: str) -> Session | None:
        """Session of a cookie; None if it is not one of ours."""
        match = _COOKIE.fullmatch(cookie)
        if match is None:
            return None
        person, nonce, signature = match.groups()
        if not same(signature, self._sign(f"session {person}.{nonce}")):
            return None
        return Session(int(person), nonce)

    def csrf(self, session: Session) -> str:
        """Token that every change must send in a header.

        After another person has signed in, an open tab of the first one cannot save under the
        other name.
        """
        return self._sign(f"csrf {session.person}.{session.nonce}")


def same(a: str, b: str) -> bool:
    """Whether two texts are equal, in a constant time."""
    return hmac.compare_digest(a.encode(errors="surrogatepass"), b.encode(errors="surrogatepass"))


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
    static: Mapping[str, Path]
    quick: bool = False  # whether the page asks for one click an image
    claims: Claims = field(default_factory=Claims)
    handing_out: threading.Lock = field(default_factory=threading.Lock)
    # Threads of changes and questions, and of pictures.
    calls: Threads = field(default_factory=partial(Threads, 16, "label-calls"))
    decoding: Threads = field(default_factory=partial(Threads, 2, "label-pictures"))
    look_again_at: float = 0.0

    @property
    def cookie_name(self) -> str:
        """Name of the cookie; a browser sends cookies of a host to all of its ports."""
        return f"preceptor-label-{self.hosts.port}"

    def close(self) -> None:
        """Write what waits, and end the threads; returns when they have ended."""
        for pool in (self.calls, self.decoding):
            pool.shutdown(cancel_futures=True)
        self.database.close()


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

    @property
    def reading(self) -> Connection:
        """Connection for reading."""
        return self.labeling.database.reading

    @property
    def someone(self) -> Person:
        """Person of the session."""
        if self.person is None:
            raise http.forbidden("choose a name first")
        return self.person

    def image(self) -> sqlite3.Row:
        """Image of the path."""
        number = self.number("image", _LARGEST_ID)
        row: sqlite3.Row | None = self.reading.execute(
            "SELECT * FROM images WHERE id = ?", (number,)
        ).fetchone()
        if row is None:
            raise http.unknown("there is no such image")
        return row

    def number(self, key: str, largest: int) -> int:
        """Number in the path, from 0."""
        value = number_of(self.path[key], largest)
        if value is None:
            raise http.unknown(f"there is no such {key}")
        return value

    def asked(self, key: str, largest: int = _LARGEST_ID) -> int | None:
        """Number in the query, or None."""
        value = number_of(self.query.get(key, "0"), largest)
        if value is None:
            raise http.malformed(f"{key}: a whole number from 0 to {largest} is needed")
        return value if key in self.query else None


def number_of(text: str, largest: int) -> int | None:
    """Number of decimal digits; None for anything else."""
    if not (1 <= len(text) <= 16 and text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return value if value <= largest else None


LARGEST = 8 * 2**20  # largest body in bytes
MOST_IMAGES = 24  # that are handed out at a time


def _utc(value: str) -> str:
    moment = datetime.fromisoformat(value)
    try:
        return in_utc(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


Number = Annotated[int, Field(ge=0, le=2**53)]
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
    tool: Literal[
        "point", "brush", "eraser", "polygon", "box", "wand", "fill", "smooth", "grow", "shrink"
    ]
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


class TurnBody(Body):
    """A stroke that is undone or redone."""

    uuid: Uuid


class AnswerBody(Body):
    """An answer to an image."""

    state: Literal["marked", "nothing", "cannot_judge"]
    label: str | None = None
    seconds: Seconds


class OpenBody(Body):
    """An image that is opened or closed, and the images that come next."""

    line: Annotated[list[Number], Field(max_length=MOST_IMAGES)] = []
    close: bool = False


B = TypeVar("B", bound=Body)


def checked(kind: type[B], call: Call) -> B:
    """Body of a request; raises RefusedError (400) if it is malformed."""
    try:
        return kind.model_validate(http.parse(call.content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise http.malformed(f"{key}: {first['msg']}") from error


UNREACHABLE = (
    "the images cannot be reached: none of the files that were looked for is there; connect their "
    "drive, or put them back"
)


def hand_out(call: Call, count: int, without: int | None = None) -> list[int]:
    """Next open images, kept for the person; those that cannot be shown are passed over.

    Raises RefusedError (503) if no image can be reached.
    """
    labeling, person, reading = call.labeling, call.someone, call.reading
    while True:
        with labeling.handing_out:
            images = open_images(reading, person.id, labeling.claims, count, without)
            labeling.claims.take(images, person.id)
        hidden = [row["id"] for row in sized(labeling, reading, images) if row["problem"]]
        if not hidden and (len(images) == count or not _look_again(labeling)):
            return images
        for image in hidden:
            labeling.claims.drop(image, person.id)


def sized(labeling: Labeling, connection: Connection, images: Iterable[int]) -> list[sqlite3.Row]:
    """Rows of images, whose sizes are read from the files if these are new or have changed.

    Raises RefusedError (503) if a file is missing and no image can be reached.
    """
    numbers, root = list(images), labeling.source.root
    rows = rows_of(connection, numbers)
    states = [(row["id"], files.file_state(row, root / row["path"])) for row in rows]
    changed = [
        (image, state)
        for row, (image, state) in zip(rows, states, strict=True)
        if state != tuple(row[name] for name in state._fields)
    ]
    if any(state.problem for _, state in changed) and not files.are_reachable(connection, root):
        raise RefusedError(503, UNREACHABLE)
    if not changed:
        return rows
    labeling.database.write(lambda writing: files.write_states(writing, changed))
    return rows_of(connection, numbers)


def path_of(labeling: Labeling, row: sqlite3.Row) -> Path:
    """File of an image; its path is from the manifest, never from a request."""
    return labeling.source.root / str(row["path"])


def note_problem(labeling: Labeling, row: sqlite3.Row, problem: files.PictureError) -> None:
    """Store why an image cannot be shown, although its header is sound."""
    try:
        version: str | None = files.version_of(path_of(labeling, row))
    except files.PictureError:
        version = None
    state = files.FileState(row["width"], row["height"], str(problem), version)
    labeling.database.write(lambda writing: files.write_states(writing, [(row["id"], state)]))


def rows_of(connection: Connection, images: list[int]) -> list[sqlite3.Row]:
    """Rows of images, in their order."""
    marks = ", ".join("?" * len(images))
    rows = connection.execute(f"SELECT * FROM images WHERE id IN ({marks})", images).fetchall()
    return sorted(rows, key=lambda row: images.index(row["id"]))


def _look_again(labeling: Labeling) -> bool:
    """Look again at images that cannot be shown, from time to time; whether it was done."""
    now = time.monotonic()
    if now < labeling.look_again_at:
        return False
    labeling.look_again_at = now + _LOOKING_AGAIN
    labeling.database.write(files.look_again)
    return True
