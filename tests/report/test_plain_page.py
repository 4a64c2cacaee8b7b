"""The page of `explain` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browsers import OF_WIDTH, check_long_page, check_rules, start_browser
from tests.calibrated import Calibrated
from tests.commands import here

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@pytest.fixture(scope="module")
def pages(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An image, and two images."""
    folder = tmp_path_factory.mktemp("pages")
    data, model = calibrated.manifest.parent, calibrated.folder
    images = [data / f"test-{number}.png" for number in (0, 1)]
    one, two = (folder / name for name in ("one.html", "two.html"))
    for network, some, page in ((model, images[:1], one), (calibrated.model, images, two)):
        done = here("explain", network, *some, "--masks", 128, "--out", page)
        assert done.code == 0, done
    return [one, two]


def test_pages_fit_and_are_accessible(browser: Browser, pages: list[Path]) -> None:
    page, said = browser.new_page(), list[str]()
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for file in pages:
        page.goto(file.as_uri())
        page.add_style_tag(content=".scroll { background: none !important; }")
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            fits = page.evaluate("() => document.documentElement.scrollWidth") <= width
            assert fits, (file.name, width)
            assert not check_rules(page, runOnly=OF_WIDTH).broken, (file.name, width)
        assert not check_long_page(page).broken, file.name
    assert not said
    page.close()
