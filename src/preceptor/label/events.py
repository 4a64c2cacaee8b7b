"""Events: what was shown when, and what people did."""

from __future__ import annotations

import json
from typing import Any

from preceptor.label.clock import now
from preceptor.label.database import Connection


def note(
    connection: Connection,
    image: int,
    person: int,
    kind: str,
    detail: dict[str, Any] | None = None,
    at: str | None = None,
) -> int:
    """Store an event.

    Args:
        connection: Connection within a transaction.
        image, person: Numbers.
        kind: shown, hidden, undo, redo, answer, answer_withdrawn, proposal_shown or
            proposal_adopted.
        detail: What else is known.
        at: Time; None = now.

    Returns:
        Number of the event; later events have larger ones.
    """
    text = None if detail is None else json.dumps(detail, ensure_ascii=False)
    stored = connection.execute(
        "INSERT INTO events (image, person, at, kind, detail) VALUES (?, ?, ?, ?, ?)",
        (image, person, at or now(), kind, text),
    )
    assert stored.lastrowid is not None
    return stored.lastrowid


def newest_event(connection: Connection) -> int:
    """Number of the latest event; 0 if there is none."""
    found = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
    return int(found)


def note_proposal_shown(connection: Connection, image: int, person: int, proposal: int) -> None:
    """Store that a proposal was shown to a person, the first time."""
    detail = json.dumps({"proposal": proposal})
    known = connection.execute(
        "SELECT 1 FROM events WHERE image = ? AND person = ? AND kind = 'proposal_shown' "
        "AND detail = ?",
        (image, person, detail),
    ).fetchone()
    if known is None:
        note(connection, image, person, "proposal_shown", {"proposal": proposal})
