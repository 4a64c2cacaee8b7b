"""People who mark images, their sessions and links, and the limit on wrong passwords.

A session is a cookie with a role, a person and a random number, signed with the key of the
database. It stays valid over a restart as long as the way in does: with the same password, and for
people who still have a link. Links contain keys that are derived from the same key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from preceptor.deploy.http import malformed
from preceptor.errors import InputError, is_control
from preceptor.label.db import Connection, now

LONGEST = 60
MOST = 1000


@dataclass(frozen=True)
class Person:
    """One person."""

    id: int  # number in the database
    name: str
    lead: bool  # whether this person sees the page of the lead


def check_name(name: object) -> str:
    """Name without blanks at its ends."""
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= LONGEST:
        raise malformed(f"a name has 1 to {LONGEST} characters")
    if any(map(is_control, name)):
        raise malformed("a name has no control characters")
    return name.strip()


def person_by_name(connection: Connection, name: str) -> Person | None:
    """Person of a name, in any case of its letters; of several, the one with these letters."""
    rows = connection.execute("SELECT * FROM people").fetchall()
    # SQLite knows the cases of ASCII letters alone.
    found = [row for row in rows if _folded(row["name"]) == _folded(name)]
    if not found:
        return None
    row = max(found, key=lambda one: (one["name"] == name, -one["id"]))
    return Person(row["id"], row["name"], bool(row["lead"]))


def _folded(name: str) -> str:
    """Name without cases; an accent may be a character of its own."""
    return unicodedata.normalize("NFC", name).casefold()


def person_by_id(connection: Connection, number: int) -> Person | None:
    """Person of a number."""
    row = connection.execute("SELECT * FROM people WHERE id = ?", (number,)).fetchone()
    return None if row is None else Person(row["id"], row["name"], bool(row["lead"]))


def add_person(connection: Connection, name: str, *, lead: bool = False) -> Person:
    """Person of a name, who is added if there is none."""
    name = check_name(name)
    found = person_by_name(connection, name)
    if found is not None:
        return found
    if connection.execute("SELECT count(*) FROM people").fetchone()[0] >= MOST:
        raise malformed(f"there are {MOST:,} people already")
    number = connection.execute(
        "INSERT INTO people (name, lead, created) VALUES (?, ?, ?)", (name, int(lead), now())
    ).lastrowid
    assert number is not None
    return Person(number, name, lead)


def has_link(connection: Connection, number: int) -> bool:
    """Whether a person has a link at present."""
    row = connection.execute("SELECT key_hash FROM people WHERE id = ?", (number,)).fetchone()
    return row is not None and row[0] is not None


def names(connection: Connection) -> list[str]:
    """Names of all people, sorted."""
    return [row[0] for row in connection.execute("SELECT name FROM people ORDER BY name")]


def key_hash(key: str) -> str:
    """Hash of the key of a person's link."""
    return hashlib.sha256(key.encode()).hexdigest()


Role = Literal["lead", "guest", "linked"]
"""lead: came by the link of the terminal; guest: by the password; linked: by a person's link."""

_COOKIE = re.compile(r"(lead|guest|linked)\.(\d{1,15})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """One session."""

    role: Role  # how it was opened
    person: int
    nonce: str  # random number

    def of(self, person: int) -> Session:
        """The same session of another person."""
        return replace(self, person=person)


class Keys:
    """Keys of sessions and links."""

    def __init__(self, secret: bytes, password: str = "") -> None:
        self._secret = secret
        self._password = password

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    @property
    def lead_token(self) -> str:
        """Token of the link in the terminal."""
        return self._sign("lead")[:43]

    @property
    def database_id(self) -> str:
        """Identifier of the database, by which browsers keep what is not saved."""
        return self._sign("database")[:32]

    def person_token(self, person: int, name: str) -> str:
        """Token of a person's link."""
        return f"{person}-{self._sign(f'person {person} {name}')[:43]}"

    def new_session(self, role: Role, person: int = 0) -> Session:
        """New session."""
        return Session(role, person, secrets.token_hex(16))

    def cookie(self, session: Session) -> str:
        """Value of the cookie of a session."""
        text = f"{session.role}.{session.person}.{session.nonce}"
        return f"{text}.{self._signature(session.role, text)}"

    def _signature(self, role: str, text: str) -> str:
        way = f" {self._password}" if role == "guest" else ""
        return self._sign(f"session {text}{way}")

    def session(self, cookie: str) -> Session | None:
        """Session of a cookie; None if it is not one of ours."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        role, person, nonce, signature = found.groups()
        if not same(signature, self._signature(role, f"{role}.{person}.{nonce}")):
            return None
        return Session(role, int(person), nonce)  # type: ignore[arg-type]

    def csrf(self, session: Session) -> str:
        """Token that every change must send in a header."""
        return self._sign(f"csrf {session.role}.{session.person}.{session.nonce}")


def read_password(file: Path) -> str:
    """Password of a file with one line."""
    try:
        # Editors of Windows begin a file in UTF-8 with a mark, which nobody can type.
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"--password-file {file}: not a text in UTF-8") from error
    if len(text) < 8 or "\n" in text:
        raise InputError(f"--password-file {file}: one line of 8 or more characters is needed")
    return text


def same(a: str, b: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(a.encode(errors="surrogatepass"), b.encode(errors="surrogatepass"))


WITHIN = 60.0
"""Seconds for which a wrong password counts."""
OF_ADDRESS, OF_ALL = 10, 1000
"""Wrong passwords that are possible within this time from one address, and from all of them."""


class PasswordTries:
    """Wrong passwords of the last minute, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def are_left(self, address: str) -> bool:
        """Whether a password from an address is looked at now."""
        with self._lock:
            while self._wrong and self._wrong[0][0] <= self._clock() - WITHIN:
                _, old = self._wrong.popleft()
                self._counts[old] -= 1
                if not self._counts[old]:
                    del self._counts[old]
            return len(self._wrong) < OF_ALL and self._counts[address] < OF_ADDRESS

    def add_wrong(self, address: str) -> None:
        """Record a wrong password."""
        with self._lock:
            self._wrong.append((self._clock(), address))
            self._counts[address] += 1
