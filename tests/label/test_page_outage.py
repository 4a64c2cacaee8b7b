"""A full disk and a server that is gone: the page keeps what is drawn until it can be saved."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    SHOWN,
    Fit,
    Mask,
    ServedApart,
    another_tab,
    brush_size,
    brushed,
    canvas,
    drag,
    opened,
    saved,
    served_apart,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

WIDTH, HEIGHT = 200, 160
FIT = Fit(WIDTH, HEIGHT)
LINES = [[FIT.page(40, y), FIT.page(160, y + 15)] for y in (30, 60, 90, 120)]
EXPECTED = "Failed to load resource"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServedApart]:
    sizes = {f"image-{n}.png": (WIDTH, HEIGHT) for n in range(8)}
    with served_apart(write_images(tmp_path / "images", sizes), tmp_path) as one:
        yield one


def line(page: Page, at: int) -> Mask:
    radius = brush_size(page) / 2
    return brushed(WIDTH, HEIGHT, [FIT.image(*one) for one in LINES[at]], [radius] * 2)


def waits(page: Page, count: int) -> None:
    """Wait until the page says how many changes are not saved."""
    words = "1 change" if count == 1 else f"{count} changes"
    page.get_by_text(f"{words} not saved").wait_for()


def test_strokes_wait_for_a_server_that_is_gone(browser: Browser, server: ServedApart) -> None:
    with opened(browser, server, may_say=EXPECTED) as page:
        image = page.locator("#name").inner_text()
        drag(page, LINES[0])
        saved(page)
        server.kill()
        drag(page, LINES[1])
        page.get_by_text("Not saved: the server is not reached.").wait_for()
        page.keyboard.press("e")
        drag(page, LINES[0])
        page.keyboard.press("Control+z")
        page.keyboard.press("b")
        drag(page, LINES[2])
        waits(page, 4)
        picture = canvas(page)
        server.start()
        saved(page)
        assert page.locator("#trouble").is_hidden()
        expected = line(page, 0) | line(page, 1) | line(page, 2)
        np.testing.assert_array_equal(server.mask(image), expected)
        rows = server.ask("SELECT number, tool, undone > 0, started FROM strokes ORDER BY number")
        assert [row[:3] for row in rows] == [
            (1, "brush", 0),
            (2, "brush", 0),
            (3, "eraser", 1),
            (4, "brush", 0),
        ]
        assert [row[3] for row in rows] == sorted(row[3] for row in rows)
        assert canvas(page) == picture


def test_strokes_outlive_the_tab_that_drew_them(browser: Browser, server: ServedApart) -> None:
    with opened(browser, server, may_say=EXPECTED) as page:
        image = page.locator("#name").inner_text()
        server.kill()
        drag(page, LINES[0])
        drag(page, LINES[1])
        waits(page, 2)
        page.keyboard.press("Control+z")
        waits(page, 3)
        page.mouse.move(1200, 500)
        picture = canvas(page)
        # The page warns before it is closed; this one is closed without a question.
        page.on("dialog", lambda one: one.accept())
        page.close(run_before_unload=False)
        server.start()
        again = another_tab(page.context, server, "Ada", image, EXPECTED)
        saved(again)
        assert again.locator("#name").inner_text() == image
        np.testing.assert_array_equal(server.mask(image), line(again, 0))
        assert server.ask("SELECT number, undone > 0 FROM strokes ORDER BY number") == [
            (1, 0),
            (2, 1),
        ]
        again.mouse.move(1200, 500)
        assert canvas(again) == picture
        again.keyboard.press("Control+y")
        saved(again)
        np.testing.assert_array_equal(server.mask(image), line(again, 0) | line(again, 1))


def test_strokes_wait_while_the_disk_is_full(browser: Browser, server: ServedApart) -> None:
    with opened(browser, server, may_say=EXPECTED) as page:
        image = page.locator("#name").inner_text()
        drag(page, LINES[0])
        saved(page)
        # The system refuses each byte beyond a limit, as a full disk does.
        assert server.process is not None
        before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
        drag(page, LINES[1])
        page.get_by_text("Not saved: the disk is full").wait_for()
        page.keyboard.press("s")
        page.wait_for_function(
            "(name) => document.getElementById('name').textContent !== name", arg=image
        )
        second = page.locator("#name").inner_text()
        drag(page, LINES[2])
        assert server.ask("SELECT count(*) FROM strokes") == [(1,)]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
        page.evaluate(  # unless the page itself has tried again by now
            "[...document.querySelectorAll('button')]"
            ".find((one) => one.textContent === 'Try again')?.click()"
        )
        saved(page)
        np.testing.assert_array_equal(server.mask(image), line(page, 0) | line(page, 1))
        np.testing.assert_array_equal(server.mask(second), line(page, 2))
        assert server.ask("SELECT state FROM answers") == [("skipped",)]


def test_an_image_that_was_not_loaded_in_time_is_not_damaged(
    browser: Browser, server: ServedApart
) -> None:
    with opened(browser, server, image=None, may_say=EXPECTED) as page:
        asked: list[str] = []
        ends = False  # not by unroute, which may meet a request that is being answered

        def fail_after_the_first(route: Route) -> None:
            asked.append(route.request.url)
            if ends or asked[0] == asked[-1]:
                route.continue_()
            else:
                route.abort()

        page.route("**/whole*", fail_after_the_first)
        page.goto(server.place())
        page.wait_for_selector(SHOWN)
        first = page.locator("#name").inner_text()
        for _ in range(3000):  # with the images that are loaded ahead
            if len(set(asked)) >= 4:
                break
            page.wait_for_timeout(20)
        assert len(set(asked)) >= 4
        page.keyboard.press("s")
        page.get_by_text("the server is not reached").wait_for()
        ends = True
        page.get_by_role("button", name="Try again").click()
        page.locator("#card").wait_for(state="hidden")
        second = page.locator("#name").inner_text()
        assert second != first
        drag(page, LINES[0])
        page.keyboard.press("n")
        page.wait_for_function(
            "(name) => document.getElementById('name').textContent !== name", arg=second
        )
        assert page.locator("#card").is_hidden()
        saved(page)
        assert server.ask("SELECT count(*) FROM answers") == [(2,)]
