"""Answers whose marks are changed afterwards, on the page, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.label.pages import (
    SHOWN,
    Fit,
    Served,
    drag,
    opened,
    saved,
    served,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 80, 60
LINE = [Fit(WIDTH, HEIGHT).page(20, 20), Fit(WIDTH, HEIGHT).page(60, 30)]
NAMES = ["a.png", "b.png", "c.png"]
OTHER = "(name) => document.getElementById('name').textContent !== name"
WARNING = "The answer does not fit the marks any more"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    images = write_images(tmp_path / "images", dict.fromkeys(NAMES, (WIDTH, HEIGHT)))
    with served(images, tmp_path, labels=("real", "fake")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server) as found:
        yield found


def name(page: Page) -> str:
    return page.locator("#name").text_content() or ""


def leave(page: Page, key: str) -> None:
    """Press a key that leads to another image."""
    before = name(page)
    page.keyboard.press(key)
    page.wait_for_function(OTHER, arg=before)
    saved(page)


def states(server: Served) -> dict[str, str]:
    """Answers that count, by file name."""
    rows = server.ask("SELECT path, state FROM answers JOIN images ON images.id = image")
    return {Path(path).name: state for path, state in rows}


def told(page: Page) -> tuple[str, str]:
    """The answer and the progress as the page says them."""
    return page.locator("#answered").inner_text(), page.locator("#count").inner_text()


def test_an_image_whose_answer_does_not_fit_is_asked_for_again(page: Page, server: Served) -> None:
    first = name(page)
    page.keyboard.press("1")
    leave(page, "0")
    second = name(page)
    page.keyboard.press("2")
    leave(page, "0")
    leave(page, "ArrowLeft")
    assert told(page) == ("Nothing to mark", "2 of 3")
    drag(page, LINE)
    assert WARNING in toast(page)
    assert told(page) == ("Answer again", "1 of 3")
    leave(page, "ArrowLeft")
    assert name(page) == first
    assert states(server) == {first: "nothing"}
    # It comes again, with the label that was chosen.
    leave(page, "n")
    total = 3  # without the images that are skipped until it comes
    while name(page) != second:
        leave(page, "s")
        total -= 1
    page.reload()
    page.wait_for_selector(SHOWN)
    assert told(page) == ("Answer again", f"1 of {total}")
    leave(page, "n")
    assert states(server)[second] == "marked"
    assert page.locator("#count").inner_text() == f"2 of {total}"
    rows = server.ask("SELECT label FROM answers WHERE state = 'marked'")
    assert rows == [("fake",)]


def test_a_corrected_label_and_certainty_are_saved_at_once(page: Page, server: Served) -> None:
    def stored() -> list[object]:
        saved(page)
        return server.ask("SELECT state, label, certainty FROM answers")

    page.keyboard.press("2")
    page.keyboard.press("Shift+Digit3")
    leave(page, "0")
    leave(page, "ArrowLeft")
    seconds = server.ask("SELECT seconds FROM answers")[0][0]
    assert stored() == [("nothing", "fake", 3)]
    page.keyboard.press("1")
    assert stored() == [("nothing", "real", 3)]
    page.keyboard.press("Shift+Digit3")
    assert stored() == [("nothing", "real", None)]
    page.keyboard.press("1")  # a label that the answer needs is not taken back
    assert "needs a label" in toast(page)
    assert stored() == [("nothing", "real", None)]
    assert told(page) == ("Nothing to mark", "1 of 3")
    assert page.locator("[data-label][aria-pressed=true]").inner_text().startswith("real")
    assert page.locator("[data-certainty][aria-pressed=true]").count() == 0
    assert server.ask("SELECT seconds FROM answers")[0][0] >= seconds
    leave(page, "n")
    assert stored() == [("nothing", "real", None)]


def test_an_answer_counts_again_once_it_fits(page: Page, server: Served) -> None:
    first = name(page)
    drag(page, LINE)
    page.keyboard.press("1")
    leave(page, "n")
    leave(page, "ArrowLeft")
    page.keyboard.press("Control+z")
    assert told(page) == ("Answer again", "0 of 3")
    saved(page)
    assert states(server) == {}
    drag(page, LINE)
    assert told(page) == ("Marked", "1 of 3")
    saved(page)
    assert states(server) == {first: "marked"}
    leave(page, "s")  # skipped, it does not count
    assert page.locator("#count").inner_text() == "0 of 3"
