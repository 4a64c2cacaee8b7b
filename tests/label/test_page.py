"""Marking on the page: tools, undo, reload, view, answers, in a real browser on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.label.pages import (
    BARS,
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
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 320, 240
FIT = Fit(WIDTH, HEIGHT)
NAMES = [f"{name}.png" for name in "abcdefghijklmnop"]
LINE = [FIT.page(60, 60), FIT.page(150, 90), FIT.page(120, 200)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    images = write_images(folder / "images", dict.fromkeys(NAMES, (WIDTH, HEIGHT)))
    write_images(images, {"large-0.png": (2600, 2000)})
    with served(images, folder, classes=("iris", "lid"), labels=("real", "fake")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server, image=None) as found:
        yield found


def at(points: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [FIT.image(*point) for point in points]


def line(page: Page, points: list[tuple[int, int]]) -> np.ndarray:
    """Pixels of a brush line through points of the page."""
    radius = brush_size(page) / 2
    return brushed(WIDTH, HEIGHT, at(points), [radius] * len(points))


def test_the_brush_leaves_exactly_its_pixels(page: Page, server: Served) -> None:
    show(page, server, "a.png")
    drag(page, LINE)
    saved(page)
    expected = line(page, LINE)
    assert expected.sum() > 1000
    np.testing.assert_array_equal(server.mask("a.png"), expected)

    # The eraser takes a piece out of it; so does the right button with the brush.
    erase = [FIT.page(100, 40), FIT.page(110, 110)]
    page.keyboard.press("e")
    page.keyboard.press("[")
    drag(page, erase)
    expected &= ~line(page, erase)
    page.keyboard.press("b")
    page.keyboard.press("]")
    right = [FIT.page(140, 120), FIT.page(130, 170)]
    drag(page, right, button="right")
    expected &= ~line(page, right)
    saved(page)
    np.testing.assert_array_equal(server.mask("a.png"), expected)
    rows = server.ask(
        "SELECT tool, erase, class, seconds >= 0 FROM strokes JOIN images ON images.id = image "
        "WHERE path LIKE '%a.png' ORDER BY number"
    )
    assert rows == [("brush", 0, "iris", 1), ("eraser", 1, "iris", 1), ("eraser", 1, "iris", 1)]


def test_a_thin_brush_and_a_line_beyond_the_image(page: Page, server: Served) -> None:
    show(page, server, "b.png")
    for _ in range(60):
        page.keyboard.press("[")
    assert brush_size(page) == 1
    thin = [FIT.page(30, 30), FIT.page(75, 41)]
    drag(page, thin)
    expected = line(page, thin)
    for _ in range(30):
        page.keyboard.press("]")
    beyond = [FIT.page(300, 200), (990, 640)]
    drag(page, beyond)
    expected |= line(page, beyond)
    saved(page)
    np.testing.assert_array_equal(server.mask("b.png"), expected)


def test_the_polygon_leaves_exactly_its_pixels(page: Page, server: Served) -> None:
    show(page, server, "c.png")
    corners = [FIT.page(50, 40), FIT.page(200, 60), FIT.page(90, 120), FIT.page(210, 200)]
    page.keyboard.press("p")
    for corner in corners:
        page.mouse.click(*corner)
    assert not server.ask(
        "SELECT 1 FROM strokes JOIN images ON images.id = image WHERE path LIKE '%c.png'"
    )
    page.keyboard.press("Enter")
    saved(page)
    expected = inside(WIDTH, HEIGHT, at(corners))
    np.testing.assert_array_equal(server.mask("c.png"), expected)

    # A second one erases, and is closed by a click on its first point; Backspace takes one back.
    hole = [FIT.page(80, 60), FIT.page(140, 62), FIT.page(120, 100)]
    page.keyboard.press("x")
    page.mouse.click(*hole[0])
    page.mouse.click(*hole[1])
    page.mouse.click(*FIT.page(300, 200))
    page.keyboard.press("Backspace")
    page.mouse.click(*hole[2])
    page.mouse.click(*hole[0])
    saved(page)
    expected &= ~inside(WIDTH, HEIGHT, at(hole))
    np.testing.assert_array_equal(server.mask("c.png"), expected)

    page.mouse.click(*hole[0])
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    assert page.locator("#guide polygon").count() == 0
    assert (
        len(
            server.ask(
                "SELECT 1 FROM strokes JOIN images ON images.id = image WHERE path LIKE '%c.png'"
            )
        )
        == 2
    )


def test_the_box_leaves_exactly_its_pixels(page: Page, server: Served) -> None:
    show(page, server, "d.png")
    page.keyboard.press("r")
    one, other = FIT.page(211.3, 150.6), FIT.page(40.4, 33.2)
    drag(page, [one, other])
    saved(page)
    (x1, y1), (x0, y0) = at([one, other])
    xs, ys = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    expected = (x0 <= xs) & (xs < x1) & (y0 <= ys) & (ys < y1)
    np.testing.assert_array_equal(server.mask("d.png"), expected)


def test_the_wand_leaves_exactly_its_pixels(page: Page, server: Served) -> None:
    show(page, server, "e.png")
    ((image,),) = server.ask("SELECT id FROM images WHERE path LIKE '%e.png'")
    answer = page.request.get(f"{server.place()}api/images/{image}/whole")
    pixels = np.asarray(Image.open(BytesIO(answer.body())).convert("RGB")).astype(int)
    page.keyboard.press("w")
    place = FIT.page(112, 120)
    page.mouse.click(*place)
    saved(page)
    x, y = (int(one) for one in FIT.image(*place))
    near = (np.abs(pixels - pixels[y, x]) <= 24).all(axis=2)
    regions, _ = ndimage.label(near)
    expected = regions == regions[y, x]
    assert 0.1 < expected.mean() < 0.3
    np.testing.assert_array_equal(server.mask("e.png"), expected)


def test_a_pens_pressure_sets_the_width(page: Page, server: Served) -> None:
    show(page, server, "f.png")
    pen = page.context.new_cdp_session(page)
    points, pressures = [FIT.page(60, 100), FIT.page(200, 110)], [0.25, 0.75]
    for kind, point, force in (
        ("mouseMoved", points[0], 0.0),
        ("mousePressed", points[0], pressures[0]),
        ("mouseMoved", points[1], pressures[1]),
        ("mouseReleased", points[1], 0.0),
    ):
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
    saved(page)
    size = brush_size(page)
    expected = brushed(WIDTH, HEIGHT, at(points), [size * force / 2 for force in pressures])
    np.testing.assert_array_equal(server.mask("f.png"), expected)


def test_moving_the_view_draws_nothing_and_the_next_stroke_is_where_it_is_seen(
    page: Page, server: Served
) -> None:
    show(page, server, "g.png")
    # The wheel keeps the point under the pointer: a dot there is where it was before.
    point = FIT.page(100, 80)
    page.mouse.move(*point)
    page.mouse.wheel(0, -400)
    page.evaluate(DRAWN)
    for _ in range(30):
        page.keyboard.press("[")
    page.mouse.down()
    page.mouse.up()
    saved(page)
    expected = line(page, [point])
    np.testing.assert_array_equal(server.mask("g.png"), expected)

    def moved(by: tuple[int, int], button: str, key: str | None) -> None:
        if key:
            page.keyboard.down(key)
        page.mouse.move(600, 400)
        page.mouse.down(button=button)  # type: ignore[arg-type]
        page.mouse.move(600 + by[0], 400 + by[1], steps=4)
        page.mouse.up(button=button)  # type: ignore[arg-type]
        if key:
            page.keyboard.up(key)

    moved((50, 30), "left", "Space")
    moved((-20, 10), "middle", None)
    saved(page)
    assert server.mask("g.png").sum() == expected.sum()
    page.mouse.move(point[0] + 30, point[1] + 40)
    page.mouse.down()
    page.mouse.up()
    saved(page)
    np.testing.assert_array_equal(server.mask("g.png"), expected)  # the same dot once more
    assert (
        len(
            server.ask(
                "SELECT 1 FROM strokes JOIN images ON images.id = image WHERE path LIKE '%g.png'"
            )
        )
        == 2
    )


def test_undo_and_redo_by_stroke_also_after_a_reload(page: Page, server: Served) -> None:
    show(page, server, "h.png")
    empty = canvas(page)
    states, pictures = [server.mask("h.png")], [empty]
    lines = [LINE, [FIT.page(80, 70), FIT.page(250, 75)], [FIT.page(150, 40), FIT.page(160, 200)]]
    for at_, points in enumerate(lines):
        page.keyboard.press("e" if at_ == 1 else "b")
        if at_ == 2:
            page.keyboard.press("d")
        drag(page, points)
        saved(page)
        page.mouse.move(1200, 500)
        states.append(server.mask("h.png"))
        pictures.append(canvas(page))
    assert len({mask.tobytes() for mask in states}) == 4

    def press(key: str, number: int) -> None:
        page.keyboard.press(key)
        saved(page)
        np.testing.assert_array_equal(server.mask("h.png"), states[number])
        assert canvas(page) == pictures[number]

    press("Control+z", 2)
    press("Control+z", 1)
    page.reload()
    page.wait_for_selector(SHOWN)
    assert canvas(page) == pictures[1]
    # The class that was chosen is still chosen; redo brings each stroke back with its own.
    assert page.locator("[data-class='1']").get_attribute("aria-pressed") == "true"
    press("Control+Shift+z", 2)
    press("Control+y", 3)
    assert page.locator("[data-do=redo]").is_disabled()
    assert server.mask("h.png", class_="lid").sum() == line(page, lines[2]).sum()
    press("Control+z", 2)
    press("Control+z", 1)
    press("Control+z", 0)
    assert page.locator("[data-do=undo]").is_disabled()
    page.reload()
    page.wait_for_selector(SHOWN)
    press("Control+y", 1)

    # A new stroke ends what could be redone, here and on the server.
    drag(page, lines[2])
    saved(page)
    for _ in range(2):
        assert page.locator("[data-do=redo]").is_disabled()
        page.reload()
        page.wait_for_selector(SHOWN)
    page.keyboard.press("Control+z")
    saved(page)
    np.testing.assert_array_equal(server.mask("h.png"), states[1])


def test_a_reload_shows_exactly_what_was_there(page: Page, server: Served) -> None:
    show(page, server, "i.png")
    drag(page, LINE)
    page.keyboard.press("d")
    drag(page, [FIT.page(40, 150), FIT.page(260, 160)])
    page.keyboard.press("2")
    page.keyboard.press("Shift+Digit3")
    saved(page)
    page.mouse.move(1200, 500)
    before = canvas(page)
    page.reload()
    page.wait_for_selector(SHOWN)
    assert canvas(page) == before
    assert page.locator("#name").inner_text() == "i.png"
    assert page.locator("[data-label='1']").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-certainty='3']").get_attribute("aria-pressed") == "true"


def test_a_large_image_is_drawn_by_tiles_and_marked_to_the_pixel(
    page: Page, server: Served
) -> None:
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    show(page, server, "large-0.png")
    fit = Fit(2600, 2000)
    points = [fit.page(500, 500), fit.page(1900, 1400)]
    drag(page, points)
    saved(page)
    radius = brush_size(page) / 2
    expected = brushed(2600, 2000, [fit.image(*one) for one in points], [radius] * 2)
    np.testing.assert_array_equal(server.mask("large-0.png"), expected)
    assert not any("/tiles/0/" in url for url in asked)
    page.mouse.move(*points[0])
    with page.expect_response(lambda one: "/tiles/0/" in one.url and one.status == 200):
        page.mouse.wheel(0, -3000)
        page.mouse.wheel(0, -3000)
    # The point under the pointer has the color of the image.
    page.wait_for_load_state("networkidle")
    page.evaluate(DRAWN)
    color = page.evaluate(
        "([x, y]) => [...document.getElementById('picture').getContext('2d')"
        ".getImageData(x, y, 1, 1).data]",
        [points[0][0] - BARS[1], points[0][1] - BARS[0]],
    )
    assert np.abs(np.array(color[:3]) - [70, 90, 120]).max() < 12


def test_settings_of_the_view_are_kept_and_change_no_mark(page: Page, server: Served) -> None:
    show(page, server, "p.png")
    drag(page, LINE)
    saved(page)
    page.mouse.move(1200, 500)
    before = server.mask("p.png")
    picture = canvas(page)
    page.keyboard.press("l")
    for name, key in (("opacity", "End"), ("brightness", "ArrowRight"), ("contrast", "Home")):
        page.locator(f"#{name}").focus()
        page.keyboard.press(key)
    assert canvas(page) != picture
    page.reload()
    page.wait_for_selector(SHOWN)
    assert page.locator("#opacity-value").inner_text() == "100 %"
    style = page.evaluate("() => document.getElementById('picture').style.filter")
    assert style == "brightness(1.05) contrast(0.2)"
    page.locator("[data-do=plain]").click()
    page.evaluate(DRAWN)
    page.mouse.move(1200, 500)
    assert canvas(page) == picture
    page.keyboard.press("m")
    assert canvas(page) != picture
    page.keyboard.press("m")
    assert canvas(page) == picture
    np.testing.assert_array_equal(server.mask("p.png"), before)


def test_runs_are_those_of_the_server(page: Page, server: Served) -> None:
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(f"{server.place()}static/runs.js")
    file = Path(__file__).with_name("runs.json")
    cases = json.loads(file.read_text(encoding="utf-8"))
    found = page.evaluate(
        """async ({ valid, long, invalid }) => {
          const { RunWriter, decodeBits, encodeBits, forEachRun, fromBase64, toBase64 } =
            await import("/static/runs.js");
          const bitsOf = ({ rows }) => Array.from(rows.join(""), Number);
          const refused = ({ size, runs }) => {
            try {
              decodeBits(fromBase64(runs), size);
              return false;
            } catch {
              return true;
            }
          };
          return {
            encoded: valid.map((one) => toBase64(encodeBits(Uint8Array.from(bitsOf(one))))),
            decoded: valid.map(({ w, h, runs }) => [...decodeBits(fromBase64(runs), w * h)]),
            bits: valid.map(bitsOf),
            written: long.map(({ lengths }) => {
              const writer = new RunWriter();
              lengths.forEach((length, at) => writer.add(at % 2, length));
              return toBase64(writer.finish());
            }),
            read: long.map(({ lengths, runs }) => {
              let ones = 0;
              const total = lengths.reduce((sum, one) => sum + one);
              forEachRun(fromBase64(runs), total, (start, end) => (ones += end - start));
              return ones;
            }),
            refused: invalid.map(refused),
          };
        }""",
        cases,
    )
    assert found["encoded"] == [one["runs"] for one in cases["valid"]]
    assert found["decoded"] == found["bits"]
    assert found["written"] == [one["runs"] for one in cases["long"]]
    assert found["read"] == [sum(one["lengths"][1::2]) for one in cases["long"]]
    assert len(found["refused"]) > 5
    assert all(found["refused"])
