"""Seconds per image, with a clock of the page that a test sets, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from preceptor.label import queue
from tests.label.pages import SHOWN, Served, opened, saved, served, write_images

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BEGIN, NOON = "2026-01-02T11:00:00Z", "2026-01-02T12:00:00Z"
CHANGED = "(name) => document.getElementById('name').textContent !== name"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    images = write_images(tmp_path / "images", dict.fromkeys(["a.png", "b.png"], (80, 60)))
    with served(images, tmp_path) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The second image, which is shown at noon; the clock stands."""
    with opened(browser, server, image=None) as found:
        found.clock.install(time=BEGIN)
        found.goto(server.place())
        found.wait_for_selector(SHOWN)
        found.clock.pause_at(NOON)
        answer(found, "s")
        yield found


def answer(page: Page, key: str) -> None:
    """Press the key of an answer, and wait until it is saved."""
    before = page.locator("#name").text_content()
    page.keyboard.press(key)
    page.wait_for_function(CHANGED, arg=before)
    saved(page)


def wait(page: Page, seconds: int) -> None:
    page.clock.fast_forward(seconds * 1000)


def seen(server: Served) -> list[tuple[str, str]]:
    """Intervals in which the image that is answered was looked at, from minute to second."""
    rows = server.ask(
        "SELECT kind, substr(events.at, 12, 12) FROM events JOIN answers USING (image, person) "
        "WHERE state != 'skipped' AND kind IN ('shown', 'hidden') ORDER BY events.id"
    )
    assert [kind for kind, _ in rows] == ["shown", "hidden"] * (len(rows) // 2)
    times = [time for _, time in rows]
    return list(zip(times[::2], times[1::2], strict=True))


def seconds(server: Served) -> list[float]:
    return [row[0] for row in server.ask("SELECT seconds FROM answers WHERE state != 'skipped'")]


def test_of_a_pause_without_input_one_minute_counts(page: Page, server: Served) -> None:
    wait(page, 50)
    page.keyboard.press("m")
    wait(page, 50)
    page.mouse.move(600, 300)
    wait(page, 3600)
    page.mouse.move(610, 300)
    wait(page, 10)
    answer(page, "0")
    assert seconds(server) == [50 + 50 + 60 + 10]
    assert seen(server) == [("12:00:00.000", "12:02:40.000"), ("13:01:40.000", "13:01:50.000")]


def test_the_input_after_a_pause_may_be_the_answer(page: Page, server: Served) -> None:
    wait(page, 3600)
    answer(page, "0")
    assert seconds(server) == [60]
    assert seen(server)[0] == ("12:00:00.000", "12:01:00.000")


@pytest.mark.parametrize("button", ["#to-help", "#to-lead"])
def test_the_time_in_which_a_dialog_is_open_does_not_count(
    page: Page, server: Served, button: str
) -> None:
    wait(page, 10)
    page.locator(button).click()
    wait(page, 20)
    page.mouse.move(600, 300)
    wait(page, 20)
    page.keyboard.press("Escape")
    wait(page, 5)
    answer(page, "0")
    assert seconds(server) == [15]
    assert seen(server) == [("12:00:00.000", "12:00:10.000"), ("12:00:50.000", "12:00:55.000")]


def test_the_seconds_of_another_browser_are_counted(
    browser: Browser, page: Page, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ALIVE", 0.0)
    wait(page, 40)
    name = page.locator("#name").inner_text()
    answer(page, "0")
    with opened(browser, server, image=None) as other:
        other.clock.install(time=BEGIN)
        other.goto(server.place(name))
        other.wait_for_selector(SHOWN)
        other.clock.pause_at(NOON)
        assert other.locator("#name").inner_text() == name
        other.keyboard.press("m")  # of the hour before noon, a minute counts
        wait(other, 10)
        other.keyboard.press("Shift+Digit2")
        saved(other)
        assert seconds(server) == [40 + 60 + 10]


COUNT_CLAIMS = """() => {
  const { fetch } = window;
  window.claims = 0;
  window.fetch = (place, ...others) => {
    if (place.endsWith("/open")) window.claims += 1;
    return fetch(place, ...others);
  };
}"""


def test_the_claim_on_an_image_is_renewed_for_ten_minutes_without_input(page: Page) -> None:
    def claims(seconds: int) -> int:
        """Number of claims within some seconds."""
        before = page.evaluate("claims")
        page.clock.run_for(seconds * 1000)
        return int(page.evaluate("claims")) - before

    page.evaluate(COUNT_CLAIMS)
    page.keyboard.press("m")
    assert claims(590) in (58, 59)
    assert claims(20) <= 1
    assert claims(1200) == 0
    page.keyboard.press("m")
    assert claims(100) == 10
