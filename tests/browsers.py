"""A real browser for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import HANGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""Tags of the rules of axe that pages are tested by."""
OF_WIDTH = ["target-size", "scrollable-region-focusable"]
"""Rules that depend on the width of the window."""
SLOW = ["color-contrast", "region", "link-in-text-block"]
"""Rules that take longer than all others together; equal elements give equal verdicts."""
THIN = """() => {
  const numbers = new Map(), kinds = new Map();
  const describe = (one) => {
    const parts = [...one.children].map(describe);
    const style = getComputedStyle(one);
    const looks = ["color", "backgroundColor", "fontSize", "fontWeight", "opacity", "display"];
    const kind = JSON.stringify([
      one.localName, one.getAttribute("class"), one.getAttributeNames().sort(),
      looks.map((name) => style[name]), one.closest("svg") ? parts : [...new Set(parts)],
    ]);
    if (!numbers.has(kind)) numbers.set(kind, numbers.size);
    kinds.set(one, numbers.get(kind));
    return kinds.get(one);
  };
  const thin = (one) => {
    const seen = new Set();
    for (const child of one.closest("svg") ? [] : [...one.children]) {
      if (seen.has(kinds.get(child))) child.remove();
      else thin(child);
      seen.add(kinds.get(child));
    }
  };
  describe(document.body);
  thin(document.body);
}"""
"""Leave one of the siblings that have the same structure, classes, attributes and colors."""


def start_browser() -> Iterator[Browser]:
    """Chromium, for a fixture; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "google-chrome", "chromium-browser")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is here: none of {', '.join(names)} is on the path")
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium's own sandbox cannot start; it opens nothing but our own page.
        # Without a GPU, its process may stop giving pages their animation frames.
        # Names that end in .test are of this machine, and no safe origin as 127.0.0.1 is.
        started = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.test 127.0.0.1"],
        )
        for name in ("new_context", "new_page"):
            setattr(started, name, _patient(getattr(started, name)))
        yield started
        started.close()


def _patient(make: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose windows wait on a busy machine for as long as other tests do."""

    def made(**options: Any) -> Any:
        found = make(**options)
        found.set_default_timeout(1000 * HANGS)
        return found

    return made


@dataclass(frozen=True)
class Rules:
    """Rules of accessibility: what breaks one, and how many elements pass each."""

    broken: list[str]
    passed: dict[str, int]


def check_rules(page: Page, exclude: str | None = None, **options: Any) -> Rules:
    """Rules of accessibility that a page breaks and passes, by axe."""
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


def check_long_page(page: Page, tags: Sequence[str] = RULES) -> Rules:
    """Rules of accessibility of a page in light and dark colors; one of equal siblings is left."""
    slow = [rule for rule in SLOW if rule != "region" or "best-practice" in tags]
    off = {rule: {"enabled": False} for rule in SLOW}
    whole = check_rules(page, runOnly=list(tags), rules=off)
    broken, passed = whole.broken, whole.passed
    page.evaluate(THIN)
    page.add_style_tag(content="* { transition: none !important; }")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        # Of text in figures axe does not know what is below it.
        found = check_rules(page, "svg", runOnly=slow, resultTypes=["violations", "passes"])
        broken = broken + [f"{theme}: {rule}" for rule in found.broken]
        passed = passed | found.passed
    return Rules(broken, passed)
