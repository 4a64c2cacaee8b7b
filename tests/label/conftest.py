"""Images, databases, servers and a browser of the tests of `preceptor label`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    with running(manifest) as one:
        yield one


@pytest.fixture
def server(manifest: Path) -> Iterator[Running]:
    with running(manifest) as one:
        yield one
