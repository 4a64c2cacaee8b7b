"""The documentation site: built without warnings, and its pages in a browser.

`make docs` runs these tests on the site that it has built, which PRECEPTOR_SITE names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import preceptor
from tests.browsers import check_long_page, check_rules, start_browser
from tests.documents import docs_module

pytestmark = pytest.mark.site
ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "models", "tutorials/first-study")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install 'preceptor[docs]'")
    out = tmp_path_factory.mktemp("site") / preceptor.__version__
    if "PRECEPTOR_SITE" in os.environ:
        shutil.copytree(os.environ["PRECEPTOR_SITE"], out)
        return out
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


def test_pages_for_programs(site: Path) -> None:
    listed = (site / "llms.txt").read_text()
    for line in listed.splitlines():
        if line.startswith("- ["):
            assert (site / line.partition("](")[2].rstrip(")")).is_file()
    assert "# Models from outside timm" in (site / "llms-full.txt").read_text()


def test_every_configuration_file_has_its_keys_and_a_schema(site: Path) -> None:
    page = (site / "reference" / "generated" / "config.html").read_text()
    for name, key in (("study", "teachers"), ("run", "rows")):
        (schema,) = site.glob(f"_downloads/*/{name}.schema.json")
        properties = json.loads(schema.read_text())["properties"]
        assert key in properties
        _, _, section = page.partition(f'id="config-{name}"')
        assert all(f">{one}</span>" in section for one in properties)


# A page learns after a change of its width which tables scroll.
REACHABLE = """() => [...document.querySelectorAll(".table-wrapper")].every(
    (one) => (one.scrollWidth > one.clientWidth) === (one.tabIndex === 0))"""


def test_pages_fit_and_are_accessible(site: Path, browser: Any) -> None:
    page = browser.new_page(offline=True)
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert page.evaluate(inside), (name, width)
            page.wait_for_function(REACHABLE)
            assert not check_rules(page, runOnly=["scrollable-region-focusable"]).broken, name
        assert not check_long_page(page, ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]).broken, name
    page.close()


def test_versions_by_folder(site: Path, browser: Any) -> None:
    """A built page of an older version leads to the same page of the newest, else to its first."""
    old = site.with_name("0.0.1")
    for name in ("index", "tutorials/first-study"):
        text = (site / f"{name}.html").read_text()
        older = text.replace(f'data-version="{site.name}"', 'data-version="0.0.1"')
        assert older != text
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / f"{name}.html").write_text(older)
    (old / "_static").symlink_to(site / "_static")
    docs_module("site_versions").write_list(site.parent)

    page = browser.new_page(offline=True)
    page.goto((site.parent / "index.html").as_uri())
    page.wait_for_url((site / "index.html").as_uri())
    assert page.locator(".older-version").count() == 0
    page.goto((old / "tutorials" / "first-study.html").as_uri())
    assert page.locator(".older-version a").get_attribute("href").endswith("first-study.html")
    assert page.locator(".versions option").all_inner_texts() == [site.name, "0.0.1"]
    page.locator(".versions select").select_option(site.name)
    page.wait_for_url((site / "tutorials" / "first-study.html").as_uri())
    page.goto((site / "models.html").as_uri())
    page.locator(".versions select").select_option("0.0.1")  # which has no such page
    page.wait_for_url((old / "index.html").as_uri())
    assert not check_rules(page, runOnly=["wcag2a", "wcag2aa"]).broken
    page.close()


def test_the_newest_version_is_a_release(tmp_path: Path) -> None:
    module = docs_module("site_versions")
    for name in ("0.9.0", "0.10.0", "1.0.0rc1", "not-a-version", "01.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()
    (tmp_path / "2.0.0").mkdir()  # not built
    wanted = ["0.10.0", "0.9.0", "1.0.0rc1"]
    assert [str(one) for one in module.write_list(tmp_path)] == wanted
    assert "0.10.0/index.html" in (tmp_path / "index.html").read_text()
    with pytest.raises(ValueError, match="holds no folder named like a version"):
        module.write_list(tmp_path / "2.0.0")


def test_the_search_finds_a_page(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=factory")
    # Results appear one after the other.
    page.wait_for_selector('#search-results li a[href*="models.html"]')
