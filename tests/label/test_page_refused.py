"""Changes that the server refuses for good, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.label.pages import (
    Fit,
    another_tab,
    drag,
    saved,
    served,
    show,
    sign_in,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTH, HEIGHT = 80, 60
LINE = [Fit(WIDTH, HEIGHT).page(20, 20), Fit(WIDTH, HEIGHT).page(60, 30)]
OTHER = "(name) => document.getElementById('name').textContent !== name"
EXPECTED = "Failed to load resource"


def test_an_answer_that_is_refused_is_told_and_asked_for_again(
    browser: Browser, tmp_path: Path
) -> None:
    names = ["a.png", "b.png"]
    images = write_images(tmp_path / "images", dict.fromkeys(names, (WIDTH, HEIGHT)))
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    with served(images, tmp_path, labels=("real", "fake")) as server:
        port = int(server.address.split(":")[1])
        page = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(page, "Ada")
        saved(page)
        first = page.locator("#name").inner_text()
    # While the page is open, the server is started with other labels.
    with served(images, tmp_path, port=port, labels=("real", "synthetic")) as server:
        page.keyboard.press("2")
        page.keyboard.press("0")
        page.wait_for_function(OTHER, arg=first)
        told = page.locator("#trouble p")
        page.get_by_text("label: one of real, synthetic is needed").wait_for()
        assert told.inner_text().endswith(f"Look again at {first}.")
        saved(page)
        page.wait_for_function("() => document.getElementById('count').textContent === '0 of 2'")
        second = page.locator("#name").inner_text()
        page.keyboard.press("1")
        page.keyboard.press("0")
        page.wait_for_function(OTHER, arg=second)
        saved(page)
        assert page.locator("#name").inner_text() == first  # and not the end
        assert page.locator("#count").inner_text() == "1 of 2"
        assert told.is_visible()  # whatever happens in between
        page.get_by_role("button", name="Hide").click()
        assert told.is_hidden()
        assert page.said == []  # type: ignore[attr-defined]
    context.close()


def test_a_stroke_on_a_file_that_was_replaced_is_refused(browser: Browser, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"a.png": (WIDTH, HEIGHT)})
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    with served(images, tmp_path) as server:
        page = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(page, "Ada")
        show(page, server, "a.png")
        write_images(images, {"a.png": (HEIGHT, WIDTH)})
        drag(page, LINE)
        page.get_by_text("this was drawn on 80 × 60: its file was replaced").wait_for()
        saved(page)
        drag(page, LINE)  # the picture is that of the old file
        saved(page)
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        show(page, server, "a.png")
        drag(page, LINE)
        saved(page)
        assert server.mask("a.png").shape == (WIDTH, HEIGHT)
        assert server.mask("a.png").any()
    context.close()


def test_so_is_an_answer_about_a_file_of_the_same_size(browser: Browser, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", dict.fromkeys(["a.png", "b.png"], (WIDTH, HEIGHT)))
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    with served(images, tmp_path) as server:
        page = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(page, "Ada")
        show(page, server, "a.png")
        (images / "a.png").write_bytes((images / "a.png").read_bytes() + b"another")
        page.keyboard.press("0")
        page.get_by_text("the file of this image was replaced after it was shown").wait_for()
        saved(page)
        assert server.ask("SELECT count(*) FROM answers") == [(0,)]
        show(page, server, "a.png")
        page.keyboard.press("0")
        page.wait_for_function(OTHER, arg="a.png")
        saved(page)
        assert server.ask(
            "SELECT version = looked_at FROM answers JOIN images ON images.id = image"
        ) == [(1,)]
    context.close()
