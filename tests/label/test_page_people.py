"""Answers, people, tabs, proposals and damaged images on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preceptor.label import queue
from preceptor.label.db import connect
from preceptor.label.marks import bounding_runs
from preceptor.label.queue import Proposal, add_teacher, write_proposals
from tests.commands import HANGS, here
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
    opened,
    saved,
    served,
    show,
    sign_in,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Browser, Page, Route

WIDTH, HEIGHT = 200, 160
FIT = Fit(WIDTH, HEIGHT)
LINE = [FIT.page(50, 40), FIT.page(150, 90)]
CONFLICT = "status of 409"
DAMAGED = "status of 422"


def images(folder: Path, count: int) -> Path:
    return write_images(
        folder / "images", {f"image-{n}.png": (WIDTH, HEIGHT) for n in range(count)}
    )


def line(page: Page) -> Mask:
    radius = brush_size(page) / 2
    return brushed(WIDTH, HEIGHT, [FIT.image(*one) for one in LINE], [radius] * 2)


def name(page: Page) -> str:
    return page.locator("#name").inner_text()


def other_than(page: Page, before: str) -> str:
    """Wait for another image, and return its name."""
    page.wait_for_function(
        "(before) => document.getElementById('name').textContent !== before", arg=before
    )
    saved(page)
    return name(page)


def test_answers_are_recorded_and_lead_on_to_the_end(browser: Browser, tmp_path: Path) -> None:
    folder = images(tmp_path, 4)
    with (
        served(folder, tmp_path, labels=("real", "fake")) as server,
        opened(browser, server) as page,
    ):

        def answered(*keys: str) -> tuple[str, list[object]]:
            before = name(page)
            for key in keys:
                page.keyboard.press(key)
            other_than(page, before)
            rows = server.ask(
                "SELECT state, answers.label, certainty, seconds > 0 FROM answers "
                "JOIN images ON images.id = image WHERE path LIKE ?",
                f"%{before}",
            )
            return before, rows

        page.keyboard.press("n")
        assert "Nothing is marked" in toast(page)
        drag(page, LINE)
        page.keyboard.press("n")
        assert "label" in toast(page)
        page.keyboard.press("1")
        page.keyboard.press("0")
        assert "Something is marked" in toast(page)
        assert answered("Shift+Digit2", "n")[1] == [("marked", "real", 2, 1)]
        assert page.locator("#count").inner_text() == "1 of 4"
        assert answered("2", "0")[1] == [("nothing", "fake", None, 1)]
        assert answered("c")[1] == [("cannot_judge", None, None, 1)]
        skipped, said = answered("s")
        assert said == [("skipped", None, None, 1)]
        assert page.locator("#count").inner_text() == "3 of 4"

        # The end; what was skipped can be looked at again, and answered.
        page.get_by_role("button", name="Look at them again").click()
        assert other_than(page, "") == skipped
        assert page.locator("#answered").inner_text() == "Skipped"
        assert answered("1", "0")[1] == [("nothing", "real", None, 1)]
        page.get_by_text("There is nothing left to mark for you now").wait_for()
        assert page.get_by_role("button", name="Look at them again").count() == 0

        # Back through what was shown; an answer that is there may be left as it is.
        page.keyboard.press("ArrowLeft")
        assert other_than(page, "") == skipped
        assert page.locator("#answered").inner_text() == "Nothing to mark"
        page.reload()
        page.wait_for_selector(SHOWN)
        assert name(page) == skipped
        events = server.ask(
            "SELECT kind, count(*) FROM events WHERE kind IN ('shown', 'hidden') GROUP BY kind"
        )
        assert len(events) == 2
        assert events[0][1] == events[1][1] >= 5


def test_an_answer_that_is_not_saved_yet_counts_at_the_end(
    browser: Browser, tmp_path: Path
) -> None:
    with served(images(tmp_path, 1), tmp_path) as server, opened(browser, server) as page:
        page.keyboard.press("s")
        page.get_by_role("button", name="Look at them again").click()
        assert other_than(page, "") == "image-0.png"
        held: list[Route] = []
        page.route("**/answer", lambda route: held.append(route))
        with page.expect_response("**/api/queue?*skipped=1"):
            page.keyboard.press("0")
        page.evaluate(DRAWN)
        assert page.get_by_text("There is nothing left to mark for you now").is_visible()
        while not held:  # the answer waits for the record of how long the image was shown
            page.evaluate(DRAWN)
        held[0].continue_()
        saved(page)
        assert server.ask("SELECT state FROM answers") == [("nothing",)]


def test_images_that_cannot_be_shown_are_told_at_the_end(browser: Browser, tmp_path: Path) -> None:
    folder = images(tmp_path, 3)
    for damaged in sorted(folder.iterdir())[:2]:
        damaged.write_bytes(b"no image")
    with served(folder, tmp_path) as server, opened(browser, server) as page:
        page.keyboard.press("0")
        told = "2 images cannot be shown: the file is missing or damaged."
        page.get_by_text(told).wait_for()
        for damaged in sorted(folder.iterdir())[:2]:
            assert f"{damaged.name}: " in page.locator("#card").inner_text()
        assert page.get_by_text("There is nothing left to mark for you now").count() == 0


def test_two_people_do_not_see_each_other(browser: Browser, tmp_path: Path) -> None:
    with (
        served(images(tmp_path, 12), tmp_path) as server,
        opened(browser, server, "Ada") as ada,
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
        assert not (server.mask("image-0.png", "Grace") & server.mask("image-0.png", "Ada")).any()
        # In one browser, another person takes over, and sees none of it either.
        ada.get_by_role("button", name="Ada").click()
        ada.get_by_role("button", name="Grace").wait_for()
        ada.fill("#person", "Mary")
        ada.keyboard.press("Enter")
        ada.wait_for_function("() => document.getElementById('who').textContent === 'Mary'")
        show(ada, server, "image-0.png")
        assert canvas(ada) == empty


def test_the_second_tab_is_told_and_may_take_over(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ALIVE", HANGS)
    with (
        served(images(tmp_path, 1), tmp_path) as server,
        opened(browser, server, image=None, may_say=CONFLICT) as first,
    ):
        # Its signs of life, every ten seconds, would tell it of the second tab before it saves.
        first.add_init_script("window.setInterval = () => 0;")
        first.goto(server.place())
        first.wait_for_selector(SHOWN)
        drag(first, LINE)
        saved(first)
        expected = server.mask("image-0.png")
        assert expected.any()
        second = another_tab(first.context, server, "Ada", may_say=CONFLICT)
        banner = "This image is open in another tab of yours."
        second.get_by_text(banner).wait_for()
        drag(second, [FIT.page(20, 120), FIT.page(180, 120)])
        second.keyboard.press("Control+z")
        saved(second)
        np.testing.assert_array_equal(server.mask("image-0.png"), expected)

        second.get_by_role("button", name="Work on it here").click()
        second.get_by_text(banner).wait_for(state="hidden")
        second.keyboard.press("Control+z")
        saved(second)
        assert not server.mask("image-0.png").any()
        # The first one notices when it wants to save; its stroke is kept until it takes over.
        drag(first, LINE)
        first.get_by_text(banner).wait_for()
        assert first.locator("#save-words").inner_text() == "1 change not saved"
        assert not server.mask("image-0.png").any()
        first.get_by_role("button", name="Work on it here").click()
        saved(first)
        np.testing.assert_array_equal(server.mask("image-0.png"), expected)
        assert second.said == []  # type: ignore[attr-defined]


def test_what_waits_is_saved_although_another_tab_has_the_image(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ALIVE", HANGS)
    may_say = "Failed to load resource"
    with (
        served(images(tmp_path, 3), tmp_path) as server,
        opened(browser, server, image=None, may_say=may_say) as first,
    ):
        first.add_init_script("window.setInterval = () => 0;")
        first.goto(server.place())
        first.wait_for_selector(SHOWN)
        image = name(first)
        first.route("**/strokes", lambda route: route.abort())
        drag(first, LINE)
        first.get_by_text("Not saved: the server is not reached.").wait_for()
        first.keyboard.press("s")
        first.wait_for_function(
            "(name) => document.getElementById('name').textContent !== name", arg=image
        )
        second = another_tab(first.context, server, "Ada", image, may_say)
        second.get_by_role("button", name="Work on it here").click()
        second.get_by_text("open in another tab").wait_for(state="hidden")
        assert not server.mask(image).any()
        first.unroute("**/strokes")
        first.evaluate("window.dispatchEvent(new Event('online'))")
        saved(first)
        np.testing.assert_array_equal(server.mask(image), line(first))


def test_marks_of_the_page_are_in_the_export(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 2), tmp_path) as server:
        with opened(browser, server) as page:
            image = name(page)
            drag(page, LINE)
            expected = line(page)
            page.keyboard.press("n")
            other_than(page, image)
            page.keyboard.press("0")
            page.locator("#card").wait_for()
            saved(page)
        out = tmp_path / "out"
        told = here("label", "export", server.database, "--to", out)
        assert told.code == 0, told
    table = pd.read_csv(out / "manifest.csv", keep_default_na=False).set_index("label")
    assert Path(table.loc["positive", "path"]).name == image
    assert table.loc["negative", "saliency"] == ""
    found = np.asarray(Image.open(out / table.loc["positive", "saliency"])) > 0
    np.testing.assert_array_equal(found, expected)


def test_another_person_in_the_same_browser_takes_no_marks(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        served(images(tmp_path, 12), tmp_path) as server,
        opened(browser, server, image="image-0.png", may_say="status of 40[39]") as first,
    ):
        second = another_tab(first.context, server, "Ada")
        second.get_by_role("button", name="Ada").click()
        second.fill("#person", "Grace")
        second.keyboard.press("Enter")
        second.wait_for_function("() => document.getElementById('who').textContent === 'Grace'")
        drag(first, LINE)
        first.get_by_text("Somebody else has signed in in this browser.").wait_for()
        assert not server.ask("SELECT 1 FROM strokes")
        # Signed in again, the first person finds the stroke, and it is saved under the right name.
        second.locator("#who").click()
        second.get_by_role("button", name="Ada").click()
        second.wait_for_function("() => document.getElementById('who').textContent === 'Ada'")
        first.reload()
        sign_in(first, "Ada")
        saved(first)
        np.testing.assert_array_equal(server.mask("image-0.png", "Ada"), line(first))
        assert server.ask(
            "SELECT DISTINCT name FROM strokes JOIN people ON people.id = person"
        ) == [("Ada",)]


PROPOSALS_SHOWN = (
    "SELECT path FROM events JOIN images ON images.id = image WHERE kind = 'proposal_shown'"
)


def propose(server: Served, agreement: float = 0.71) -> tuple[int, Mask]:
    """A Teacher's proposal for each image: a box."""
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[30:110, 60:150] = True
    box[60:80, 90:100] = False
    found = bounding_runs(box)
    assert found is not None
    connection = connect(server.database)
    try:
        connection.execute("BEGIN")
        teacher = add_teacher(connection, "teacher", 12, agreement)
        images = [row[0] for row in connection.execute("SELECT id FROM images")]
        write_proposals(connection, teacher, [Proposal(one, *found, 0.9) for one in images])
        connection.execute("COMMIT")
        number = connection.execute("SELECT min(id) FROM proposals").fetchone()[0]
    finally:
        connection.close()
    return number, box


