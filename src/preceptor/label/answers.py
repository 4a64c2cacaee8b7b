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
    """

    state: str
    label: str | None
    certainty: int | None
    seconds: float
    proposal: int | None
    proposals_mode: str


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
    detail = {"state": answer.state, "label": answer.label, "certainty": answer.certainty}
    event = note(connection, image, person, "answer", detail)
    connection.execute(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        ),
    )
    change = before - (answer.state != "skipped")
    if change:
        connection.execute(
            "UPDATE images SET places = places + ? WHERE id = ? AND honeypot = 0", (change, image)
        )


def answer_of(connection: Connection, image: int, person: int) -> dict[str, Any] | None:
    """Answer of a person as JSON."""
    row = connection.execute(
        "SELECT state, label, certainty, at, seconds, proposal FROM answers "
        "WHERE image = ? AND person = ?",
        (image, person),
    ).fetchone()
    return None if row is None else dict(row)
