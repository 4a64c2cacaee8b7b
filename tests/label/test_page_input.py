"""Keyboards of other countries, sliders, pens and fingers on the page, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.label.pages import (
    Fit,
    Served,
    brush_size,
    brushed,
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
    from playwright.sync_api import Browser, CDPSession, Page

WIDTH, HEIGHT = 320, 240
FIT = Fit(WIDTH, HEIGHT)
NAMES = [f"{name}.png" for name in "abcdefgh"]
LINE = [FIT.page(60, 60), FIT.page(150, 90)]
CORNERS = [FIT.page(50, 40), FIT.page(200, 60), FIT.page(90, 120)]
LABELS = tuple(f"label {n}" for n in range(9))
PRESS = """(key) => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { bubbles: true, cancelable: true, ...key })
)"""
FINGER = """([kind, id, x, y]) => document.getElementById("stage").dispatchEvent(
  new PointerEvent(kind, {
    bubbles: true, pointerType: "touch", pointerId: id, button: 0, clientX: x, clientY: y,
  })
)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("input")
    images = write_images(folder / "images", dict.fromkeys(NAMES, (WIDTH, HEIGHT)))
    with served(images, folder, labels=LABELS) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server, image=None, has_touch=True) as found:
        yield found


def tools(server: Served, name: str) -> list[str]:
    rows = server.ask(
        "SELECT tool FROM strokes JOIN images ON images.id = image WHERE path LIKE ? "
        "ORDER BY number",
        f"%{name}",
    )
    return [row[0] for row in rows]


def touch(fingers: CDPSession, kind: str, *points: tuple[float, float]) -> None:
    places = [{"x": x, "y": y, "id": at} for at, (x, y) in enumerate(points)]
    fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


def pinch(fingers: CDPSession) -> None:
    """Two fingers that come down one after the other, and move apart."""
    touch(fingers, "touchStart", (500, 300))
    touch(fingers, "touchStart", (500, 300), (600, 300))
    touch(fingers, "touchMove", (450, 300), (650, 300))
    touch(fingers, "touchEnd")


@pytest.mark.parametrize(
    "how",
    [{"modifierAltGraph": True, "ctrlKey": True, "altKey": True}, {"altKey": True}],
    ids=["AltGr", "Option"],
)
def test_brackets_that_need_a_modifier_change_the_size(
    page: Page, server: Served, how: dict[str, bool]
) -> None:
    show(page, server, "a.png")
    before = brush_size(page)
    page.evaluate(PRESS, {"key": "[", "code": "Digit8", **how})
    smaller = brush_size(page)
    assert smaller < before
    page.evaluate(PRESS, {"key": "]", "code": "Digit9", **how})
    assert brush_size(page) > smaller
    assert page.locator("#labels [aria-pressed=true]").count() == 0


@pytest.mark.parametrize("used", ["#size", "#light summary"])
def test_the_space_bar_moves_the_image_after_a_click_beside_it(
    page: Page, server: Served, used: str
) -> None:
    show(page, server, "b.png")
    page.locator(used).click()
    is_open = page.locator("#light").get_attribute("open")
    page.keyboard.down("Space")
    drag(page, [(600, 300), (650, 340)])
    page.keyboard.up("Space")
    assert page.locator("#light").get_attribute("open") == is_open
    saved(page)
    assert tools(server, "b.png") == []


def test_a_hand_beside_the_pen_neither_moves_nor_cancels(page: Page, server: Served) -> None:
    show(page, server, "c.png")
    pen = page.context.new_cdp_session(page)

    def send(kind: str, point: tuple[float, float], force: float) -> None:
        pen.send(
            "Input.dispatchMouseEvent",
            {
                "type": kind,
                "x": point[0],
                "y": point[1],
                "button": "left",
                "clickCount": 1,
                "buttons": int(force > 0),
                "pointerType": "pen",
                "force": force,
            },
        )

    send("mouseMoved", LINE[0], 0)
    page.evaluate(FINGER, ["pointerdown", 71, 700, 500])
    send("mousePressed", LINE[0], 1)
    page.evaluate(FINGER, ["pointermove", 71, 710, 520])
    page.evaluate(FINGER, ["pointerdown", 72, 760, 540])
    page.evaluate(FINGER, ["pointermove", 72, 790, 560])
    send("mouseMoved", LINE[1], 1)
    send("mouseReleased", LINE[1], 0)
    page.evaluate(FINGER, ["pointerup", 71, 710, 520])
    page.evaluate(FINGER, ["pointerup", 72, 790, 560])
    saved(page)
    places = [FIT.image(*one) for one in LINE]
    expected = brushed(WIDTH, HEIGHT, places, [brush_size(page) / 2] * 2)
    np.testing.assert_array_equal(server.mask("c.png"), expected)


def test_two_fingers_leave_a_polygon_as_it_is(page: Page, server: Served) -> None:
    show(page, server, "d.png")
    fingers = page.context.new_cdp_session(page)
    page.keyboard.press("p")
    for corner in CORNERS:
        touch(fingers, "touchStart", corner)
        touch(fingers, "touchEnd")
    pinch(fingers)
    assert page.locator("#guide circle").count() == len(CORNERS)
    page.keyboard.press("Enter")
    saved(page)
    expected = inside(WIDTH, HEIGHT, [FIT.image(*one) for one in CORNERS])
    np.testing.assert_array_equal(server.mask("d.png"), expected)


