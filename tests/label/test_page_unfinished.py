"""What becomes of something that is being drawn when a person goes on, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    Fit,
    Served,
    drag,
    inside,
    opened,
    saved,
    served,
    show,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 160, 120
FIT = Fit(WIDTH, HEIGHT)
LINE = [FIT.page(20, 20), FIT.page(60, 30)]
CORNERS = [FIT.page(30, 40), FIT.page(120, 50), FIT.page(70, 100)]
OPEN = "The polygon is open. Enter closes it, Esc cancels it."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("unfinished")
    images = write_images(folder / "images", {f"{n}.png": (WIDTH, HEIGHT) for n in range(6)})
    with served(images, folder, classes=("iris", "lid")) as one:
        yield one


@pytest.fixture(scope="module")
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server, image=None) as found:
        yield found


def strokes(server: Served, name: str) -> list[tuple[str, str]]:
    rows = "SELECT tool, class FROM strokes JOIN images ON images.id = image WHERE path = ?"
    return server.ask(f"{rows} ORDER BY number", name)


def leave(page: Page, name: str, key: str) -> None:
    page.keyboard.press(key)
    page.wait_for_function(
        "(name) => document.getElementById('name').textContent !== name", arg=name
    )
    saved(page)


@pytest.mark.parametrize(("name", "tool"), [("0.png", "b"), ("1.png", "r")])
def test_a_stroke_under_the_mouse_is_part_of_the_answer(
    page: Page, server: Served, name: str, tool: str
) -> None:
    show(page, server, name)
    page.keyboard.press("b")
    drag(page, LINE)
    page.keyboard.press(tool)
    page.mouse.move(*CORNERS[0])
    page.mouse.down()
    page.mouse.move(*CORNERS[2], steps=3)
    leave(page, name, "n")
    page.mouse.up()
    kind = {"b": "brush", "r": "box"}[tool]
    assert strokes(server, name) == [("brush", "iris"), (kind, "iris")]
    x, y = map(int, FIT.image(*CORNERS[2]))
    assert server.mask(name)[y - 2, x - 2]


def test_a_stroke_of_the_cursor_is_part_of_the_answer(page: Page, server: Served) -> None:
    show(page, server, "2.png")
    for key in ("b", "k", "Space", *["Shift+ArrowRight"] * 3):
        page.keyboard.press(key)
    leave(page, "2.png", "n")
    assert strokes(server, "2.png") == [("brush", "iris")]
    # The next class, and the image before, find it as well.
    show(page, server, "3.png")
    for key in ("k", "Space", "ArrowRight", "d", "k", "k", "Space", "ArrowLeft"):
        page.keyboard.press(key)
    if page.locator("#guide path").count() == 0:
        page.keyboard.press("k")
    page.keyboard.press("k")
    saved(page)
    assert strokes(server, "3.png") == [("brush", "iris"), ("brush", "lid")]
    page.keyboard.press("d")


def test_an_open_polygon_is_thrown_away_by_escape_alone(page: Page, server: Served) -> None:
    show(page, server, "4.png")
    page.keyboard.press("p")
    for corner in CORNERS:
        page.mouse.click(*corner)
    for key in ("ArrowLeft", "d", "b", "x", "n", "s", "c"):
        page.evaluate("document.getElementById('toast').textContent = ''")
        page.keyboard.press(key)
        assert toast(page) == OPEN, key
    page.keyboard.press("Enter")
    saved(page)
    assert strokes(server, "4.png") == [("polygon", "iris")]
    points = [FIT.image(*one) for one in CORNERS]
    np.testing.assert_array_equal(server.mask("4.png"), inside(WIDTH, HEIGHT, points))
    for corner in CORNERS:
        page.mouse.click(*corner)
    page.keyboard.press("Escape")
    assert page.locator("#guide polygon").count() == 0
    page.keyboard.press("b")
    saved(page)
    assert len(strokes(server, "4.png")) == 1
