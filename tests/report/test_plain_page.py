"""The pages of `explain` and `monitor` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browsers import start_browser
from tests.calibrated import Calibrated
from tests.commands import here

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@pytest.fixture(scope="module")
def pages(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An image, two images, and a log."""
    folder = tmp_path_factory.mktemp("pages")
    data, model = calibrated.manifest.parent, calibrated.folder
    images = [data / f"test-{number}.png" for number in (0, 1)]
    one, two, log = (folder / name for name in ("one.html", "two.html", "log.html"))
    given = ("--manifest", calibrated.manifest, "--masks", 128)
    here("explain", model, images[0], *given, "--out", one)
    here("explain", calibrated.model, *images, "--masks", 128, "--out", two)
    here("predict", model, data / "train-*.png", "--log", "features", "--out", folder / "a.parquet")
    here("monitor", folder / "a.parquet", "--reference", model, "--out", log)
    return [one, two, log]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_pages_fit_and_are_accessible(
    browser: Browser, pages: list[Path], theme: str, width: int
) -> None:
    theme_of: Any = theme
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    for file in pages:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme_of
        )
        page, said = context.new_page(), list[str]()
        page.on("console", lambda one, said=said: said.append(one.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.goto(file.as_uri())
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        page.add_style_tag(content=".scroll, .wide { background: none !important; }")
        found = axe.run(page, options={"runOnly": tags, "selectors": False}).response
        broken = [
            f"{file.name}: {rule['id']}: {node['html'][:200]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]
        assert not broken
        assert not said
        context.close()
