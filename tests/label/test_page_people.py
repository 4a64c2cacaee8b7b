"""Answers, people, tabs and damaged images on the page, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    SHOWN,
    Fit,
    Mask,
    another_tab,
    brush_size,
    brushed,
    canvas,
    choose_person,
    drag,
    leave,
    name,
    opened,
    other_than,
    press,
    saved,
    served,
    show,
    sign_in,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 200, 160
FIT = Fit(WIDTH, HEIGHT)
LINE = [FIT.page(50, 40), FIT.page(150, 90)]
FAILED = "Failed to load resource"


def images(folder: Path, count: int) -> Path:
    sizes = {f"image-{n}.png": (WIDTH, HEIGHT) for n in range(count)}
    return write_images(folder / "images", sizes)


def line(page: Page) -> Mask:
    radius = brush_size(page, FIT) / 2
    return brushed(WIDTH, HEIGHT, [FIT.image(*one) for one in LINE], [radius] * 2)


def told(page: Page) -> tuple[str, str]:
    """The answer and the progress as the page says them."""
    return page.locator("#answered").inner_text(), page.locator("#count").inner_text()


def test_answers_are_recorded_and_lead_on_to_the_end(browser: Browser, tmp_path: Path) -> None:
    folder = images(tmp_path, 5)
    (folder / "image-4.png").write_bytes(b"no image")
    with (
        served(folder, tmp_path, labels=("real", "fake")) as server,
        opened(browser, server) as page,
    ):

        def answered(*keys: str) -> tuple[str, list[object]]:
            before = leave(page, *keys)
            rows = server.ask(
                "SELECT state, answers.label, seconds > 0 FROM answers "
                "JOIN images ON images.id = image WHERE path LIKE ?",
                f"%{before}",
            )
            return before, rows

        press(page, "n")
        assert "Nothing is marked" in toast(page)
        drag(page, LINE)
        press(page, "n")
        assert "label" in toast(page)
        press(page, "1", "0")
        assert "Something is marked" in toast(page)
        assert answered("n")[1] == [("marked", "real", 1)]
        assert answered("2", "0")[1] == [("nothing", "fake", 1)]
        assert answered("c")[1] == [("cannot_judge", None, 1)]
        assert page.locator("#count").inner_text() == "3 of 5"
        last = name(page)
        press(page, "1", "0")
        page.get_by_text("1 image cannot be shown: the file is missing or damaged.").wait_for()
        assert "image-4.png: " in page.locator("#card").inner_text()
        saved(page)
        # Back through what was shown; an answer that is there may be left as it is.
        press(page, "ArrowLeft")
        assert other_than(page, "") == last
        assert page.locator("#answered").inner_text() == "Nothing to mark"
        page.reload()
        page.wait_for_selector(SHOWN)
        assert name(page) == last


@pytest.mark.parametrize("given", [True, False])
def test_one_label_is_no_choice(browser: Browser, tmp_path: Path, given: bool) -> None:
    source, how = images(tmp_path, 2), {"labels": ("real",)}
    if given:
        source, how = tmp_path / "manifest.csv", {}
        rows = [f"images/image-{n}.png,real\n" for n in range(2)]
        source.write_text("".join(["path,label\n", *rows]))
    with served(source, tmp_path, **how) as server, opened(browser, server) as page:
        assert page.locator("#labels-part").is_hidden()
        leave(page, "1", "0")
        rows = server.ask("SELECT state, label FROM answers")
        assert rows == [("nothing", None if given else "real")]


def test_an_image_whose_answer_does_not_fit_is_asked_for_again(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        served(images(tmp_path, 3), tmp_path, labels=("real", "fake")) as server,
        opened(browser, server) as page,
    ):

        def stored() -> list[tuple[object, ...]]:
            saved(page)
            return server.ask("SELECT state, label FROM answers ORDER BY number")

        first = leave(page, "1", "0")
        second = leave(page, "2", "0")
        leave(page, "ArrowLeft")
        # A corrected label is saved at once.
        assert told(page) == ("Nothing to mark", "2 of 3")
        press(page, "1")
        assert stored()[-1] == ("nothing", "real")
        press(page, "1")  # a label that the answer needs is not taken back
        assert "needs a label" in toast(page)
        press(page, "2")
        assert stored()[-1] == ("nothing", "fake")
        # With a mark, the answer does not count; it does once the mark is gone, and comes again.
        drag(page, LINE)
        assert "The answer does not fit the marks any more" in toast(page)
        assert told(page) == ("Answer again", "1 of 3")
        assert stored() == [("nothing", "real")]
        press(page, "Control+z")
        assert told(page) == ("Nothing to mark", "2 of 3")
        press(page, "Control+y")
        leave(page, "ArrowLeft")
        assert name(page) == first
        leave(page, "n")
        counted = 1
        while name(page) != second:
            leave(page, "c")
            counted += 1
        page.reload()
        page.wait_for_selector(SHOWN)
        assert told(page) == ("Answer again", f"{counted} of 3")
        leave(page, "n")
        assert page.locator("#count").inner_text() == f"{counted + 1} of 3"
        rows = server.ask("SELECT label FROM answers WHERE state = 'marked'")
        assert rows == [("fake",)]


def test_the_image_that_was_left_by_the_way_back_is_the_next_one(
    browser: Browser, tmp_path: Path
) -> None:
    with served(images(tmp_path, 8), tmp_path) as server, opened(browser, server) as page:
        done = [leave(page, "0") for _ in range(2)]
        drag(page, LINE)
        image = name(page)
        for before in reversed(done):
            leave(page, "ArrowLeft")
            assert name(page) == before
        leave(page, "0")
        assert name(page) == image
        assert leave(page, "n") == image
        assert name(page) not in done


def test_people_do_not_see_each_other_and_take_no_marks(browser: Browser, tmp_path: Path) -> None:
    with (
        served(images(tmp_path, 12), tmp_path) as server,
        opened(browser, server, "Ada", may_say="status of 40[39]") as ada,
        opened(browser, server, "Grace") as grace,
    ):
        assert name(ada) != name(grace)  # nobody else is needed for an image at hand
        for page in (ada, grace):
            show(page, server, "image-0.png")
        empty = canvas(grace)
        drag(ada, LINE)
        saved(ada)
        show(grace, server, "image-0.png")
        assert canvas(grace) == empty
        assert grace.locator("[data-do=undo]").is_disabled()
        drag(grace, [FIT.page(50, 120), FIT.page(150, 120)])
        saved(grace)
        np.testing.assert_array_equal(server.mask("image-0.png", "Ada"), line(ada))
        assert server.mask("image-0.png", "Grace").any()
        # In another tab of the first browser, another person takes over, and sees none of it.
        second = another_tab(ada.context, server, "Ada")
        choose_person(second, "Mary")
        show(second, server, "image-0.png")
        assert canvas(second) == empty
        drag(ada, [FIT.page(50, 120), FIT.page(150, 120)])
        ada.get_by_text("Somebody else has signed in in this browser.").wait_for()
        count = "SELECT count(*) FROM strokes JOIN people ON people.id = person WHERE name = ?"
        assert server.ask(count, "Mary") == [(0,)]
        # Signed in again, the first person finds the stroke, and it is saved under the right name.
        choose_person(second, "Ada")
        ada.reload()
        sign_in(ada, "Ada")
        saved(ada)
        assert (server.ask(count, "Ada"), server.ask(count, "Mary")) == ([(2,)], [(0,)])


def test_changes_that_are_refused_are_told_and_asked_for_again(
    browser: Browser, tmp_path: Path
) -> None:
    folder = images(tmp_path, 2)
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    with served(folder, tmp_path, labels=("real", "fake")) as server:
        port = int(server.address.split(":")[1])
        page = another_tab(context, server, None, may_say=FAILED)
        sign_in(page, "Ada")
        saved(page)
        first = name(page)
    # While the page is open, the server is started with other labels.
    with served(folder, tmp_path, port=port, labels=("real", "synthetic")) as server:
        press(page, "2", "0")
        refusal = page.locator("#trouble p")
        page.get_by_text("label: one of real, synthetic is needed").wait_for()
        assert refusal.inner_text().endswith(f"Look again at {first}.")
        saved(page)
        page.wait_for_function("() => document.getElementById('count').textContent === '0 of 2'")
        leave(page, "1", "0")
        assert name(page) == first  # and not the end
        assert page.locator("#count").inner_text() == "1 of 2"
        assert refusal.is_visible()  # whatever happens in between
        page.get_by_role("button", name="Hide").click()
        assert refusal.is_hidden()
        assert page.said == []  # type: ignore[attr-defined]
    context.close()
