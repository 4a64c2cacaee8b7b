"""Answers: what a person says of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preceptor.label.clock import now
from preceptor.label.database import Connection
from preceptor.label.events import note
from preceptor.label.strokes import has_marks
from preceptor.web.refusal import conflict

STATES = ("marked", "nothing", "cannot_judge", "skipped")
JUDGED = ("marked", "nothing")
"""States that say what is marked."""
_OWN = "WHERE image = :image AND person = :person"


@dataclass(frozen=True)
class Answer:
    """One answer.

    Args:
        state: One of `STATES`.
        label: Label of the image, or None.
        certainty: 1 to 3, or None.
        seconds: Time for the image.
        proposal: Number of the proposal that was shown, or None.
        proposals_mode: When proposals were shown.
        version: Version of the file that it is about, or None.
    """

    state: str
    label: str | None
    certainty: int | None
    seconds: float
    proposal: int | None
    proposals_mode: str
    version: str | None = None


def save_answer(connection: Connection, image: int, person: int, answer: Answer) -> None:
    """Store an answer in place of an earlier one, within a transaction.

    Raises:
        RefusedError: It contradicts the marks (409).
    """
    if answer.state in JUDGED:
        marks = has_marks(connection, image, person)
        if answer.state == "marked" and not marks:
            raise conflict("nothing is marked; mark something, or answer: nothing to mark")
        if answer.state == "nothing" and marks:
            raise conflict("something is marked; erase it or undo it, or answer: marked")
    old = connection.execute(
        "SELECT state FROM answers WHERE image = ? AND person = ?", (image, person)
    ).fetchone()
    before = old is not None and old["state"] != "skipped"
    connection.execute("DELETE FROM answers_aside WHERE image = ? AND person = ?", (image, person))
    detail = {"state": answer.state, "label": answer.label, "certainty": answer.certainty}
    event = note(connection, image, person, "answer", detail)
    connection.execute(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            image,
            person,
            answer.state,
            answer.label,
            answer.certainty,
            now(),
            answer.seconds,
            answer.proposal,
            answer.proposals_mode,
            event,
            answer.version,
        ),
    )
    _add_places(connection, image, before - (answer.state != "skipped"))


def has_work(connection: Connection, image: int) -> bool:
    """Whether people have marked an image, or found nothing to mark on it."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM strokes WHERE image = :image AND undone = 0) OR EXISTS "
        "(SELECT 1 FROM answers WHERE image = :image AND state IN ('marked', 'nothing'))",
        {"image": image},
    ).fetchone()
    return bool(row[0])


def marks_without_answer(connection: Connection) -> dict[int, list[str]]:
    """Names of the people whose marks have no answer that says what is marked, by image."""
    rows = connection.execute(
        "SELECT DISTINCT strokes.image, strokes.person, name FROM strokes "
        "JOIN people ON people.id = strokes.person LEFT JOIN answers "
        "ON answers.image = strokes.image AND answers.person = strokes.person "
        "WHERE undone = 0 AND erase = 0 AND (state IS NULL OR state NOT IN ('marked', 'nothing'))"
    )
    found: dict[int, list[str]] = {}
    for image, person, name in rows.fetchall():
        if has_marks(connection, image, person):
            found.setdefault(image, []).append(name)
    return found


def withdraw_others(connection: Connection, image: int) -> None:
    """Withdraw what people answered to an image without work, within a transaction.

    Its file is another image now: it is open again, strokes that were undone cannot be redone, and
    answers that do not count cannot come back. Events keep the answers.
    """
    connection.execute("UPDATE strokes SET undone = 2 WHERE image = ? AND undone = 1", (image,))
    connection.execute("DELETE FROM answers_aside WHERE image = ?", (image,))
    rows = connection.execute("SELECT person, state FROM answers WHERE image = ?", (image,))
    for person, state in rows.fetchall():
        note(connection, image, person, "answer_withdrawn", {"state": state})
        connection.execute("DELETE FROM answers WHERE image = ? AND person = ?", (image, person))
        _add_places(connection, image, int(state != "skipped"))


def _add_places(connection: Connection, image: int, change: int) -> None:
    if change:
        connection.execute(
            "UPDATE images SET places = places + ? WHERE id = ? AND asked = 1",
            (change, image),
        )


def settle_answer(connection: Connection, image: int, person: int) -> bool:
    """Set an answer aside that does not fit the marks any more, or bring it back once it does.

    Call it after each change of marks, within its transaction. While an answer is aside, the image
    is open for the person.

    Returns:
        Whether the answer is aside now.
    """
    key = {"image": image, "person": person}
    row = connection.execute(
        f"SELECT state, 1 AS counts FROM answers {_OWN} "
        f"UNION ALL SELECT state, 0 FROM answers_aside {_OWN}",
        key,
    ).fetchone()
    if row is None or row["state"] not in JUDGED:
        return False
    fits = has_marks(connection, image, person) == (row["state"] == "marked")
    if fits != bool(row["counts"]):
        old, new = ("answers_aside", "answers") if fits else ("answers", "answers_aside")
        connection.execute(f"INSERT INTO {new} SELECT * FROM {old} {_OWN}", key)
        connection.execute(f"DELETE FROM {old} {_OWN}", key)
        _add_places(connection, image, -1 if fits else 1)
    return not fits


def answer_of(connection: Connection, image: int, person: int) -> dict[str, Any] | None:
    """Answer of a person as JSON, also if it is aside: the page finds out whether it fits."""
    row = connection.execute(
        f"SELECT * FROM answers {_OWN} UNION ALL SELECT * FROM answers_aside {_OWN}",
        {"image": image, "person": person},
    ).fetchone()
    names = ("state", "label", "certainty", "at", "seconds", "proposal")
    return None if row is None else {name: row[name] for name in names}
