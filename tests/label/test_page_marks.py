"""Marking on the page: tools, pens and fingers, undo, reload, view, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    DRAWN,
    SHOWN,
    Fit,
    Mask,
    Served,
    brush_size,
    brushed,
    canvas,
    centers,
    drag,
    inside,
    leave,
    opened,
    pen,
    press,
    saved,
    served,
    show,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 320, 240
FIT = Fit(WIDTH, HEIGHT)
LINE = [FIT.page(60, 60), FIT.page(150, 90), FIT.page(120, 200)]
CORNERS = [FIT.page(50, 40), FIT.page(200, 60), FIT.page(90, 120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    names = [f"{name}.png" for name in "abcdefghijklmnop"]
    images = write_images(folder / "images", dict.fromkeys(names, (WIDTH, HEIGHT)))
    write_images(images, {"large-0.png": (2600, 2000)})
    with served(images, folder, labels=("real", "fake")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server, image=None, has_touch=True) as tab:
        yield tab


def at(points: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [FIT.image(*point) for point in points]


def line(page: Page, points: list[tuple[int, int]], zoom: float = 1) -> Mask:
    """Pixels of a brush line through points of the page."""
    return brushed(WIDTH, HEIGHT, at(points), [brush_size(page, FIT, zoom) / 2] * len(points))


def tools(server: Served, image: str) -> list[str]:
    return [tool for tool, _ in server.strokes(image)]


def test_brush_and_eraser_leave_exactly_their_pixels(page: Page, server: Served) -> None:
    show(page, server, "a.png")
    drag(page, LINE)
    expected = line(page, LINE)
    assert expected.sum() > 1000
    # The eraser takes a piece out of it; so does the right button with the brush.
    erase, right = [FIT.page(100, 40), FIT.page(110, 110)], [FIT.page(140, 120), FIT.page(130, 170)]
    press(page, "e", "[")
    drag(page, erase)
    expected &= ~line(page, erase)
    press(page, "b", "]")
    drag(page, right, button="right")
    expected &= ~line(page, right)
    # A thin brush, and a line beyond the image.
    press(page, *["["] * 60)
    assert brush_size(page, FIT) == 1 / FIT.scale
    x, y = FIT.page(30, 30)
    thin = [(x + at * 30, y + at * 7) for at in range(4)]  # the steps of the mouse
    drag(page, [thin[0], thin[-1]])
    expected |= line(page, thin)
    press(page, *["]"] * 30)
    beyond = [FIT.page(300, 200), (990, 640)]
    drag(page, beyond)
    expected |= line(page, beyond)
    saved(page)
    np.testing.assert_array_equal(server.mask("a.png"), expected)
    eraser, brush = ("eraser", 1), ("brush", 0)
    assert server.strokes("a.png") == [brush, eraser, eraser, brush, brush]


def test_polygon_and_box_leave_exactly_their_pixels(page: Page, server: Served) -> None:
    show(page, server, "b.png")
    corners = [*CORNERS, FIT.page(210, 200)]
    press(page, "p")
    for corner in corners:
        page.mouse.click(*corner)
    assert tools(server, "b.png") == []
    press(page, "Enter")
    expected = inside(WIDTH, HEIGHT, at(corners))
    # A second one erases, and is closed by a click on its first point; Backspace takes one back.
    hole = [FIT.page(80, 60), FIT.page(140, 62), FIT.page(120, 100)]
    press(page, "x")
    for point in (*hole[:2], FIT.page(300, 200)):
        page.mouse.click(*point)
    press(page, "Backspace")
    for point in (hole[2], hole[0]):
        page.mouse.click(*point)
    expected &= ~inside(WIDTH, HEIGHT, at(hole))
    page.mouse.click(*hole[0])
    press(page, "Escape", "Enter", "x")
    assert page.locator("#guide polygon").count() == 0
    press(page, "r")
    one, other = FIT.page(251.3, 190.6), FIT.page(240.4, 33.2)
    drag(page, [one, other])
    (x1, y1), (x0, y0) = at([one, other])
    xs, ys = centers(WIDTH, HEIGHT)
    expected |= (x0 <= xs) & (xs < x1) & (y0 <= ys) & (ys < y1)
    saved(page)
    np.testing.assert_array_equal(server.mask("b.png"), expected)
    assert tools(server, "b.png") == ["polygon", "polygon", "box"]


FINGER = """([kind, id, x, y]) => document.getElementById("stage").dispatchEvent(
  new PointerEvent(kind, {
    bubbles: true, pointerType: "touch", pointerId: id, button: 0, clientX: x, clientY: y,
  })
)"""


def test_pens_and_fingers(page: Page, server: Served) -> None:
    show(page, server, "d.png")
    (a, b), (c, d) = [FIT.page(60, 100), FIT.page(200, 110)], LINE[:2]
    pen(page, [("mouseMoved", a, 0), ("mousePressed", a, 0.25), ("mouseMoved", b, 0.75)])
    pen(page, [("mouseReleased", b, 0)])
    size = brush_size(page, FIT)
    expected = brushed(WIDTH, HEIGHT, at([a, b]), [size * 0.25 / 2, size * 0.75 / 2])
    # A hand beside the pen neither moves nor cancels.
    pen(page, [("mouseMoved", c, 0)])
    page.evaluate(FINGER, ["pointerdown", 71, 700, 500])
    pen(page, [("mousePressed", c, 1)])
    for step in (["pointermove", 71, 710, 520], ["pointerdown", 72, 760, 540]):
        page.evaluate(FINGER, step)
    pen(page, [("mouseMoved", d, 1), ("mouseReleased", d, 0)])
    for step in (["pointerup", 71, 710, 520], ["pointerup", 72, 790, 560]):
        page.evaluate(FINGER, step)
    expected |= line(page, [c, d])
    saved(page)
    np.testing.assert_array_equal(server.mask("d.png"), expected)

    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y, "id": at_} for at_, (x, y) in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    def pinch() -> None:
        touch("touchStart", (500, 300))
        touch("touchStart", (500, 300), (600, 300))
        touch("touchMove", (450, 300), (650, 300))
        touch("touchEnd")

    # One finger draws; two move and zoom, leave a polygon as it is, and are no click of the wand.
    show(page, server, "e.png")
    touch("touchStart", LINE[0])
    touch("touchMove", LINE[1])
    touch("touchEnd")
    expected = line(page, LINE[:2])
    saved(page)
    before = canvas(page)
    pinch()
    assert canvas(page) != before
    press(page, "f")
    assert canvas(page) == before
    press(page, "p")
    for corner in CORNERS:
        touch("touchStart", corner)
        touch("touchEnd")
    pinch()
    assert page.locator("#guide circle").count() == len(CORNERS)
    press(page, "f", "Enter", "w")
    pinch()
    saved(page)
    expected |= inside(WIDTH, HEIGHT, at(CORNERS))
    np.testing.assert_array_equal(server.mask("e.png"), expected)
    assert tools(server, "e.png") == ["brush", "polygon"]


def test_moving_the_view_draws_nothing_and_the_next_stroke_is_where_it_is_seen(
    page: Page, server: Served
) -> None:
    show(page, server, "g.png")
    # After a click beside the image, the space bar moves it.
    page.locator("#size").click()
    page.keyboard.down("Space")
    drag(page, [(600, 300), (650, 340)])
    page.keyboard.up("Space")
    press(page, "f", *["["] * 30)
    # The wheel keeps the point under the pointer: a dot there is where it was before.
    point = FIT.page(100, 80)
    page.mouse.move(*point)
    page.mouse.wheel(0, -400)
    page.evaluate(DRAWN)
    drag(page, [point])
    saved(page)
    expected = line(page, [point], zoom=np.exp(0.5))
    np.testing.assert_array_equal(server.mask("g.png"), expected)
    page.keyboard.down("Space")
    drag(page, [(600, 400), (650, 430)])
    page.keyboard.up("Space")
    drag(page, [(600, 400), (580, 410)], button="middle")
    drag(page, [(point[0] + 30, point[1] + 40)])
    saved(page)
    np.testing.assert_array_equal(server.mask("g.png"), expected)  # the same dot once more
    assert tools(server, "g.png") == ["brush", "brush"]


def test_undo_and_redo_by_stroke_also_after_a_reload(page: Page, server: Served) -> None:
    show(page, server, "h.png")
    states, pictures = [server.mask("h.png")], [canvas(page)]
    lines = [LINE, [FIT.page(80, 70), FIT.page(250, 75)], [FIT.page(150, 40), FIT.page(160, 200)]]
    for keys, points in zip((["b"], ["e"], ["b"]), lines, strict=True):
        press(page, *keys)
        drag(page, points)
        saved(page)
        page.mouse.move(1200, 500)
        states.append(server.mask("h.png"))
        pictures.append(canvas(page))
    assert len({mask.tobytes() for mask in states}) == 4

    def turn(key: str, number: int) -> None:
        press(page, key)
        saved(page)
        np.testing.assert_array_equal(server.mask("h.png"), states[number])
        assert canvas(page) == pictures[number]

    def reload() -> None:
        page.reload()
        page.wait_for_selector(SHOWN)

    turn("Control+z", 2)
    turn("Control+z", 1)
    reload()
    assert canvas(page) == pictures[1]
    turn("Control+Shift+z", 2)
    turn("Control+y", 3)
    assert page.locator("[data-do=redo]").is_disabled()
    for number in (2, 1, 0):
        turn("Control+z", number)
    assert page.locator("[data-do=undo]").is_disabled()
    reload()
    turn("Control+y", 1)
    # A new stroke ends what could be redone, here and on the server.
    drag(page, lines[2])
    saved(page)
    assert page.locator("[data-do=redo]").is_disabled()
    reload()
    assert page.locator("[data-do=redo]").is_disabled()
    press(page, "Control+z", "2")
    saved(page)
    np.testing.assert_array_equal(server.mask("h.png"), states[1])
    reload()  # what is chosen for an answer stays, too
    assert page.locator("#name").inner_text() == "h.png"
    assert page.locator("[data-label='1']").get_attribute("aria-pressed") == "true"


def test_an_image_that_is_sent_reduced_is_marked_to_the_pixel(
    page: Page, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preceptor.label.sources.WHOLE", 2_000_000)
    show(page, server, "large-0.png")
    fit = Fit(2600, 2000)
    points = [fit.page(500, 500), fit.page(1900, 1400)]
    drag(page, points)
    saved(page)
    radius = brush_size(page, fit) / 2
    expected = brushed(2600, 2000, [fit.image(*one) for one in points], [radius] * 2)
    np.testing.assert_array_equal(server.mask("large-0.png"), expected)


def test_a_stroke_under_the_mouse_is_part_of_the_answer(page: Page, server: Served) -> None:
    show(page, server, "j.png")
    press(page, "b", "1")
    drag(page, LINE)
    press(page, "r")
    page.mouse.move(*CORNERS[0])
    page.mouse.down()
    page.mouse.move(*CORNERS[2], steps=3)
    leave(page, "n")
    page.mouse.up()
    assert server.strokes("j.png") == [("brush", 0), ("box", 0)]
    x, y = map(int, FIT.image(*CORNERS[2]))
    assert server.mask("j.png")[y - 2, x - 2]


def test_an_open_polygon_is_thrown_away_by_escape_alone(page: Page, server: Served) -> None:
    show(page, server, "l.png")
    press(page, "p", "1")
    for corner in CORNERS:
        page.mouse.click(*corner)
    for key in ("ArrowLeft", "b", "x", "n", "c"):
        page.evaluate("document.getElementById('toast').textContent = ''")
        press(page, key)
        assert toast(page) == "The polygon is open. Enter closes it, Esc cancels it.", key
    press(page, "Enter")
    saved(page)
    assert server.strokes("l.png") == [("polygon", 0)]
    for corner in CORNERS:
        page.mouse.click(*corner)
    press(page, "Escape")
    assert page.locator("#guide polygon").count() == 0
    # A stroke of the cursor is part of it when another tool is chosen, or the answer is given.
    for keys in (["b", "k", "Space", "ArrowRight", "b"], ["Space", "Shift+ArrowRight"]):
        press(page, *keys)
    leave(page, "n")
    strokes = [("polygon", 0), ("brush", 0), ("brush", 0)]
    assert server.strokes("l.png") == strokes


ACTIONS = """async (keys) => {
  const { actionOf } = await import("/static/keys.js");
  const action = ([key, code, modifiers]) =>
    actionOf(new KeyboardEvent("keydown", { key, code, ...modifiers }));
  return keys.map((key) => action(key));
}"""
KEYS: dict[tuple[str, ...], list[object] | None] = {
    # A number pad without Num Lock.
    ("Insert", "Numpad0"): None,
    ("ArrowLeft", "Numpad4"): ["previous"],
    ("1", "Numpad1"): ["label", 0],
    ("0", "Numpad0"): ["nothing"],
    # Cyrillic and Greek letters.
    ("т", "KeyN"): ["next"],
    ("Т", "KeyN", "shiftKey"): ["previous"],
    ("я", "KeyZ", "ctrlKey"): ["undo"],
    ("х", "BracketLeft"): ["smaller"],
    ("β", "KeyB"): ["brush"],
    # French: digits need Shift.
    ("-", "Digit6"): ["farther"],
    ("&", "Digit1"): ["label", 0],
    ("à", "Digit0"): ["nothing"],
    ("1", "Digit1", "shiftKey"): ["label", 0],
    ("q", "KeyA"): None,
    # Bépo: a Latin letter has no other meaning.
    ("é", "KeyW"): None,
    ("n", "Semicolon"): ["next"],
    # American.
    ("!", "Digit1", "shiftKey"): None,
    ("N", "KeyN", "shiftKey"): ["previous"],
    ("?", "Slash", "shiftKey"): ["help"],
    # Swiss, Czech and Arabic: the key of a digit, and one of two letters.
    ("+", "Digit1", "shiftKey"): ["closer"],
    ("+", "Digit1"): ["label", 0],
    ("\u0644\u0627", "KeyB"): ["brush"],
    # Brackets that need AltGr or Option.
    ("[", "Digit8", "modifierAltGraph", "ctrlKey", "altKey"): ["smaller"],
    ("]", "Digit9", "altKey"): ["larger"],
}


def test_keys_of_other_keyboards(page: Page, server: Served) -> None:
    show(page, server, "m.png")
    keys = [[key, code, dict.fromkeys(more, True)] for key, code, *more in KEYS]
    assert dict(zip(KEYS, page.evaluate(ACTIONS, keys), strict=True)) == KEYS
