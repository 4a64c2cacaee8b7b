"""The pages of `audit` and `repair` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.auditing.stamped import write_data
from tests.browsers import OF_WIDTH, check_long_page, check_rules, start_browser
from tests.commands import here

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An audit of a network that reads a stamp, and its repair."""
    folder = write_data(tmp_path_factory.mktemp("pages"), "networks_of_pages.py")
    network = f"{folder / 'networks_of_pages.py'}:stamp"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for command, option in (("audit", "--out"), ("repair", "--to")):
            named = (network, folder / "manifest.csv", "--positive", "sick")
            done = here(command, *named, option, folder / command)
            assert done.code == 0, done
    return [folder / "audit" / "audit.html", folder / "repair" / "repair.html"]


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
