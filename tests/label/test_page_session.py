"""Sessions on the page: outages, links, reservations and times, in a real browser."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    DRAWN,
    SHOWN,
    Fit,
    Mask,
    Served,
    another_tab,
    brush_size,
    brushed,
    canvas,
    drag,
    leave,
    name,
    opened,
    press,
    saved,
    served,
    served_apart,
    show,
    sign_in,
    toast,
    write_images,
)
from tests.label.serving import Client, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 200, 160
FIT = Fit(WIDTH, HEIGHT)
LINES = [[FIT.page(40, y), FIT.page(160, y + 15)] for y in (30, 60, 90, 120)]
FAILED = "Failed to load resource"
OTHER = "(name) => document.getElementById('name').textContent !== name"
NAMED = "(name) => document.getElementById('name').textContent === name"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    sizes = {f"{n}.png": (WIDTH, HEIGHT) for n in range(9)}
    return write_images(tmp_path / "images", sizes)


def line(page: Page, *numbers: int) -> Mask:
    radii = [brush_size(page, FIT) / 2] * 2
    masks = [
        brushed(WIDTH, HEIGHT, [FIT.image(*one) for one in LINES[at]], radii) for at in numbers
    ]
    return np.any(masks, axis=0)


def waits(page: Page, count: int) -> None:
    """Wait until the page says how many changes are not saved."""
    words = "1 change" if count == 1 else f"{count} changes"
    page.get_by_text(f"{words} not saved").wait_for()


def test_strokes_outlive_the_server_and_the_tab(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    with served_apart(images, tmp_path) as server, opened(browser, server, may_say=FAILED) as page:
        image = name(page)
        drag(page, LINES[0])
        saved(page)
        server.kill()
        drag(page, LINES[1])
        page.get_by_text("Not saved: the server is not reached.").wait_for()
        press(page, "e")
        drag(page, LINES[0])
        press(page, "Control+z", "b")
        drag(page, LINES[2])
        waits(page, 4)
        picture = canvas(page)
        server.start()
        saved(page)
        assert page.locator("#trouble").is_hidden()
        np.testing.assert_array_equal(server.mask(image), line(page, 0, 1, 2))
        rows = server.ask("SELECT number, tool, undone > 0, started FROM strokes ORDER BY number")
        assert [row[1:3] for row in rows] == [
            ("brush", 0),
            ("brush", 0),
            ("eraser", 1),
            ("brush", 0),
        ]
        assert [row[3] for row in rows] == sorted(row[3] for row in rows)
        assert canvas(page) == picture
        # The page warns before it is closed; this one is closed without a question.
        server.kill()
        press(page, "Control+z")
        drag(page, LINES[3])
        press(page, "Control+z")
        waits(page, 3)
        page.mouse.move(1200, 500)
        picture = canvas(page)
        page.on("dialog", lambda one: one.accept())
        page.close(run_before_unload=False)
        server.start()
        again = another_tab(page.context, server, "Ada", image, FAILED)
        saved(again)
        np.testing.assert_array_equal(server.mask(image), line(again, 0, 1))
        again.mouse.move(1200, 500)
        assert canvas(again) == picture
        press(again, "Control+y")
        saved(again)
        np.testing.assert_array_equal(server.mask(image), line(again, 0, 1, 3))


def test_answers_outlive_the_tab_and_count(browser: Browser, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {f"{n}.png": (WIDTH, HEIGHT) for n in range(4)})
    with served(images, tmp_path) as server, opened(browser, server, may_say=FAILED) as page:
        answered = {leave(page, "0")}
        page.route("**/answer", lambda route: route.abort())
        for _ in range(2):
            answered.add(image := name(page))
            press(page, "0")
            page.wait_for_function(OTHER, arg=image)
        waits(page, 2)
        assert page.locator("#count").inner_text() == "3 of 4"
        page.close(run_before_unload=False)
        again = another_tab(page.context, server, "Ada", None, FAILED)
        again.route("**/answer", lambda route: route.abort())
        again.goto(server.place())
        again.wait_for_selector(SHOWN)
        assert name(again) not in answered
        again.unroute("**/answer")
        saved(again)
        again.get_by_text("3 of 4").wait_for()
        leave(again, "0")
        again.get_by_text("4 of 4").wait_for()
        assert server.ask("SELECT count(*) FROM answers") == [(4,)]


def test_strokes_wait_while_the_disk_is_full(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    with served_apart(images, tmp_path) as server, opened(browser, server, may_say=FAILED) as page:
        image = name(page)
        drag(page, LINES[0])
        saved(page)
        # The system refuses each byte beyond a limit, as a full disk does.
        assert server.process is not None
        before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
        drag(page, LINES[1])
        page.get_by_text("Not saved: the disk is full").wait_for()
        press(page, "c")
        page.wait_for_function(OTHER, arg=image)
        second = name(page)
        drag(page, LINES[2])
        assert server.ask("SELECT count(*) FROM strokes") == [(1,)]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
        page.evaluate(  # unless the page itself has tried again by now
            "[...document.querySelectorAll('button')]"
            ".find((one) => one.textContent === 'Try again')?.click()"
        )
        saved(page)
        np.testing.assert_array_equal(server.mask(image), line(page, 0, 1))
        np.testing.assert_array_equal(server.mask(second), line(page, 2))
        assert server.ask("SELECT state FROM answers") == [("cannot_judge",)]


@pytest.mark.parametrize(("status", "body"), [(200, "<html>Sign in</html>"), (404, "{}")])
def test_strokes_wait_while_another_program_answers(
    browser: Browser, images: Path, tmp_path: Path, status: int, body: str
) -> None:
    with served_apart(images, tmp_path) as server, opened(browser, server, may_say=FAILED) as page:
        page.route("**/strokes", lambda route: route.fulfill(status=status, body=body))
        image = name(page)
        drag(page, LINES[0])
        page.get_by_text("Not saved: something else answers at this address").wait_for()
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        page.unroute("**/strokes")
        saved(page)
        np.testing.assert_array_equal(server.mask(image), line(page, 0))


def test_what_is_not_saved_stays_with_its_project(browser: Browser, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, size in ((one, (WIDTH, HEIGHT)), (other, (60, 80))):
        write_images(folder / "images", dict.fromkeys(["a.png", "b.png"], size))
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    chosen = "[data-label='1'][aria-pressed=true]"

    def begun(server: Served) -> Page:
        tab = another_tab(context, server, None, may_say=FAILED)
        sign_in(tab, "Ada")
        show(tab, server, "a.png")
        return tab

    how = {"labels": ("real", "fake")}
    with served(one / "images", one, **how) as server:
        port = int(server.address.split(":")[1])
        page = begun(server)
        press(page, "2")
    drag(page, LINES[0])
    page.get_by_text("Not saved: the server is not reached.").wait_for()
    with served(other / "images", other, port=port, **how) as server:
        # The open page does not hand its strokes to another project.
        tab = another_tab(context, server, None, may_say=FAILED)
        sign_in(tab, "Ada")
        page.get_by_text("Another project is served at this address now.").wait_for()
        page.close()
        show(tab, server, "a.png")
        saved(tab)
        assert tab.locator(chosen).count() == 0
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        tab.close()
    with served(one / "images", one, port=port, **how) as server:
        tab = begun(server)
        saved(tab)
        assert server.mask("a.png").any()
        assert tab.locator(chosen).count() == 1
    context.close()


def test_links_to_images(browser: Browser, images: Path, tmp_path: Path) -> None:
    with (
        served(images, tmp_path) as server,
        opened(browser, server, image="0.png", may_say="status of 404") as page,
    ):

        def stays(image: str, why: str) -> None:
            """A link is refused: the address is that of the image at hand again."""
            page.wait_for_function("(at) => location.href === at", arg=server.place(image))
            assert name(page) == image
            assert why in toast(page)

        def shows(image: str) -> None:
            page.wait_for_function(NAMED, arg=image)
            page.wait_for_function("(at) => location.href === at", arg=server.place(image))

        saved(page)
        page.goto(server.place("1.png"))
        shows("1.png")
        drag(page, LINES[0])
        saved(page)
        assert server.mask("1.png").any()
        # The history of the browser has the links, and the key of the image before the images.
        page.go_back()
        shows("0.png")
        press(page, "ArrowLeft")
        shows("1.png")
        press(page, "g")  # the sheet would cover the image
        page.locator("#sheet").wait_for()
        page.goto(server.place("0.png"))
        shows("0.png")
        assert page.locator("#sheet").is_hidden()
        for link in ("#99999", "#stage", "#"):  # links that lead nowhere
            page.evaluate("(link) => { location.hash = link; }", link)
            stays("0.png", "The image is not here")
        press(page, "p")
        for corner in ((10, 10), (60, 15), (30, 40)):
            page.mouse.click(*FIT.page(*corner))
        page.goto(server.place("3.png"))
        stays("0.png", "The polygon is open")
        press(page, "Enter")
        saved(page)
        assert server.mask("0.png").any()


class Later:
    """Clock of the reservations, which a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_next_images_stay_reserved_while_a_person_works(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    later = Later()
    with running(images) as one, contextlib.ExitStack() as stack:
        one.labeling.claims._clock = later
        server = Served(one.labeling.database.path, one.address, one.token)
        page = stack.enter_context(opened(browser, server, image=None))
        page.clock.install()
        loaded = set[str]()
        page.on("response", lambda one: loaded.add(one.url) if "/whole" in one.url else None)
        page.goto(server.place())
        sign_in(page, "Ada")
        while len(loaded) < 4:  # the image at hand, and three that are loaded ahead
            page.evaluate(DRAWN)
        saved(page)
        bo = Client(server.address, tab="other").enter(server.token, "Bo")

        def left(count: int = 24) -> set[int]:
            told = bo.get(f"/api/queue?count={count}")
            return {one["id"] for one in told.json["images"]}

        for seconds in (500, 1000, 1500):
            later.seconds = seconds
            press(page, "m")
            with page.expect_response("**/open"):
                page.clock.run_for(10_000)
        later.seconds = 2000
        assert len(left(1)) == 1
        # After a pause, no image of another person is shown.
        first = page.evaluate("document.body.dataset.image")
        later.seconds = 5600
        page.clock.fast_forward(3_600_000)
        taken = left(7) - {int(first)}
        assert len(taken) >= 6
        for image in taken:
            assert bo.answer(image, "nothing").status == 200
        bo.close()
        leave(page, "0")
        assert int(page.evaluate("document.body.dataset.image")) not in taken


def test_images_that_are_reserved_for_others_are_told_and_come_back(
    browser: Browser, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", {f"{n}.png": (WIDTH, HEIGHT) for n in range(4)})
    with running(images) as one, contextlib.ExitStack() as stack:
        server = Served(one.labeling.database.path, one.address, one.token)
        ada = stack.enter_context(opened(browser, server))
        while len(one.labeling.claims.images(0)) < 4:  # the images that somebody has
            ada.evaluate(DRAWN)
        bo = stack.enter_context(opened(browser, server, "Bo", image=None))
        bo.goto(server.place())
        bo.get_by_text("4 images are reserved for other people.").wait_for()
        assert "nothing left" not in bo.locator("#card").inner_text()
        other = int(ada.evaluate("document.body.dataset.image")) % 4 + 1
        tab = ada.evaluate("sessionStorage.tab")
        client = Client(server.address, tab).enter(server.token, "Ada")
        assert client.answer(other, "nothing").status == 200
        client.close()
        ada.goto("about:blank")
        while one.labeling.claims.images(0):
            bo.evaluate(DRAWN)
        assert bo.locator("#count").inner_text() == "0 of 4"
        bo.get_by_role("button", name="Look again").click()
        bo.wait_for_selector(SHOWN)
        for _ in range(3):
            leave(bo, "0")
        bo.get_by_text("There is nothing left to mark for you now.").wait_for()
        assert bo.locator("#count").inner_text() == "3 of 3"


BEGIN, NOON = "2026-01-02T11:00:00Z", "2026-01-02T12:00:00Z"


@pytest.fixture
def timed(browser: Browser, images: Path, tmp_path: Path) -> Iterator[tuple[Served, Page]]:
    """The second image, which is shown at noon; the clock of the page stands."""
    with served(images, tmp_path) as server, opened(browser, server, image=None) as page:
        page.clock.install(time=BEGIN)
        page.goto(server.place())
        page.wait_for_selector(SHOWN)
        page.clock.pause_at(NOON)
        leave(page, "c")
        yield server, page


def seconds(server: Served) -> list[float]:
    rows = server.ask("SELECT seconds FROM answers WHERE state = 'nothing' ORDER BY number")
    return [row[0] for row in rows]


def test_of_a_pause_without_input_one_minute_counts(timed: tuple[Served, Page]) -> None:
    server, page = timed
    page.clock.fast_forward(50_000)
    press(page, "m")
    page.clock.fast_forward(50_000)
    page.mouse.move(600, 300)
    page.clock.fast_forward(3_600_000)
    page.mouse.move(610, 300)
    page.clock.fast_forward(10_000)
    leave(page, "0")
    page.clock.fast_forward(3_600_000)  # the input after a pause may be the answer
    leave(page, "0")
    assert seconds(server) == [50 + 50 + 60 + 10, 60]


def test_the_time_in_which_a_dialog_is_open_does_not_count(timed: tuple[Served, Page]) -> None:
    server, page = timed
    page.clock.fast_forward(10_000)
    press(page, "g")
    page.clock.fast_forward(20_000)
    page.mouse.move(600, 300)
    page.clock.fast_forward(20_000)
    press(page, "Escape")
    page.clock.fast_forward(5_000)
    leave(page, "0")
    assert seconds(server) == [15]
