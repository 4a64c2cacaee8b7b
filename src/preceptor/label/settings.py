"""Settings of a database of marks."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from preceptor.label.database import Connection

Order = Literal["random", "source"]
ProposalsMode = Literal["first", "after", "never"]


@dataclass(frozen=True)
class LabelSettings:
    """Settings that every start may change; they are kept in the database.

    Args:
        classes: Classes of marks.
        splits: Splits whose images are to be marked; empty = all.
        labels: Labels of images that may be answered; empty = labels are not asked for.
        order: Order of the queue.
        seed: Random seed of the order and of the overlap.
        overlap: Number of people who mark the images of the overlap.
        overlap_share: Share of the images in the overlap.
        proposals: When a Teacher's proposal is shown.
        proposals_on_evaluation: Whether also on images of val and test splits.
        least_overlap: Overlap with people's marks from which a Teacher's proposals are shown; those
            of a Teacher whose overlap is not known are shown, too.
    """

    classes: tuple[str, ...] = ("evidence",)
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    order: Order = "random"
    seed: int = 0
    overlap: int = 1
    overlap_share: float = 0.0
    proposals: ProposalsMode = "after"
    proposals_on_evaluation: bool = False
    least_overlap: float = 0.6  # below, a proposal costs more time than it saves


def get(connection: Connection, key: str, default: Any = None) -> Any:
    """Value of a setting."""
    row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row[0])


def put(connection: Connection, key: str, value: Any) -> None:
    """Store a setting."""
    connection.execute(
        "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, json.dumps(value, ensure_ascii=False)),
    )


def read_settings(connection: Connection) -> LabelSettings:
    """Settings of a database; defaults where nothing was stored."""
    found: dict[str, Any] = {}
    for field in fields(LabelSettings):
        value = get(connection, field.name)
        if value is not None:
            found[field.name] = tuple(value) if isinstance(value, list) else value
    return LabelSettings(**found)


def write_settings(connection: Connection, settings: LabelSettings) -> None:
    """Store all settings."""
    for key, value in asdict(settings).items():
        put(connection, key, value)


def secret(connection: Connection) -> bytes:
    """Key of the sessions and links; made once."""
    found = get(connection, "secret")
    if found is None:
        found = secrets.token_hex(32)
        put(connection, "secret", found)
    return bytes.fromhex(found)
