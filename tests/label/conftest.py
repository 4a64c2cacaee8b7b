"""Images, databases, servers and a browser of the tests of `preceptor label`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from preceptor.data.images import decode_map
from preceptor.label.app import prepare
from preceptor.label.calls import add_person
from preceptor.label.db import connect
from preceptor.label.marks import Answer, Stroke, bounding_runs, save_answer, save_stroke
from preceptor.label.sources import find_source
from tests.browsers import start_browser
from tests.datasets import squares
from tests.label.serving import Running, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve images of 40 × 30 pixels, with the labels plain and marked."""
    return squares(tmp_path / "data", splits={"train": 8, "val": 4}, size=(40, 30))


@pytest.fixture
def database(manifest: Path) -> Path:
    """Database beside the manifest."""
    return manifest.with_name("manifest.label.sqlite")


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Server for all tests of a file that leave nothing behind but people."""
    folder = tmp_path_factory.mktemp("lasting")
    manifest = squares(folder / "data", splits={"train": 8, "val": 4}, size=(40, 30))
    with running(manifest, cache=folder / "cache") as one:
        yield one


@pytest.fixture
def server(manifest: Path) -> Iterator[Running]:
    with running(manifest) as one:
        yield one


@pytest.fixture(scope="module")
def marked_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database of 44 images of 96 × 64 pixels; 24 training images are marked as their maps say."""
    folder = tmp_path_factory.mktemp("marked")
    manifest = squares(folder / "data", splits={"train": 40, "val": 4}, size=(96, 64))
    source = find_source(manifest)
    prepare(source.database, source, {})
    saliency = pd.read_csv(manifest, keep_default_na=False).set_index("path")["saliency"]
    with closing(connect(source.database)) as connection:
        connection.execute("BEGIN")
        person = add_person(connection, "ann").id
        images = connection.execute(
            "SELECT id, path FROM images WHERE split = 'train' ORDER BY position LIMIT 24"
        )
        for image, path in images.fetchall():
            connection.execute("UPDATE images SET width = 96, height = 64 WHERE id = ?", (image,))
            file = saliency[path]
            box = bounding_runs(decode_map(manifest.parent / file) >= 0.5) if file else None
            if box is not None:
                stroke = Stroke(str(uuid.uuid4()), "brush", "evidence", False, *box, "", 1.0)
                save_stroke(connection, image, person, stroke)
            state = "nothing" if box is None else "marked"
            save_answer(connection, image, person, Answer(state, None, None, 1.0, None, "never"))
        connection.execute("COMMIT")
    return source.database
