"""The grid of images, and names, in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.label import pages
from tests.label.pages import Served, opened, press, saved, served
from tests.label.serving import Client, box

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (200, 160)
LEFT, RIGHT = box(20, 30, 60, 50, SIZE), box(120, 30, 60, 50, SIZE)


def images(folder: Path, count: int) -> Path:
    return pages.write_images(folder / "images", {f"image-{n}.png": SIZE for n in range(count)})


def number(server: Served, name: str) -> int:
    ((found,),) = server.ask("SELECT id FROM images WHERE path = ?", name)
    return int(found)


def shows(page: Page, *names: str) -> None:
    """Wait until the grid shows images of these names."""
    page.wait_for_function(
        "(names) => [...document.querySelectorAll('.cell strong')]"
        ".map((one) => one.textContent).join() === names",
        arg=",".join(names),
    )


def mark(client: Client, image: int, mask: np.ndarray, **more: object) -> None:
    client.tab = f"tab-{image}-{id(client)}"
    assert client.stroke(image, mask).status == 200
    assert client.answer(image, **more).status == 200


def test_the_grid_shows_filters_and_leads_to_an_image(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 6), tmp_path) as server:
        ada = Client(server.address).enter(server.token, "Ada")
        one, two, three = (number(server, f"image-{n}.png") for n in (1, 2, 3))
        mark(ada, one, LEFT)
        mark(ada, two, RIGHT)
        ada.answer(three, "nothing")
        with opened(browser, server, "Ada", "image-0.png") as page:
            press(page, "g")
            shows(page, *[f"image-{n}.png" for n in range(6)])
            shown = {
                "open": ["image-0.png", "image-4.png", "image-5.png"],
                "answered": ["image-1.png", "image-2.png", "image-3.png"],
            }
            for kind, expected in shown.items():
                page.locator(f"[data-filter={kind}]").click()
                shows(page, *expected)
            page.locator("[data-filter='']").click()
            shows(page, *[f"image-{n}.png" for n in range(6)])
            cell = page.locator(".cell", has_text="image-1.png")
            assert cell.locator(".chip").all_inner_texts() == ["Marked"]
            tinted = """(canvas) => {
              const { width, height } = canvas;
              const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
              const at = (x, y) =>
                pixels[(Math.round(y * height) * width + Math.round(x * width)) * 4 + 3];
              return [at(0.25, 0.35) > 0, at(0.75, 0.35) > 0];
            }"""
            page.wait_for_function("() => document.querySelectorAll('canvas')[3].width === 400")
            assert cell.locator("canvas").evaluate(tinted) == [True, False]
            page.locator(".cell", has_text="image-4.png").click()
            page.wait_for_function(
                "() => document.getElementById('name').textContent === 'image-4.png'"
            )


def test_what_another_name_left_unsaved_is_told(browser: Browser, tmp_path: Path) -> None:
    with served(images(tmp_path, 3), tmp_path) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        context.add_cookies([server.cookie("Ada")])  # type: ignore[list-item]
        page = pages.another_tab(context, server, "Ada", "image-0.png", "Failed to load")
        page.route("**/strokes", lambda route: route.abort())
        for x in (500, 600):
            page.mouse.click(x, 400)
        page.get_by_text("2 changes not saved").wait_for()
        page.close(run_before_unload=False)
        context.add_cookies([server.cookie("Adda")])  # type: ignore[list-item]
        # The server may not have heard yet that Ada's tab is closed.
        page = pages.another_tab(context, server, "Adda", "image-1.png", "status of 409")
        page.get_by_text("2 changes of Ada wait here.").wait_for()
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        # A message of Adda that arrives after Ada has begun would be refused.
        page.route("**/open", lambda route: (time.sleep(0.5), route.continue_()))
        page.get_by_role("button", name="Go on as Ada", exact=True).click()
        page.wait_for_function("() => document.getElementById('who').textContent === 'Ada'")
        page.locator("#trouble").wait_for(state="hidden")
        saved(page)
        assert server.mask("image-0.png", "Ada").any()
        assert page.said == []  # type: ignore[attr-defined]
        context.close()
