"""Manifests and folders that change while a server runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from preceptor.label import source_watch
from preceptor.label.sources import SourceWatch, find_source
from tests.datasets import squares
from tests.label.pages import opened, served
from tests.label.serving import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons follow each other without a pause."""
    monkeypatch.setattr(source_watch, "INTERVAL", 0.0)


def later(path: Path) -> None:
    """Change the time of a file or folder, as clocks of file systems may be coarse."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def add_row(manifest: Path) -> None:
    last = manifest.read_text().splitlines()[-1]
    with manifest.open("a") as file:
        file.write(f"{last.replace('.png', '-new.png')}\n")


def test_a_manifest_has_changed_if_its_contents_have(manifest: Path) -> None:
    watch = SourceWatch(find_source(manifest))
    assert not watch.has_changed
    later(manifest)
    assert not watch.has_changed
    before = manifest.read_bytes()
    add_row(manifest)
    assert watch.has_changed
    assert watch.has_changed
    manifest.write_bytes(before)
    assert not watch.has_changed


def test_between_two_comparisons_there_is_some_time(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_watch, "INTERVAL", 1e9)
    watch = SourceWatch(find_source(manifest))
    assert not watch.has_changed
    add_row(manifest)
    assert not watch.has_changed


def test_a_manifest_that_is_gone_has_not_changed(manifest: Path) -> None:
    watch = SourceWatch(find_source(manifest))
    manifest.unlink()
    assert not watch.has_changed


def test_a_folder_has_changed_if_an_image_was_added(manifest: Path) -> None:
    folder = next(path for path in manifest.parent.rglob("*.png")).parent
    watch = SourceWatch(find_source(folder))
    (folder / "notes.txt").write_text("no image")
    later(folder)
    assert not watch.has_changed
    image = next(folder.glob("*.png"))
    shutil.copy(image, folder / "new.png")
    later(folder)
    assert watch.has_changed


def test_the_queue_tells_that_the_manifest_has_changed(server: Running) -> None:
    ann = server.client("ann")
    assert ann.get("/api/queue").json["source_changed"] is False
    add_row(server.labeling.source.place)
    assert ann.get("/api/queue").json["source_changed"] is True


def test_the_page_tells_that_the_manifest_has_changed(browser: Browser, tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data", splits={"train": 8, "val": 4}, size=(40, 30))
    with served(manifest, tmp_path) as server, opened(browser, server) as page:
        told = page.get_by_text("manifest.csv has changed.", exact=False)
        assert page.locator("#trouble").is_hidden()
        add_row(manifest)
        image = page.locator("body").get_attribute("data-image")
        for _ in range(5):  # four images were handed out before
            page.keyboard.press("0")
            page.wait_for_function("(old) => document.body.dataset.image !== old", arg=image)
            image = page.locator("body").get_attribute("data-image")
        told.wait_for()
        page.get_by_role("button", name="Hide").click()
        told.wait_for(state="hidden")
        page.keyboard.press("0")
        page.wait_for_function("(old) => document.body.dataset.image !== old", arg=image)
        assert not told.is_visible()
