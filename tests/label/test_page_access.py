"""The page by keyboard alone, by touch, for assistive technology, and in every size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from preceptor.label import app
from preceptor.report.palette import DARK, LIGHT
from tests.browsers import check_rules
from tests.label.pages import (
    DRAWN,
    SHOWN,
    Fit,
    Served,
    brush_size,
    brushed,
    canvas,
    drag,
    inside,
    opened,
    saved,
    served,
    show,
    sign_in,
    toast,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 320, 240
FIT = Fit(WIDTH, HEIGHT)
SIZES = {
    "desk": ([(1280, 720), (1920, 1080), (3840, 2160)], 1),
    "tablet": ([(1180, 820), (820, 1180)], 2),
}
"""Windows and screen pixels to a CSS pixel: desks up to 4K, and a tablet on either side."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("access")
    # Each test has a person of its own, and images are handed out to one person at a time.
    sizes = {f"image-{n}.png": (WIDTH, HEIGHT) for n in range(60)}
    images = write_images(folder / "images", sizes)
    whole = (images / "image-0.png").read_bytes()
    (images / "torn.png").write_bytes(whole[: len(whole) // 2])
    with served(images, folder, classes=("iris", "lid"), labels=("real", "fake")) as one:
        yield one


def strokes(server: Served, name: str) -> list[str]:
    rows = server.ask(
        "SELECT tool FROM strokes JOIN images ON images.id = image WHERE path LIKE ? "
        "ORDER BY number",
        f"%{name}",
    )
    return [row[0] for row in rows]


def walk(page: Page, dx: int, dy: int) -> None:
    """Move the cursor by arrow keys: tens with Shift, and ones."""
    for way, key in ((dx, "Right" if dx > 0 else "Left"), (dy, "Down" if dy > 0 else "Up")):
        for _ in range(abs(way) // 10):
            page.keyboard.press(f"Shift+Arrow{key}")
        for _ in range(abs(way) % 10):
            page.keyboard.press(f"Arrow{key}")


def test_an_image_is_marked_and_answered_by_keyboard_alone(
    browser: Browser, server: Served
) -> None:
    with opened(browser, server, None) as page:
        # The name, too: the field has the focus.
        page.wait_for_selector("#person")
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        page.wait_for_selector(SHOWN)
        name = page.locator("#name").inner_text()
        middle = (WIDTH // 2 + 0.5, HEIGHT // 2 + 0.5)

        page.keyboard.press("k")
        assert page.locator("#guide path").count() == 2
        page.keyboard.press("Space")
        walk(page, 23, -11)
        page.keyboard.press("Space")
        saved(page)
        points = [middle, (middle[0] + 23, middle[1]), (middle[0] + 23, middle[1] - 11)]
        expected = brushed(WIDTH, HEIGHT, points, [brush_size(page) / 2] * 3)
        np.testing.assert_array_equal(server.mask(name), expected)

        page.keyboard.press("p")
        corners = []
        place = points[-1]
        for dx, dy in ((-60, -40), (40, 5), (-10, 50)):
            walk(page, dx, dy)
            place = (place[0] + dx, place[1] + dy)
            corners.append(place)
            page.keyboard.press("Space")
        page.keyboard.press("Enter")
        saved(page)
        expected |= inside(WIDTH, HEIGHT, corners)
        np.testing.assert_array_equal(server.mask(name), expected)

        page.keyboard.press("r")
        page.keyboard.press("x")
        page.keyboard.press("Space")
        walk(page, 30, 20)
        page.keyboard.press("Space")
        saved(page)
        xs, ys = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        x, y = place  # the pixels in both corners are within the box
        expected &= ~((x <= xs) & (xs <= x + 30) & (y <= ys) & (ys <= y + 20))
        np.testing.assert_array_equal(server.mask(name), expected)

        page.keyboard.press("x")
        page.keyboard.press("w")
        page.keyboard.press("Space")
        saved(page)
        assert strokes(server, name) == ["brush", "polygon", "box", "wand"]
        page.keyboard.press("Control+z")
        page.keyboard.press("2")
        page.keyboard.press("Shift+Digit1")
        page.keyboard.press("n")
        page.wait_for_function(
            "(name) => document.getElementById('name').textContent !== name", arg=name
        )
        saved(page)
        np.testing.assert_array_equal(server.mask(name), expected)
        assert server.ask("SELECT state, label, certainty FROM answers") == [("marked", "fake", 1)]
        assert page.locator("#guide path").count() == 0


@pytest.mark.parametrize(("tool", "image"), [("r", "image-50.png"), ("p", "image-51.png")])
def test_the_cursor_reaches_the_last_pixels(
    browser: Browser, server: Served, tool: str, image: str
) -> None:
    corners = (
        [(WIDTH, HEIGHT), (-30, -20)] if tool == "r" else [(WIDTH, HEIGHT), (0, -20), (-30, 0)]
    )
    with opened(browser, server, f"Ada {tool}", image) as page:
        page.keyboard.press(tool)
        page.keyboard.press("k")
        for dx, dy in corners:
            walk(page, dx, dy)
            page.keyboard.press("Space")
        if tool == "p":
            walk(page, 0, HEIGHT)
            page.keyboard.press("Space")
            page.keyboard.press("Enter")
        saved(page)
        found = server.mask(image, f"Ada {tool}")
    ys, xs = np.nonzero(found)
    assert (xs.max(), ys.max()) == (WIDTH - 1, HEIGHT - 1)
    assert (xs.min(), ys.min()) == (WIDTH - 31, HEIGHT - 21)
    assert found.sum() == 31 * 21


FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {
    name: one === document.body ? "" : one.id || one.dataset.do || one.textContent.trim(),
    seen: style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2,
    inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
}"""


def test_the_tab_key_reaches_everything_and_shows_where_it_is(
    browser: Browser, server: Served
) -> None:
    with opened(browser, server, "Mary", "image-1.png") as page:
        page.keyboard.press("l")
        wanted = page.evaluate(
            """() => [...document.querySelectorAll("button, input, summary, a, [tabindex]")]
              .filter((one) => one.checkVisibility() && !one.disabled)
              .map((one) => one.id || one.dataset.do || one.textContent.trim())"""
        )
        assert {"stage", "brush", "next", "size", "opacity", "to-help", "who"} <= set(wanted)
        reached = []
        for _ in range(len(wanted) + 1):
            page.keyboard.press("Tab")
            focus = page.evaluate(FOCUS)
            if focus["name"] == "":  # after the last one, before the first one
                continue
            assert focus["seen"], focus
            assert focus["inside"], focus
            reached.append(focus["name"])
        assert sorted(reached) == sorted(wanted)
        # On a button, the space bar presses it; on a slider, arrows move it and no image.
        page.locator("[data-do=mark]").focus()
        page.keyboard.press("Space")
        assert page.locator("[data-do=mark]").get_attribute("aria-pressed") == "false"
        page.locator("#opacity").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#opacity-value").inner_text() == "45 %"
        assert page.locator("#name").inner_text() == "image-1.png"


def test_one_finger_draws_and_two_move_and_zoom(browser: Browser, server: Served) -> None:
    with opened(browser, server, "Grace", "image-2.png", has_touch=True) as page:
        touch = page.context.new_cdp_session(page)

        def send(kind: str, *points: tuple[float, float]) -> None:
            fingers = [{"x": x, "y": y, "id": at} for at, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

        line = [FIT.page(60, 60), FIT.page(150, 90)]
        send("touchStart", line[0])
        send("touchMove", line[1])
        send("touchEnd")
        saved(page)
        places = [FIT.image(*one) for one in line]
        expected = brushed(WIDTH, HEIGHT, places, [brush_size(page) / 2] * 2)
        np.testing.assert_array_equal(server.mask("image-2.png", "Grace"), expected)

        before = canvas(page)
        send("touchStart", (500, 300))
        send("touchMove", (510, 320))
        send("touchStart", (510, 320), (700, 320))
        send("touchMove", (450, 320), (760, 320))
        send("touchEnd")
        saved(page)
        assert canvas(page) != before
        assert strokes(server, "image-2.png") == ["brush"]
        page.keyboard.press("f")
        assert canvas(page) == before


def broken_rules(page: Page) -> list[str]:
    """Rules of accessibility that the page breaks, the one of colors in both themes."""
    found = check_rules(page).broken
    page.emulate_media(color_scheme="dark")
    found += check_rules(page, runOnly=["color-contrast"]).broken
    page.emulate_media(color_scheme="light")
    return found


STAY = """() => {
  const { classList } = document.getElementById("toast");
  const stay = () => classList.contains("on") || classList.add("on");
  stay();
  window.staying = new MutationObserver(stay);
  window.staying.observe(document.getElementById("toast"), { attributes: true });
}"""
"""Leave what the page has said in passing, which else goes after a few seconds."""
GO = """() => {
  window.staying.disconnect();
  document.getElementById("toast").classList.remove("on");
}"""


def test_no_rule_of_accessibility_is_broken(browser: Browser, server: Served) -> None:
    shown: dict[str, list[str]] = {}
    # A color that fades is no color to judge.
    how = {"may_say": "status of 4(09|22)", "reduced_motion": "reduce"}
    with opened(browser, server, None, **how) as page:
        page.wait_for_selector("#person")
        shown["sign-in"] = broken_rules(page)
        sign_in(page, "Edith")
        drag(page, [FIT.page(60, 60), FIT.page(150, 90)])
        page.keyboard.press("Control+z")
        saved(page)
        page.keyboard.press("l")
        page.keyboard.press("n")
        assert "Nothing is marked" in toast(page)
        page.evaluate(STAY)
        page.wait_for_function(
            "() => getComputedStyle(document.getElementById('toast')).opacity === '1'"
        )
        shown["marking"] = broken_rules(page)
        page.evaluate(GO)
        page.keyboard.press("?")
        shown["keys"] = broken_rules(page)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Progress").click()
        page.get_by_role("heading", name="Agreement of two people").wait_for()
        shown["lead"] = broken_rules(page)
        page.get_by_role("button", name="Back to the image").click()
        show(page, server, "torn.png")
        page.get_by_text("This image cannot be shown.").wait_for()
        shown["damaged"] = broken_rules(page)
    with opened(browser, server, None, may_say="status of 403") as page:
        page.context.clear_cookies()
        page.goto(server.place())
        assert page.locator("main").count() == 1
        shown["no way in"] = broken_rules(page)
    assert {key: value for key, value in shown.items() if value} == {}
    assert len(shown) == 6


@pytest.mark.parametrize("device", SIZES)
def test_it_fits_every_window(browser: Browser, server: Served, device: str) -> None:
    sizes, factor = SIZES[device]
    first, *_ = views = [{"width": width, "height": height} for width, height in sizes]
    how = {"viewport": first, "device_scale_factor": factor, "image": "image-4.png"}
    with opened(browser, server, device, **how) as page:
        for view in views:
            page.set_viewport_size(view)
            assert_fits(page, view["width"], view["height"])


def assert_fits(page: Page, width: int, height: int) -> None:
    """The page fills its window, and a dot is drawn where it is clicked."""
    page.wait_for_function(
        """() => {
          const { width, clientWidth } = document.getElementById("marks");
          return width === Math.round(clientWidth * devicePixelRatio);
        }"""
    )
    size = page.evaluate(
        "() => { const one = document.documentElement;"
        " return [one.scrollWidth, one.clientWidth, one.scrollHeight, one.clientHeight]; }"
    )
    assert size == [width, width, height, height]
    # Whatever is needed for each image is in sight, and the image has most of the room.
    for action in ("brush", "wand", "undo", "cursor", "next", "nothing", "skip"):
        box = page.locator(f"[data-do={action}]").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert page.locator(f"[data-do={action}]").is_visible()
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["width"] * stage["height"] > 0.55 * width * height
    # A dot is drawn where it is clicked, whatever the number of pixels of the screen.
    page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.mouse.move(2, 2)
    page.evaluate(DRAWN)
    color = """() => {
      const canvas = document.getElementById("marks");
      const [x, y] = [Math.floor(canvas.width / 2), Math.floor(canvas.height / 2)];
      return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    }"""
    assert page.evaluate(color)[3] > 0
    page.keyboard.press("Control+z")
    saved(page)
    page.evaluate(DRAWN)
    assert page.evaluate(color)[3] == 0


def test_colors_are_those_of_the_report() -> None:
    text = (app.PAGE / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root[^{]*\{\s*color-scheme: (light|dark);([^}]*)\}", text)
    assert [kind for kind, _ in blocks] == ["light", "dark", "dark"]
    for kind, block in blocks:
        own = dict(re.findall(r"--([\w-]+): ([^;]+);", block))
        palette = LIGHT if kind == "light" else DARK
        shared = (own.keys() & palette.keys()) - {"shade"}
        assert len(shared) > 8
        assert {name: own[name] for name in shared} == {name: palette[name] for name in shared}


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code() -> None:
    files = sorted(Path(app.PAGE).iterdir())
    assert len(files) > 15
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), file.name
        if file.suffix == ".html":
            assert not re.findall(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", text)
        assert "innerHTML" not in text
        assert "eval(" not in text


@pytest.mark.parametrize("width", [390, 700])
def test_the_head_of_a_narrow_page_overlaps_nowhere(
    browser: Browser, server: Served, width: int
) -> None:
    how = {"viewport": {"width": width, "height": 800}, "image": f"image-{40 + width % 7}.png"}
    with opened(browser, server, f"Ada Lovelace {width}", **how) as page:
        before = page.get_attribute("body", "data-image")
        page.keyboard.press("1")
        page.keyboard.press("0")
        page.wait_for_function("(id) => document.body.dataset.image !== id", arg=before)
        page.keyboard.press("ArrowLeft")
        page.get_by_text("Nothing to mark", exact=True).first.wait_for()
        places = page.evaluate(
            "() => ['about', 'progress', 'save', 'to-lead', 'who', 'to-help'].map((id) => {"
            " const one = document.getElementById(id);"
            " const { left, right } = one.getBoundingClientRect();"
            " return [left, right, getComputedStyle(one).overflow]; })"
        )
        assert places[0][2] == "hidden"  # what does not fit is cut off
        ends = [end for left, right, _ in places for end in (left, right)]
        assert ends == sorted(ends)
        assert ends[-1] <= width