def test_a_proposal_first_is_adopted_and_edited(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 2), tmp_path, proposals="first") as server:
        _, box = propose(server)
        with opened(browser, server) as page:
            offer = page.locator("#offer")
            assert "12 images; agreement with people 0.71" in offer.inner_text()
            first = name(page)
            seen = canvas(page)
            assert not server.mask(first).any()
            page.keyboard.press("a")
            saved(page)
            np.testing.assert_array_equal(server.mask(first), box)
            assert offer.is_hidden()
            page.keyboard.press("e")
            drag(page, LINE)
            page.mouse.move(1200, 500)
            saved(page)
            np.testing.assert_array_equal(server.mask(first), box & ~line(page))
            rows = server.ask("SELECT tool, erase, proposal IS NULL FROM strokes ORDER BY number")
            assert rows == [("proposal", 0, 0), ("eraser", 1, 1)]
            page.keyboard.press("n")
            second = other_than(page, first)
            saved(page)
            assert server.ask(PROPOSALS_SHOWN) == [(first,)]  # the second was loaded in advance
            assert server.ask("SELECT proposals_mode, proposal IS NULL FROM answers") == [
                ("first", 0)
            ]
            # Undone, it is offered again; hidden, it is not.
            assert canvas(page) == seen
            page.keyboard.press("a")
            page.keyboard.press("Control+z")
            assert canvas(page) == seen
            saved(page)
            assert not server.mask(second).any()
            offer.get_by_role("button", name="Hide").click()
            assert offer.is_hidden()
            assert canvas(page) != seen


