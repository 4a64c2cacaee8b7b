"""What makes marking quicker: levels, changes of a whole mark, the live wand, zoom and color."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.label import pages
from tests.label.pages import Fit, Served, drag, press, saved, show

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = WIDTH, HEIGHT = 200, 160
FIT = Fit(*SIZE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("view")
    names = [f"{name}.png" for name in "abcdef"]
    images = pages.write_images(folder / "images", dict.fromkeys(names, SIZE))
    xs, ys = pages.centers(*SIZE)
    slice_ = np.where(np.hypot(xs - 100, ys - 80) < 60, 12 + xs / 10, 0)  # nearly black
    Image.fromarray(slice_.astype(np.uint8)).save(images / "slice.png")
    with pages.served(images, folder) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with pages.opened(browser, server, image=None) as tab:
        yield tab


def brightest(page: Page) -> int:
    """Largest gray value of the image on the screen."""
    page.evaluate(pages.DRAWN)
    shot = Image.open(BytesIO(page.locator("#picture").screenshot())).convert("L")
    wide, high = shot.size
    return int(np.asarray(shot)[high // 3 : high // 2, wide // 3 : wide // 2].max())


def test_levels_are_automatic_for_gray_images_and_can_be_dragged(
    page: Page, server: Served
) -> None:
    show(page, server, "a.png")
    assert page.evaluate("document.getElementById('picture').style.filter") == ""
    show(page, server, "slice.png")
    assert brightest(page) > 150
    press(page, "u")
    assert brightest(page) < 45
    # Up is brighter, to the right is a wider window; nothing is drawn, and Esc ends it.
    press(page, "v")
    drag(page, [(500, 400), (560, 200)])
    for name, least, most in (("brightness", 260, 280), ("contrast", 70, 80)):
        said = page.locator(f"#{name}-value").text_content() or ""
        assert least < int(said.split()[0]) < most
    assert brightest(page) > 60
    # All of it is kept over a reload, and changes no mark.
    press(page, "Escape", "l")
    page.locator("#opacity").focus()
    press(page, "End")
    page.reload()
    page.wait_for_selector(pages.SHOWN)
    assert page.locator("#opacity-value").inner_text() == "100 %"
    page.locator("[data-do=plain]").click()
    assert brightest(page) > 150
    press(page, "b")
    drag(page, [(500, 400), (560, 350)])
    picture = pages.canvas(page)
    press(page, "m")
    assert pages.canvas(page) != picture
    press(page, "m", "Control+z")
    saved(page)
    assert [tool for tool, _ in server.strokes("slice.png")] == ["brush"]


def test_a_whole_mark_is_filled_grown_shrunk_and_smoothed(page: Page, server: Served) -> None:
    show(page, server, "a.png")
    press(page, "r")
    drag(page, [FIT.page(20, 20), FIT.page(80, 70)])
    drag(page, [FIT.page(120, 100), FIT.page(123, 103)])
    press(page, "x")
    drag(page, [FIT.page(40, 30), FIT.page(60, 50)])
    press(page, "x")
    saved(page)
    masks = [server.mask("a.png")]

    def count(mask: np.ndarray) -> np.ndarray:
        return ndimage.convolve(mask.astype(int), np.ones((5, 5), int), mode="constant")

    changes = {
        "h": ndimage.binary_fill_holes,
        ".": lambda mask: ndimage.maximum_filter(mask, 3),
        "o": lambda mask: 2 * count(mask) > count(np.ones_like(mask)),
        ",": lambda mask: ndimage.minimum_filter(mask, 3),
    }
    for key, change in changes.items():
        press(page, key)
        saved(page)
        masks.append(server.mask("a.png"))
        np.testing.assert_array_equal(masks[-1], change(masks[-2]), key)
    show(page, server, "a.png")  # each is one change, also after the page was loaded again
    for mask in masks[-2::-1]:
        press(page, "Control+z")
        saved(page)
        np.testing.assert_array_equal(server.mask("a.png"), mask)


def test_the_tolerance_of_the_wand_changes_under_the_pointer(page: Page, server: Served) -> None:
    show(page, server, "slice.png")
    ((image,),) = server.ask("SELECT id FROM images WHERE path = 'slice.png'")
    answer = page.request.get(f"{server.place()}api/images/{image}/whole")
    pixels = np.asarray(Image.open(BytesIO(answer.body())).convert("RGB")).astype(int)
    press(page, "w", *["["] * 30)
    x, y = FIT.page(100, 80)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 6 + 3 * 4, y)
    assert page.locator("#tolerance-value").text_content() == "4"
    page.mouse.up()
    saved(page)
    column, row = (int(one) for one in FIT.image(x, y))
    regions, _ = ndimage.label((np.abs(pixels - pixels[row, column]) <= 4).all(axis=2))
    region = regions == regions[row, column]
    holes, number = ndimage.label(~region)
    for hole in range(1, number + 1):
        if (holes == hole).sum() <= 16 and not (holes == hole)[[0, -1]].any():
            region |= holes == hole
    assert 0.1 < region.mean() < 0.5
    np.testing.assert_array_equal(server.mask("slice.png"), region)


def test_zoom_and_brush_stay_over_a_series_and_the_color_is_chosen(
    browser: Browser, server: Served
) -> None:
    with pages.opened(browser, server, "Mary", "b.png") as page:
        zoom_and_brush(page, server)


def zoom_and_brush(page: Page, server: Served) -> None:
    page.mouse.move(600, 400)
    page.mouse.wheel(0, -400)
    scale, point = FIT.scale * np.exp(0.5), FIT.image(600, 400)
    press(page, "l")
    page.locator("[data-color='4']").click()
    pages.leave(page, "c")
    drag(page, [(600, 400)])
    page.mouse.move(1200, 500)
    saved(page)
    radius = int(page.locator("#size-value").inner_text().split()[0]) / scale / 2
    np.testing.assert_array_equal(
        server.mask(pages.name(page), "Mary"), pages.brushed(*SIZE, [point], [radius])
    )
    page.evaluate(pages.DRAWN)
    color = """() => [...document.getElementById("marks").getContext("2d")
      .getImageData(600 - 72, 400 - 52, 1, 1).data]"""
    assert np.abs(np.array(page.evaluate(color)[:3]) - [255, 225, 60]).max() < 4
