"""The documentation site: built without warnings, and its pages in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import preceptor
from tests.browsers import check_long_page, check_rules, start_browser

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "models", "gallery", "tutorials/first-study", "notebooks/generated/read-results")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install 'preceptor[docs]'")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", out],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from start_browser()


def test_every_public_name_is_documented(site: Path) -> None:
    text = (site / "reference" / "api.html").read_text()
    missing = [name for name in preceptor.__all__ if f'id="preceptor.{name}"' not in text]
    assert missing == ["__version__"]


def test_the_notebooks_are_shown_with_their_outputs(site: Path) -> None:
    pages = sorted((site / "notebooks" / "generated").glob("*.html"))
    assert [page.stem for page in pages] == ["explore-manifest", "read-results"]
    for page, wanted in zip(pages, ("data:image/png;base64,", "Tables of a study"), strict=True):
        assert 'class="output"' in page.read_text()
        assert wanted in page.read_text()


def test_pages_for_programs(site: Path) -> None:
    listed = (site / "llms.txt").read_text()
    for line in listed.splitlines():
        if line.startswith("- ["):
            assert (site / line.partition("](")[2].rstrip(")")).is_file()
    assert "# Models from outside timm" in (site / "llms-full.txt").read_text()
    (schema,) = site.glob("_downloads/*/study.schema.json")
    assert "teachers" in json.loads(schema.read_text())["properties"]


def test_pages_fit_and_are_accessible(site: Path, browser: Any) -> None:
    page = browser.new_page(offline=True)
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert page.evaluate(inside), (name, width)
            assert not check_rules(page, runOnly=["scrollable-region-focusable"]).broken, name
        assert not check_long_page(page, ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]).broken, name
    page.close()


def test_the_search_finds_a_page(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=factory")
    page.wait_for_selector("#search-results li a")
    assert any(
        "models" in one.get_attribute("href") for one in page.locator("#search-results li a").all()
    )