def test_a_proposal_after_is_shown_after_the_first_own_mark(
    browser: Browser, tmp_path: Path
) -> None:
    with served(images(tmp_path, 1), tmp_path, proposals="after") as server:
        _, box = propose(server)
        with opened(browser, server) as page:
            assert page.locator("#offer").is_hidden()
            page.keyboard.press("a")
            assert "no proposal" in toast(page)
            drag(page, LINE)
            page.locator("#offer").wait_for()
            page.keyboard.press("a")
            saved(page)
            np.testing.assert_array_equal(server.mask("image-0.png"), box | line(page))
            page.keyboard.press("n")
            page.locator("#card").wait_for()
            saved(page)
            assert server.ask(PROPOSALS_SHOWN) == [("image-0.png",)]


def test_a_weak_teacher_proposes_nothing_and_the_page_says_why(
    browser: Browser, tmp_path: Path
) -> None:
    with served(images(tmp_path, 1), tmp_path, proposals="first") as server:
        propose(server, 0.41)
        with opened(browser, server) as page:
            assert page.locator("#offer").is_hidden()
            page.keyboard.press("a")
            assert "agreement with people, 0.41, is below 0.60" in toast(page)


def test_an_answer_from_before_an_undo_does_not_bring_its_stroke_back(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        served(images(tmp_path, 1), tmp_path) as server,
        opened(browser, server, image="image-0.png") as page,
    ):
        held: list[tuple[Route, APIResponse]] = []

        def hold(route: Route) -> None:
            if held:
                route.continue_()
            else:
                held.append((route, route.fetch()))

        # After the first own stroke the page asks for a proposal, and so for the whole image.
        place = re.compile(r"/api/images/\d+$")
        empty = canvas(page)
        page.route(place, hold)
        with page.expect_request(place):
            drag(page, LINE)
        saved(page)
        page.mouse.move(1200, 500)
        assert canvas(page) != empty
        while not held:
            page.evaluate(DRAWN)
        page.keyboard.press("Control+z")
        saved(page)
        assert not server.mask("image-0.png").any()
        route, answer = held[0]
        with page.expect_response(lambda one: bool(place.search(one.url))):
            route.fulfill(response=answer)
        assert canvas(page) == empty
        assert page.locator("[data-do=undo]").is_disabled()


