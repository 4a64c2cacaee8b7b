"""The next images of a person on the page, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.label.pages import DRAWN, Served, opened, saved, sign_in, write_images
from tests.label.serving import Running, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OTHER = "(id) => document.body.dataset.image !== id"


class Later:
    """Clock of the reservations, which a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def server(tmp_path: Path, later: Later) -> Iterator[Running]:
    images = write_images(tmp_path / "images", {f"{n}.png": (80, 60) for n in range(9)})
    with running(images, cache=tmp_path / "cache") as one:
        one.labeling.claims._clock = later
        yield one


@pytest.fixture
def page(browser: Browser, server: Running, later: Later) -> Iterator[Page]:
    """Page whose next images are loaded; its clock stands."""
    told = Served(server.labeling.database.path, server.address, server.token)
    with opened(browser, told, image=None) as found:
        found.clock.install()
        loaded = set[str]()
        found.on("response", lambda one: loaded.add(one.url) if "/whole" in one.url else None)
        found.goto(told.place())
        sign_in(found, "Ada")
        while len(loaded) < 4:  # the image at hand, and three that are loaded ahead
            found.evaluate(DRAWN)
        saved(found)
        yield found


def reserved(server: Running) -> set[int]:
    """Images that are reserved for somebody."""
    return server.labeling.claims.images(0)


def test_the_next_images_stay_reserved_while_a_person_works(
    page: Page, server: Running, later: Later
) -> None:
    for at in (500, 1000, 1500):
        later.seconds = at
        page.keyboard.press("m")
        with page.expect_response("**/open"):
            page.clock.run_for(10_000)
    later.seconds = 2000
    assert len(reserved(server)) == 4


def test_after_a_pause_no_image_of_another_person_is_shown(
    page: Page, server: Running, later: Later
) -> None:
    first = page.evaluate("document.body.dataset.image")
    later.seconds = 3600
    page.clock.fast_forward(3_600_000)
    bo = server.client("bo", tab="other")
    given = [one["id"] for one in bo.get("/api/queue?count=7").json["images"]]
    taken = [image for image in given if image != int(first)]
    assert len(taken) >= 6
    for image in taken:
        assert bo.answer(image, "nothing").status == 200
    page.keyboard.press("0")
    page.wait_for_function(OTHER, arg=first)
    saved(page)
    assert int(page.evaluate("document.body.dataset.image")) not in taken


def test_another_person_begins_with_an_image_of_the_queue(page: Page, server: Running) -> None:
    first = page.evaluate("document.body.dataset.image")
    mine = reserved(server)
    page.get_by_role("button", name="Ada").click()
    page.fill("#person", "Grace")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('who').textContent === 'Grace'")
    page.wait_for_function(OTHER, arg="")
    shown = page.evaluate("document.body.dataset.image")
    assert shown != first
    assert int(shown) not in mine
