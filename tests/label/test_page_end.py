"""The end of the queue on the page, in a real browser: skipped images, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.label.pages import opened, saved, served, write_images

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OTHER = "(name) => document.getElementById('name').textContent !== name"


def images(folder: Path, count: int) -> Path:
    return write_images(folder / "images", {f"{n}.png": (80, 60) for n in range(count)})


def name(page: Page) -> str:
    return page.locator("#name").text_content() or ""


def leave(page: Page, key: str) -> str:
    """Press a key that leads to another image; the name of the image before."""
    before = name(page)
    page.keyboard.press(key)
    page.wait_for_function(OTHER, arg=before)
    saved(page)
    return before


def test_skipped_images_come_again_without_an_end_between_them(
    browser: Browser, tmp_path: Path
) -> None:
    with served(images(tmp_path, 5), tmp_path) as server, opened(browser, server) as page:
        a, b, c, d, e = [leave(page, "s") for _ in range(5)]
        page.get_by_role("button", name="Look at them again").click()
        page.wait_for_function(OTHER, arg="")
        shown = [leave(page, "0")]
        # With two images after the next one, the server is asked for more, and lists none.
        with page.expect_response(lambda one: one.url.endswith("/api/queue?count=4")):
            shown.append(leave(page, "0"))
        for key in ("0", "ArrowLeft", "n", "0", "0"):
            shown.append(leave(page, key))
        # The fourth was left for the image before it, and comes again.
        assert shown == [a, b, c, d, c, d, e]
        assert name(page) == ""
        page.get_by_text("There is nothing left to mark for you now").wait_for()
        assert server.ask("SELECT state, count(*) FROM answers GROUP BY 1") == [("nothing", 5)]


def test_previous_leads_back_from_the_end_after_a_reload(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 2), tmp_path) as server, opened(browser, server) as page:
        first, second = leave(page, "0"), leave(page, "s")
        page.reload()
        page.get_by_text("There are images that you have skipped.").wait_for()
        page.get_by_role("button", name="Previous image").click()
        page.wait_for_function(OTHER, arg="")
        assert name(page) == second
        assert leave(page, "ArrowLeft") == second
        assert name(page) == first
