"""Databases with images, people and marks, without a server."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import pandas as pd

from preceptor.data.images import decode_map
from preceptor.label.app import prepare
from preceptor.label.db import Connection, connect
from preceptor.label.marks import Answer, Stroke, bounding_runs, save_answer, save_stroke
from preceptor.label.people import add_person
from preceptor.label.sources import find_source


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


def mark_known(manifest: Path, count: int) -> Path:
    """Database beside a manifest whose first training images are marked as its maps say."""
    source = find_source(manifest)
    prepare(source.database, source, {})
    table = pd.read_csv(manifest, keep_default_na=False).set_index("path")
    with closing(connect(source.database)) as connection:
        connection.execute("BEGIN")
        person = add_person(connection, "ann").id
        images = connection.execute(
            "SELECT id, path FROM images WHERE split = 'train' ORDER BY position LIMIT ?", (count,)
        )
        for image, path in images.fetchall():
            connection.execute("UPDATE images SET width = 96, height = 64 WHERE id = ?", (image,))
            saliency = str(table.loc[path, "saliency"])
            box = bounding_runs(decode_map(manifest.parent / saliency) >= 0.5) if saliency else None
            if box is not None:
                stroke = Stroke(str(uuid.uuid4()), "brush", "evidence", False, *box, "", 1.0)
                save_stroke(connection, image, person, stroke)
            state = "nothing" if box is None else "marked"
            save_answer(connection, image, person, Answer(state, None, None, 1.0, None, "never"))
        connection.execute("COMMIT")
    return source.database