def test_a_proposal_is_never_shown_where_that_is_asked(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 1), tmp_path, proposals="never") as server:
        propose(server, 0.41)
        with opened(browser, server) as page:
            page.keyboard.press("a")
            assert toast(page) == "There is no proposal here."
            drag(page, LINE)
            saved(page)
            page.reload()
            page.wait_for_selector(SHOWN)
            page.evaluate(DRAWN)
            assert page.locator("#offer").is_hidden()
            assert server.ask(PROPOSALS_SHOWN) == []


def test_a_damaged_image_is_shown_as_such(browser: Browser, tmp_path: Path) -> None:
    folder = images(tmp_path, 1)
    whole = write_images(tmp_path / "other", {"good.png": (WIDTH, HEIGHT)}) / "good.png"
    (folder / "torn.png").write_bytes(whole.read_bytes()[:5000])
    with (
        served(folder, tmp_path) as server,
        opened(browser, server, image="torn.png", may_say=DAMAGED) as page,
    ):
        page.get_by_text("This image cannot be shown.").wait_for()
        assert "torn.png: " in page.locator("#card").inner_text()
        drag(page, LINE)
        for key in ("0", "Control+z", "a", "k", "f", "+"):
            page.keyboard.press(key)
        other_than(page, "torn.png")
        assert page.locator("#card").is_hidden()
        assert not server.ask("SELECT 1 FROM strokes")
        assert not server.ask("SELECT 1 FROM answers")
        ((problem,),) = server.ask("SELECT problem FROM images WHERE path LIKE '%torn.png'")
        assert "truncated" in problem


def test_an_image_that_was_replaced_is_told_and_its_marks_come_back(
    browser: Browser, tmp_path: Path
) -> None:
    folder = images(tmp_path, 1)
    file = folder / "image-0.png"
    with served(folder, tmp_path) as server:
        with opened(browser, server, image=file.name) as page:
            drag(page, LINE)
            saved(page)
            wanted = canvas(page)
        before = file.read_bytes()
        write_images(folder, {file.name: (WIDTH // 2, HEIGHT)})
        with opened(browser, server, image=file.name, may_say=DAMAGED) as page:
            page.get_by_text("This image cannot be shown.").wait_for()
            told = page.locator("#card").inner_text()
            assert f"{file.name}: the file has 100 × 160 pixels, and its marks were made on" in told
            drag(page, LINE)
            assert server.ask("SELECT count(*) FROM strokes") == [(1,)]
        file.write_bytes(before)
        with opened(browser, server, image=file.name) as page:
            assert canvas(page) == wanted
