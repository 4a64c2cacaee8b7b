"""The page by keyboard alone, for assistive technology, and in every size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.browsers import check_rules
from tests.label.pages import (
    DRAWN,
    SHOWN,
    Fit,
    Served,
    brush_size,
    brushed,
    centers,
    drag,
    inside,
    leave,
    name,
    opened,
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
    with served(images, folder, labels=("real", "fake")) as one:
        yield one


def walk(page: Page, dx: int, dy: int) -> None:
    """Move the cursor by arrow keys: tens with Shift, and ones."""
    for way, key in ((dx, "Right" if dx > 0 else "Left"), (dy, "Down" if dy > 0 else "Up")):
        press(page, *[f"Shift+Arrow{key}"] * (abs(way) // 10), *[f"Arrow{key}"] * (abs(way) % 10))


def test_an_image_is_marked_and_answered_by_keyboard_alone(
    browser: Browser, server: Served
) -> None:
    with opened(browser, server, None) as page:
        # The name, too: the field has the focus.
        page.wait_for_selector("#person")
        page.keyboard.type("Ada")
        press(page, "Enter")
        page.wait_for_selector(SHOWN)
        image = name(page)
        x, y = WIDTH // 2 + 0.5, HEIGHT // 2 + 0.5
        press(page, "k")
        assert page.locator("#guide path").count() == 2
        press(page, "Space")
        walk(page, 23, -11)
        press(page, "Space")
        points = [(x, y), (x + 23, y), (x + 23, y - 11)]
        expected = brushed(WIDTH, HEIGHT, points, [brush_size(page, FIT) / 2] * 3)

        press(page, "p")
        corners, place = [], points[-1]
        for dx, dy in ((-60, -40), (40, 5), (-10, 50)):
            walk(page, dx, dy)
            place = (place[0] + dx, place[1] + dy)
            corners.append(place)
            press(page, "Space")
        press(page, "Enter")
        expected |= inside(WIDTH, HEIGHT, corners)

        press(page, "r", "x", "Space")
        walk(page, 30, 20)
        press(page, "Space")
        xs, ys = centers(WIDTH, HEIGHT)
        x, y = place  # the pixels in both corners are within the box
        expected &= ~((x <= xs) & (xs <= x + 30) & (y <= ys) & (ys <= y + 20))

        # The cursor reaches the last pixels.
        press(page, "x")
        walk(page, WIDTH, HEIGHT)
        press(page, "Space")
        walk(page, -30, -20)
        press(page, "Space")
        expected[-21:, -31:] = True
        saved(page)
        np.testing.assert_array_equal(server.mask(image), expected)

        press(page, "w", "Space", "]", "Space")
        saved(page)
        tools = [tool for tool, _ in server.strokes(image)]
        assert tools == ["brush", "polygon", "box", "box", "wand"]
        press(page, "Control+z", "2")
        leave(page, "n")
        np.testing.assert_array_equal(server.mask(image), expected)
        assert server.ask("SELECT state, label FROM answers") == [("marked", "fake")]
        assert page.locator("#guide path").count() == 0


FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {
    name: one === document.body ? ""
      : one.id || one.dataset.do || one.ariaLabel || one.textContent.trim(),
    seen: style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2,
    inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
}"""


def test_the_tab_key_reaches_everything_and_shows_where_it_is(
    browser: Browser, server: Served
) -> None:
    with opened(browser, server, "Mary", "image-1.png") as page:
        press(page, "l")
        wanted = page.evaluate(
            """() => [...document.querySelectorAll("button, input, summary, a, [tabindex]")]
              .filter((one) => one.checkVisibility() && !one.disabled)
              .map((one) => one.id || one.dataset.do || one.ariaLabel || one.textContent.trim())"""
        )
        assert {"stage", "brush", "next", "size", "opacity", "to-help", "who"} <= set(wanted)
        reached = []
        for _ in range(len(wanted) + 1):
            press(page, "Tab")
            focus = page.evaluate(FOCUS)
            if focus["name"] == "":  # after the last one, before the first one
                continue
            assert focus["seen"], focus
            assert focus["inside"], focus
            reached.append(focus["name"])
        assert sorted(reached) == sorted(wanted)
        # On a button, the space bar presses it; on a slider, arrows move it and no image.
        page.locator("[data-do=mark]").focus()
        press(page, "Space")
        assert page.locator("[data-do=mark]").get_attribute("aria-pressed") == "false"
        page.locator("#opacity").focus()
        press(page, "ArrowRight")
        assert page.locator("#opacity-value").inner_text() == "45 %"
        assert name(page) == "image-1.png"


def broken_rules(page: Page) -> list[str]:
    """Rules of accessibility that the page breaks, the one of colors in both themes."""
    broken = check_rules(page).broken
    page.emulate_media(color_scheme="dark")
    broken += check_rules(page, runOnly=["color-contrast"]).broken
    page.emulate_media(color_scheme="light")
    return broken


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
    broken: dict[str, list[str]] = {}
    # A color that fades is no color to judge.
    how = {"may_say": "status of 4(09|22)", "reduced_motion": "reduce"}
    with opened(browser, server, None, **how) as page:
        page.wait_for_selector("#person")
        broken["sign-in"] = broken_rules(page)
        sign_in(page, "Edith")
        drag(page, [FIT.page(60, 60), FIT.page(150, 90)])
        press(page, "Control+z")
        saved(page)
        press(page, "l", "n")
        assert "Nothing is marked" in toast(page)
        page.evaluate(STAY)
        page.wait_for_function(
            "() => getComputedStyle(document.getElementById('toast')).opacity === '1'"
        )
        broken["marking"] = broken_rules(page)
        page.evaluate(GO)
        press(page, "?")
        broken["keys"] = broken_rules(page)
        press(page, "Escape")
        press(page, "g")
        page.locator(".cell img").first.wait_for()
        broken["grid"] = broken_rules(page)
        page.get_by_role("button", name="Back to the image").click()
        show(page, server, "torn.png")
        page.get_by_text("This image cannot be shown.").wait_for()
        broken["damaged"] = broken_rules(page)
    with opened(browser, server, None, may_say="status of 403") as page:
        page.context.clear_cookies()
        page.goto(server.place())
        assert page.locator("main").count() == 1
        broken["no way in"] = broken_rules(page)
    assert [*broken.values()] == [[]] * 6, broken


def test_keys_without_ctrl_can_be_turned_off(browser: Browser, server: Served) -> None:
    with opened(browser, server) as page:
        image = name(page)
        page.locator("#light summary").click()
        page.locator("#letters").click()
        page.get_by_role("button", name="Keys: off").wait_for()
        press(page, "c")
        assert name(page) == image
        page.locator("#letters").click()
        press(page, "c")
        page.wait_for_function(
            "(name) => document.getElementById('name').textContent !== name", arg=image
        )


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
    for action in ("brush", "wand", "undo", "cursor", "next", "nothing", "cannot"):
        box = page.locator(f"[data-do={action}]").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["width"] * stage["height"] > 0.55 * width * height
    # A dot is drawn where it is clicked, whatever the number of pixels of the screen.
    page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.mouse.move(2, 2)
    color = """() => {
      const canvas = document.getElementById("marks");
      const [x, y] = [Math.floor(canvas.width / 2), Math.floor(canvas.height / 2)];
      return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    }"""
    page.evaluate(DRAWN)
    assert page.evaluate(color)[3] > 0
    press(page, "Control+z")
    saved(page)
    page.evaluate(DRAWN)
    assert page.evaluate(color)[3] == 0
