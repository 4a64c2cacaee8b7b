"""Links to images that are opened in a tab which has the page already, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.label.pages import (
    DRAWN,
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
    from playwright.sync_api import Browser, Page, Route

WIDTH, HEIGHT = 80, 60
FIT = Fit(WIDTH, HEIGHT)
AT = "(place) => location.href === place"
NAMED = "(name) => document.getElementById('name').textContent === name"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    images = write_images(tmp_path / "images", {f"{n}.png": (WIDTH, HEIGHT) for n in range(6)})
    with served(images, tmp_path) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The first image."""
    with opened(browser, server, image="0.png", may_say="status of 404") as found:
        saved(found)
        yield found


def is_shown(page: Page, name: str) -> None:
    page.wait_for_function(NAMED, arg=name)


def test_a_link_to_an_image_shows_it(page: Page, server: Served) -> None:
    page.goto(server.place("1.png"))
    is_shown(page, "1.png")
    drag(page, [FIT.page(20, 20), FIT.page(60, 30)])
    saved(page)
    assert server.mask("1.png").any()
    # The history of the browser has the links, and the key of the image before the images.
    page.go_back()
    is_shown(page, "0.png")
    page.keyboard.press("ArrowLeft")
    is_shown(page, "1.png")
    # Progress would cover the image.
    page.locator("#to-lead").click()
    page.locator("#lead").wait_for()
    page.goto(server.place("2.png"))
    is_shown(page, "2.png")
    assert page.locator("#lead").is_hidden()


def test_a_link_that_leads_nowhere_leaves_the_image(page: Page, server: Served) -> None:
    for link in ("#99999", "#stage", "#"):
        page.evaluate("(link) => { location.hash = link; }", link)
        page.wait_for_function(AT, arg=server.place("0.png"))
        assert page.locator("#name").inner_text() == "0.png"
    assert "The image is not here" in toast(page)


def test_an_open_polygon_is_kept_from_a_link(page: Page, server: Served) -> None:
    page.keyboard.press("p")
    for corner in ((10, 10), (60, 15), (30, 40)):
        page.mouse.click(*FIT.page(*corner))
    page.goto(server.place("3.png"))
    page.wait_for_function(AT, arg=server.place("0.png"))
    assert "The polygon is open" in toast(page)
    page.keyboard.press("Enter")
    saved(page)
    assert server.mask("0.png").any()


def test_a_link_does_not_overtake_an_image_that_is_on_its_way(page: Page, server: Served) -> None:
    held: list[Route] = []
    four = server.place("4.png").rpartition("#")[2]
    page.route(f"**/api/images/{four}", lambda route: held.append(route))
    page.reload()  # no image is loaded ahead any more
    is_shown(page, "0.png")
    page.goto(server.place("4.png"))
    page.wait_for_selector("#stage[aria-busy]")
    page.goto(server.place("5.png"))
    page.wait_for_function(AT, arg=server.place("0.png"))
    assert "Another image is on its way" in toast(page)
    while not held:
        page.evaluate(DRAWN)
    held[0].continue_()
    is_shown(page, "4.png")
    page.wait_for_function(AT, arg=server.place("4.png"))


def test_the_next_image_does_not_replace_that_of_a_link(page: Page, server: Served) -> None:
    held: list[Route] = []
    waits = True

    def hold(route: Route) -> None:
        if waits:
            held.append(route)
        else:
            route.continue_()

    page.goto("about:blank")
    page.route("**/api/queue?*", hold)
    page.goto(server.place("1.png"))
    is_shown(page, "1.png")
    with page.expect_request("**/api/images/*/answer"):
        page.keyboard.press("0")
    page.goto(server.place("2.png"))
    is_shown(page, "2.png")
    waits = False
    while held:
        with page.expect_response("**/api/queue?*"):
            held.pop().continue_()
    page.evaluate(DRAWN)
    is_shown(page, "2.png")
    page.wait_for_function(AT, arg=server.place("2.png"))


def test_a_link_waits_for_the_name_of_the_person(page: Page, server: Served) -> None:
    page.get_by_role("button", name="Ada").click()
    page.locator("#person").wait_for()
    page.goto(server.place("5.png"))
    page.keyboard.press("Shift+Tab")  # off the field
    page.keyboard.press("ArrowLeft")
    page.fill("#person", "Grace")
    page.keyboard.press("Enter")
    is_shown(page, "5.png")
    assert page.locator("#who").inner_text() == "Grace"