def test_two_fingers_are_no_click_of_the_wand(page: Page, server: Served) -> None:
    show(page, server, "e.png")
    fingers = page.context.new_cdp_session(page)
    page.keyboard.press("w")
    pinch(fingers)
    page.keyboard.press("f")
    saved(page)
    assert tools(server, "e.png") == []
    touch(fingers, "touchStart", FIT.page(112, 120))
    touch(fingers, "touchEnd")
    page.wait_for_function("() => !document.querySelector('[data-do=undo]').disabled")
    saved(page)
    assert tools(server, "e.png") == ["wand"]


def test_an_open_polygon_is_no_answer(page: Page, server: Served) -> None:
    show(page, server, "f.png")
    drag(page, LINE)
    page.keyboard.press("p")
    for corner in CORNERS:
        page.mouse.click(*corner)
    page.keyboard.press("1")
    page.keyboard.press("n")
    assert "polygon" in toast(page)
    page.keyboard.press("Enter")
    saved(page)
    assert tools(server, "f.png") == ["brush", "polygon"]
    assert not server.ask("SELECT 1 FROM answers")


ACTIONS = """async (keys) => {
  const { actionOf } = await import("/static/keys.js");
  const action = ([key, code, modifiers = {}]) =>
    actionOf(new KeyboardEvent("keydown", { key, code, ...modifiers }));
  return keys.map((key) => action(key));
}"""


def test_keys_of_other_keyboards(page: Page, server: Served) -> None:
    show(page, server, "a.png")
    shift, ctrl = {"shiftKey": True}, {"ctrlKey": True}
    keys = {
        # A number pad without Num Lock.
        ("Insert", "Numpad0"): None,
        ("End", "Numpad1"): None,
        ("ArrowLeft", "Numpad4"): ["previous"],
        ("1", "Numpad1"): ["label", 0],
        ("0", "Numpad0"): ["nothing"],
        # Cyrillic and Greek letters.
        ("т", "KeyN"): ["next"],
        ("Т", "KeyN", "shift"): ["previous"],
        ("я", "KeyZ", "ctrl"): ["undo"],
        ("х", "BracketLeft"): ["smaller"],
        ("β", "KeyB"): ["brush"],
        # French: digits need Shift.
        ("-", "Digit6"): ["farther"],
        ("&", "Digit1"): ["label", 0],
        ("à", "Digit0"): ["nothing"],
        ("1", "Digit1", "shift"): ["certainty", 1],
        ("q", "KeyA"): None,
        # Bépo: a Latin letter has no other meaning.
        ("é", "KeyW"): None,
        ("n", "Semicolon"): ["next"],
        # American.
        ("1", "Digit1"): ["label", 0],
        ("!", "Digit1", "shift"): ["certainty", 1],
        ("N", "KeyN", "shift"): ["previous"],
        ("?", "Slash", "shift"): ["help"],
    }
    given = [
        [key, code, {"shift": shift, "ctrl": ctrl}[more[0]] if more else {}]
        for key, code, *more in keys
    ]
    found = page.evaluate(ACTIONS, given)
    assert dict(zip(keys, found, strict=True)) == keys


def test_an_answer_with_marks_does_not_stay_without_them(page: Page, server: Served) -> None:
    show(page, server, "g.png")
    drag(page, LINE)
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.wait_for_function("() => document.getElementById('name').textContent !== 'g.png'")
    show(page, server, "g.png")
    page.keyboard.press("Control+z")
    page.keyboard.press("n")
    assert "Nothing is marked" in toast(page)
    page.keyboard.press("0")
    page.wait_for_function("() => document.getElementById('name').textContent !== 'g.png'")
    saved(page)
    assert server.ask("SELECT state FROM answers") == [("nothing",)]


OTHER_PERSON = """async () => {
  const { Outbox } = await import("/static/outbox.js");
  const sent = [];
  let answer = () => {};
  const outbox = new Outbox({
    tab: "other",
    send: ({ person }) => new Promise((done) => { sent.push(person); answer = done; }),
    changed: () => {}, refused: () => "drop", saved: () => {},
  });
  await outbox.open("server", "first", []);
  outbox.add({ kind: "seen", image: 1 });
  await outbox.open("server", "second", []);
  answer();
  outbox.add({ kind: "stroke", image: 1 });
  for (let n = 0; n < 500 && outbox.entries.length > 0; n += 1) {
    answer();
    await new Promise((done) => setTimeout(done, 10));
  }
  return [sent, outbox.entries.length];
}"""
"""Sign in another person while a change of the first one is on its way; who sent, what waits."""


def test_what_another_person_draws_is_sent_after_a_change_of_the_first(
    page: Page, server: Served
) -> None:
    show(page, server, "h.png")
    assert page.evaluate(OTHER_PERSON) == [["first", "second"], 0]
