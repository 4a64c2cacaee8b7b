"""People who mark images."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from preceptor.errors import is_control
from preceptor.label.clock import now
from preceptor.label.database import Connection
from preceptor.web.refusal import malformed

LONGEST = 60
MOST = 1000


@dataclass(frozen=True)
class Person:
    """One person.

    Args:
        id: Number in the database.
        name: Name.
        lead: Whether this person sees the page of the lead.
    """

    id: int
    name: str
    lead: bool


def check_name(name: object) -> str:
    """Name without blanks at its ends.

    Raises:
        RefusedError: It is no name.
    """
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
    """Person of a name, who is added if there is none.

    Raises:
        RefusedError: The name is malformed, or there are too many people.
    """
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
