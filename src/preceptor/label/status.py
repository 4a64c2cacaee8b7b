"""State of a database of marks as a table in the terminal."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from rich.console import Console

from preceptor.errors import listed
from preceptor.label.answers import marks_without_answer
from preceptor.label.database import Connection
from preceptor.label.figures import Remembered, figures
from preceptor.label.image_files import answered_with_other_file, changed_states
from preceptor.runtime.printed_table import print_table


def print_status(connection: Connection, root: Path, console: Console) -> None:
    """Print the figures of a database.

    Args:
        connection: Connection.
        root: Folder that the paths of its images start from.
        console: Console.
    """
    found = figures(connection, Remembered())
    strokes = connection.execute("SELECT count(*) FROM strokes WHERE undone = 0").fetchone()[0]
    console.print(
        f"{found['done']:,} of {found['images']:,} images done, {strokes:,} strokes",
        highlight=False,
    )
    columns = {
        "person": "name",
        "marked": "marked",
        "nothing": "nothing",
        "cannot judge": "cannot_judge",
        "skipped": "skipped",
        "min an image": "minutes",
    }
    _print(console, columns, found["people"])
    if any(one["source"] for one in found["sources"]):
        columns = {
            "source": "source",
            "images": "images",
            "done": "done",
            "min an image": "minutes",
        }
        _print(console, columns, found["sources"])
    columns = {"": "a", " ": "b", "images": "images", "both empty": "empty", "Dice": "dice"}
    _print(console, columns | {"IoU": "iou"}, found["pairs"])
    for count, what in (
        (len(marks_without_answer(connection)), "marks without an answer that counts"),
        (
            sum(1 for _ in answered_with_other_file(connection, root)),
            "another file than the one that was answered",
        ),
    ):
        if count:
            verb = "image has" if count == 1 else "images have"
            console.print(f"{count:,} {verb} {what}", highlight=False)
    problems = _problems(connection, root)
    if problems:
        count = len(problems)
        told = [f"{count:,} image{'s' if count > 1 else ''} cannot be shown", *listed(problems)]
        console.print("\n".join(told), markup=False, highlight=False, soft_wrap=True)


def _problems(connection: Connection, root: Path) -> list[str]:
    """Images that cannot be shown now: the name of each, and why."""
    now = {row["id"]: (row, state.problem) for row, state in changed_states(connection, root)}
    stored = connection.execute("SELECT * FROM images WHERE problem IS NOT NULL")
    found = {row["id"]: (row, row["problem"]) for row in stored} | now
    return [
        f"{PurePath(row['path']).name}: {problem}"
        for _, (row, problem) in sorted(found.items())
        if problem is not None
    ]


def _print(console: Console, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    lines = [[_shown(row[key]) for key in columns.values()] for row in rows]
    texts = {
        title for title, key in columns.items() if any(isinstance(row[key], str) for row in rows)
    }
    print_table(list(columns), lines, console, right=columns.keys() - texts)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
