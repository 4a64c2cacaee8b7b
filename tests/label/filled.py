"""A database with images and people, without a server."""

from __future__ import annotations

from preceptor.label.database import Connection


def fill(connection: Connection) -> None:
    """Add five images and two people, ann and bo."""
    for number in range(1, 6):
        connection.execute(
            "INSERT INTO images (id, path, position) VALUES (?, ?, ?)",
            (number, f"{number}.png", number),
        )
    for number, name in enumerate(("ann", "bo"), 1):
        connection.execute(
            "INSERT INTO people (id, name, created) VALUES (?, ?, '')", (number, name)
        )
