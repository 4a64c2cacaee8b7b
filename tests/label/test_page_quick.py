"""One click an image: the page of `preceptor label --quick` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from tests.browsers import check_rules
from tests.commands import here
from tests.label.pages import (
    Served,
    ServedApart,
    click,
    leave,
    name,
    opened,
    other,
    place,
    press,
    saved,
    served,
    served_apart,
    show,
    toast,
    write_images,
)
from tests.label.serving import box, disc, point_of, running, stroke_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = (200, 160)
FAILED = "Failed to load resource"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {f"{n}.png": SIZE for n in range(6)})


def points(server: Served, image: str) -> list[tuple[Any, ...]]:
    """Clicks on an image that count, as the database has them."""
    return server.ask(
        "SELECT tool, x, y, w, h FROM strokes JOIN images ON images.id = image "
        "WHERE path = ? AND undone = 0 ORDER BY number",
        image,
    )


def answers(server: Served) -> dict[str, str]:
    return dict(server.ask("SELECT path, state FROM answers JOIN images ON images.id = image"))


def test_each_click_answers_and_is_exported_as_a_disc(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    with served(images, tmp_path, quick=True) as server, opened(browser, server) as page:
        needed = page.locator("#needed")
        assert needed.inner_text() == "20 more for an audit (20 images)"
        assert page.locator("#tools").is_hidden()
        first = click(page, (50, 40))
        second = click(page, (20, 30), (150, 100))
        third, fourth, fifth = leave(page, "n"), leave(page, "u"), click(page, (3, 2))
        page.get_by_text("16 more for").wait_for()  # an unsure one does not count
        # Back, once for each image; a click there begins anew, and N takes it back.
        for expected in (fifth, fourth, third, second):
            leave(page, "Backspace")
            assert name(page) == expected
        click(page, (100, 80))
        saved(page)
        show(page, server, fifth)
        leave(page, "n")
        # With Shift, a further click counts beside the one that was there; Enter moves on.
        show(page, server, first)
        page.keyboard.down("Shift")
        page.mouse.click(*place(page, (160, 120)))
        page.keyboard.up("Shift")
        leave(page, "Enter")
        saved(page)
        assert points(server, first) == [("point", 50, 40, 1, 1), ("point", 160, 120, 1, 1)]
        assert points(server, second) == [("point", 100, 80, 1, 1)]
        assert points(server, fifth) == []
        assert answers(server) == {
            first: "marked", second: "marked", third: "nothing", fourth: "cannot_judge",
            fifth: "nothing",
        }  # fmt: skip
        np.testing.assert_array_equal(server.mask(first), disc(50, 40, SIZE) | disc(160, 120, SIZE))
    told = here("label", "export", server.database, "--to", tmp_path / "out")
    assert told.code == 0, told
    table = Manifest.read(tmp_path / "out" / "manifest.csv", need=()).table
    maps = {Path(row["path"]).name: row["saliency"] for _, row in table.iterrows()}
    np.testing.assert_array_equal(decode_map(Path(maps[second])) >= 0.5, disc(100, 80, SIZE))


def test_the_page_shows_the_disc_that_the_server_folds(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    pixels = """async () => {
      const { page } = await import("/static/page.js");
      const { mask } = page.entry.marks;
      const found = [];
      for (let y = 0; y < mask.height; y += 1) {
        for (let x = 0; x < mask.width; x += 1) found.push(mask.get(x, y));
      }
      return found;
    }"""
    with served(images, tmp_path, quick=True) as server, opened(browser, server) as page:
        for point in ((77, 31), (199, 159)):
            before = click(page, point)
            leave(page, "Backspace")
            assert name(page) == before
            shown = np.array(page.evaluate(pixels), bool).reshape(SIZE[::-1])
            np.testing.assert_array_equal(shown, disc(*point, SIZE))
            np.testing.assert_array_equal(server.mask(before), shown)
            leave(page, "Enter")


@pytest.fixture
def apart(images: Path, tmp_path: Path) -> Iterator[ServedApart]:
    with served_apart(images, tmp_path, "--quick") as server:
        yield server


def test_no_click_is_lost_and_none_shows_the_next_image_unsaved(
    browser: Browser, apart: ServedApart
) -> None:
    server = apart
    with opened(browser, server, may_say=FAILED) as page:
        done = {click(page, (10 * at + 30, 60)): at for at in range(2)}
        server.kill()
        image = name(page)
        page.mouse.click(*place(page, (90, 90)))
        page.get_by_text("Not saved: the server is not reached.").wait_for()
        page.mouse.click(*place(page, (10, 10)))  # while it waits, nothing more is marked
        assert name(page) == image
        # The browser is killed, too.
        page.close(run_before_unload=False)
        server.start()
        again = page.context.new_page()
        again.goto(server.place())
        again.wait_for_selector("body[data-image]:not([data-image=''])")
        saved(again)
        assert points(server, image) == [("point", 90, 90, 1, 1)]
        assert answers(server) == dict.fromkeys([*done, image], "marked")
        for before, at in done.items():
            assert points(server, before) == [("point", 10 * at + 30, 60, 1, 1)]
        assert name(again) not in answers(server)


def test_touch_on_a_telephone(browser: Browser, images: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    how |= {"is_mobile": True, "device_scale_factor": 2}
    with (
        served(images, tmp_path, quick=True) as server,
        opened(browser, server, may_say="", **how) as page,
    ):
        assert check_rules(page).broken == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for action in ("nothing", "cannot", "previous", "several", "next"):
            button = page.locator(f"[data-do={action}]").bounding_box()
            assert button is not None
            assert button["height"] >= 44
            assert 0 <= button["x"] <= button["x"] + button["width"] <= 390
            assert button["y"] + button["height"] <= 844
        stage = page.locator("#stage").bounding_box()
        assert stage is not None
        assert stage["height"] > 0.5 * 844
        one = click(page, (60, 70), touch=True)
        assert points(server, one) == [("point", 60, 70, 1, 1)]
        page.locator("#several").tap()
        two = name(page)
        for point in ((40, 40), (120, 110)):
            page.touchscreen.tap(*place(page, point))
        page.locator("[data-do=next]").tap()
        other(page, two)
        assert [row[1:3] for row in points(server, two)] == [(40, 40), (120, 110)]
        page.locator("[data-do=nothing]").tap()
        assert "Something" not in toast(page)


def test_the_next_image_is_here_before_it_is_asked_for(
    browser: Browser, images: Path, tmp_path: Path
) -> None:
    asked: list[str] = []
    with (
        served(images, tmp_path, quick=True) as server,
        opened(browser, server, image=None) as page,
    ):
        page.on("requestfinished", lambda one: asked.append(one.url))
        page.goto(server.place())
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        while sum("/whole" in url for url in asked) < 4:  # the one at hand, and three ahead
            page.wait_for_timeout(20)
        first = page.evaluate("document.body.dataset.image")
        click(page, (60, 60))
        shown = page.evaluate("document.body.dataset.image")
        assert shown != first
        assert sum(f"/images/{shown}/whole" in url for url in asked) == 1
        press(page, "?")
        assert "Evidence, and the next image" in page.locator("#keys").inner_text()


def test_malformed_points_are_refused(images: Path) -> None:
    with running(images, quick=True) as server:
        ann = server.client("ann")
        path = f"/api/images/{ann.queue()[0]}/strokes"
        for wrong in (
            point_of(5, 5, SIZE) | {"erase": True},
            stroke_of(box(5, 5, 2, 1, SIZE)) | {"tool": "point"},
        ):
            assert ann.post(path, wrong).status == 400
        body = point_of(5, 5, SIZE)
        assert [ann.post(path, body).status for _ in range(2)] == [200, 200]
        assert len(ann.image(int(path.split("/")[3]))["strokes"]) == 1
