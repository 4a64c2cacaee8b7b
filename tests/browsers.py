"""A real browser for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""Tags of the rules of axe that pages are tested by."""


def start_browser() -> Iterator[Browser]:
    """Chromium, for a fixture; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "google-chrome", "chromium-browser")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is here: none of {', '.join(names)} is on the path")
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium's own sandbox cannot start; it opens nothing but our own page.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass(frozen=True)
class Rules:
    """Rules of accessibility: what breaks one, and how many elements pass each."""

    broken: list[str]
    passed: dict[str, int]


def check_rules(page: Page, exclude: str | None = None, **options: Any) -> Rules:
    """Rules of accessibility that a page breaks and passes, by axe.

    Args:
        page: Page; axe stays in it for further calls.
        exclude: Selector of what is not looked at.
        options: Options of `axe.run`; by default, the rules of `RULES`, of which those that pass
            name one element each.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    if page.evaluate("() => typeof axe === 'undefined'"):
        page.evaluate(axe.Axe().axe_script)
    # Selectors of a thousand elements take most of the time; a broken one is told by its HTML.
    given = {"runOnly": RULES, "resultTypes": ["violations"], "selectors": False, **options}
    found = page.evaluate(
        "([exclude, options]) => axe.run(exclude ? { exclude: [exclude] } : document, options)",
        [exclude, given],
    )
    broken = [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    return Rules(broken, {rule["id"]: len(rule["nodes"]) for rule in found["passes"]})
