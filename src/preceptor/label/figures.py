"""Figures of a database: progress, times, agreement, damaged images; as JSON and in the terminal.

An image counts for a pair of people if both have judged it. Dice and IoU count pixels by class: one
that two people marked as different classes is in the marks of both and in common to none. They are
undefined where both marked nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, groupby
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from rich.console import Console

from preceptor.errors import listed
from preceptor.label.db import Connection
from preceptor.label.images import answered_with_other_file, changed_states
from preceptor.label.marks import EMPTY, Patch, marks_without_answer, masks_of
from preceptor.utils.text import print_table

_PROBLEMS = 500

_State = tuple[Any, ...]


@dataclass
class Remembered:
    """Comparisons that were made before, by what they depend on."""

    pairs: dict[tuple[int, int, int], tuple[_State, tuple[float, float]]] = field(
        default_factory=dict
    )


def figures(connection: Connection, remembered: Remembered) -> dict[str, Any]:
    """All figures as JSON."""
    images, done = connection.execute(
        "SELECT count(*), coalesce(sum(places <= 0), 0) FROM images WHERE listed = 1 AND asked = 1"
    ).fetchone()
    names = dict(connection.execute("SELECT id, name FROM people ORDER BY name").fetchall())
    return {
        "images": images,
        "done": done,
        "people": [_person(connection, *one) for one in names.items()],
        "sources": _sources(connection),
        "pairs": _pairs(connection, names, remembered),
        "problems": [
            {"id": row["id"], "name": PurePath(row["path"]).name, "problem": row["problem"]}
            for row in connection.execute(
                "SELECT id, path, problem FROM images WHERE problem IS NOT NULL LIMIT ?",
                (_PROBLEMS,),
            )
        ],
    }


def _person(connection: Connection, number: int, name: str) -> dict[str, Any]:
    rows = connection.execute(
        "SELECT state, seconds, at FROM answers WHERE person = ? ORDER BY event", (number,)
    ).fetchall()
    states = {
        state: sum(row["state"] == state for row in rows)
        for state in ("marked", "nothing", "cannot_judge", "skipped")
    }
    times = [row["seconds"] for row in rows if row["state"] in ("marked", "nothing")]
    return {
        "name": name,
        **states,
        "done": len(rows) - states["skipped"],
        "minutes": _minutes(times),
        "last": rows[-1]["at"] if rows else None,
    }


def _sources(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT source, count(*) AS images, sum(places <= 0) AS done FROM images "
        "WHERE listed = 1 AND asked = 1 GROUP BY source ORDER BY source"
    ).fetchall()
    times: dict[str, list[float]] = {}
    for source, seconds in connection.execute(
        "SELECT source, seconds FROM answers JOIN images ON images.id = answers.image "
        "WHERE state IN ('marked', 'nothing')"
    ):
        times.setdefault(source, []).append(seconds)
    return [
        {
            "source": row["source"],
            "images": row["images"],
            "done": row["done"],
            "minutes": _minutes(times.get(row["source"], [])),
        }
        for row in rows
    ]


def _minutes(seconds: Iterable[float]) -> float | None:
    """Median in minutes; None of nothing."""
    values = list(seconds)
    return round(statistics.median(values) / 60, 3) if values else None


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _states(connection: Connection, where: str) -> dict[int, list[tuple[int, _State]]]:
    """People who have judged an image, and what their masks depend on, by image."""
    rows = connection.execute(
        "SELECT answers.image, answers.person, answers.state, count(strokes.id), "
        "max(strokes.id), coalesce(sum(strokes.undone > 0), 0), "
        "coalesce(sum(strokes.undone * strokes.number), 0) "
        "FROM answers LEFT JOIN strokes ON strokes.image = answers.image "
        "AND strokes.person = answers.person WHERE answers.state IN ('marked', 'nothing') "
        f"AND answers.image IN ({where}) GROUP BY answers.image, answers.person"
    )
    return {
        image: [(row[1], tuple(row[2:])) for row in group]
        for image, group in groupby(rows, key=lambda row: row[0])
    }


def _pairs(
    connection: Connection, names: dict[int, str], remembered: Remembered
) -> list[dict[str, Any]]:
    judged = _states(
        connection,
        "SELECT image FROM answers WHERE state IN ('marked', 'nothing') "
        "GROUP BY image HAVING count(*) > 1",
    )
    values: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for image, people in judged.items():
        masks: dict[int, dict[str, Patch]] = {}
        for (a, of_a), (b, of_b) in combinations(sorted(people), 2):
            old = remembered.pairs.get((image, a, b))
            if old is None or old[0] != (of_a, of_b):
                for one in (a, b):
                    if one not in masks:
                        masks[one] = masks_of(connection, image, one)
                old = ((of_a, of_b), _agreement(masks[a], masks[b]))
                remembered.pairs[image, a, b] = old
            values.setdefault((a, b), []).append(old[1])
    found = []
    for (a, b), scores in values.items():
        dice = [one for one, _ in scores if math.isfinite(one)]
        iou = [one for _, one in scores if math.isfinite(one)]
        found.append(
            {
                "a": names[a],
                "b": names[b],
                "images": len(scores),
                "empty": len(scores) - len(dice),
                "dice": _number(sum(dice) / len(dice) if dice else math.nan),
                "iou": _number(sum(iou) / len(iou) if iou else math.nan),
            }
        )
    return sorted(found, key=lambda one: (one["a"], one["b"]))


def _agreement(a: dict[str, Patch], b: dict[str, Patch]) -> tuple[float, float]:
    """Dice and IoU of masks by class."""
    both = in_a = in_b = 0
    for name in a.keys() | b.keys():
        counts = _overlap_of(a.get(name, EMPTY), b.get(name, EMPTY))
        both, in_a, in_b = both + counts[0], in_a + counts[1], in_b + counts[2]
    if not in_a + in_b:
        return math.nan, math.nan
    return 2 * both / (in_a + in_b), both / (in_a + in_b - both)


def _overlap_of(a: Patch, b: Patch) -> tuple[int, int, int]:
    """Numbers of pixels of two masks: in both, in a, in b."""
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.x + a.bits.shape[1], b.x + b.bits.shape[1])
    y1 = min(a.y + a.bits.shape[0], b.y + b.bits.shape[0])
    both = 0
    if x0 < x1 and y0 < y1:
        ours = a.bits[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
        both = int(np.count_nonzero(ours & b.bits[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]))
    return both, int(np.count_nonzero(a.bits)), int(np.count_nonzero(b.bits))


def print_status(connection: Connection, root: Path, console: Console) -> None:
    """Print the figures of a database."""
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
