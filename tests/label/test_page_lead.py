"""The page *Progress* over the image, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.label.pages import DRAWN, SHOWN, Served, opened, saved, served, write_images
from tests.label.serving import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

FIGURES = "**/api/lead"
RENEWAL = 15_000
FOCUSED = "() => document.activeElement.getAttribute('aria-label')"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    images = write_images(tmp_path / "images", {f"{n}.png": (80, 60) for n in range(6)})
    with served(images, tmp_path) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """Progress over an image, in a window in which its tables are wider than the page."""
    how = {"viewport": {"width": 500, "height": 700}, "may_say": "status of 409|Failed to load"}
    with opened(browser, server, image=None, **how) as found:
        found.clock.install()
        found.goto(server.place())
        found.wait_for_selector(SHOWN)
        saved(found)
        found.locator("#to-lead").click()
        table(found).wait_for()
        yield found


def table(page: Page) -> Locator:
    return page.get_by_role("region", name="People")


def renew(page: Page) -> None:
    """Let the time pass until the figures are read again."""
    with page.expect_response(FIGURES):
        page.clock.run_for(RENEWAL)
    page.evaluate(DRAWN)


def test_what_progress_covers_is_not_reached_by_keys(page: Page, server: Served) -> None:
    covered = "one.closest('.jump, #tools, aside, main > :not(#lead)') !== null"
    number = page.evaluate(
        "() => document.querySelectorAll('button, input, summary, a, [tabindex]').length"
    )
    reached = set()
    for _ in range(number):
        page.keyboard.press("Tab")
        told = f"() => {{ const one = document.activeElement; return [one.id, {covered}]; }}"
        name, is_covered = page.evaluate(told)
        assert not is_covered, name
        reached.add(name)
    assert {"to-lead", "who", "to-help"} <= reached
    # Closed, it gives everything back.
    page.get_by_role("button", name="Back to the image").click()
    before = page.get_attribute("body", "data-image")
    page.locator("[data-do=nothing]").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("(id) => document.body.dataset.image !== id", arg=before)
    saved(page)
    assert server.ask("SELECT state FROM answers") == [("nothing",)]


def test_another_person_is_asked_for_in_place_of_progress(page: Page) -> None:
    page.locator("#who").click()
    page.fill("#person", "Grace")
    assert page.locator("#lead").is_hidden()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('who').textContent === 'Grace'")


def test_new_figures_leave_the_focus_and_the_place_in_a_table(page: Page, server: Served) -> None:
    table(page).focus()
    table(page).evaluate("(box) => box.scrollTo(50, 0)")
    row = table(page).locator("tbody tr").element_handle()
    renew(page)
    assert row.evaluate("(one) => one.isConnected")  # the figures are the same
    bo = Client(server.address).enter(server.token, "Bo")
    assert bo.answer(bo.queue()[0], "nothing").status == 200
    bo.close()
    page.clock.run_for(RENEWAL)
    table(page).get_by_role("rowheader", name="Bo").wait_for()
    assert page.evaluate(FOCUSED) == "People"
    assert table(page).evaluate("(box) => box.scrollLeft") == 50
    assert page.locator("#lead .figures").count() == 1
    assert page.locator("#lead h3").all_inner_texts() == ["People", "Agreement of two people"]


def test_figures_stay_while_the_server_is_away(page: Page) -> None:
    page.route(FIGURES, lambda route: route.abort())
    page.clock.run_for(RENEWAL)
    told = page.get_by_text("The present figures are not here: the server is not reached.")
    told.wait_for()
    assert table(page).is_visible()
    page.unroute(FIGURES)
    page.clock.run_for(RENEWAL)
    told.wait_for(state="detached")
    assert table(page).is_visible()
