"""The page in a real browser: two themes, three widths, keyboard, print."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browsers import OF_WIDTH, THIN, check_long_page, check_rules, start_browser
from tests.report.conftest import Written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

WIDTHS = {390: 844, 820: 1180, 1280: 900}
MAPS = ["Image", "Human", "Teacher", "Student", "Baseline 2"]
OPEN, FOLD = (
    f"() => {{ for (const one of document.querySelectorAll('details')) one.open = {value}; }}"
    for value in ("true", "false")
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@contextmanager
def quiet(page: Page) -> Iterator[None]:
    """Fail where the page says something, or asks for more than itself and its figures."""
    said, asked = list[str](), list[str]()
    heard = {
        "console": lambda one: said.append(one.text) if one.type != "log" else None,
        "pageerror": lambda error: said.append(str(error)),
        "request": lambda request: asked.append(request.url),
    }
    for event, hear in heard.items():
        page.on(event, hear)  # type: ignore[call-overload]
    yield
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    assert not said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    own = [url for url in asked if url.startswith("file:")]
    assert all(url.endswith((".html", ".svg")) for url in own)  # what a test itself opened


@contextmanager
def shown(browser: Browser, out: Path, *, width: int = 1280, **how: Any) -> Iterator[Page]:
    """The page of a study folder in a window of its own."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, **how
    )
    page = context.new_page()
    with quiet(page):
        page.goto((out / "report.html").as_uri())
        yield page
    context.close()


@pytest.fixture(scope="module")
def one_page(browser: Browser, two_domains: Written) -> Iterator[Page]:
    with shown(browser, two_domains.out) as found:
        yield found


@pytest.fixture
def page(one_page: Page) -> Iterator[Page]:
    """The page, loaded once: a test leaves it as it was where another one looks."""
    with quiet(one_page):
        yield one_page


def test_it_fits_every_width_in_both_themes(
    browser: Browser, two_domains: Written, not_begun: Written
) -> None:
    for written in (two_domains, not_begun):
        with shown(browser, written.out) as page:
            for theme, (width, height) in itertools.product(("light", "dark"), WIDTHS.items()):
                page.emulate_media(color_scheme=theme)
                page.set_viewport_size({"width": width, "height": height})
                for script in (FOLD, OPEN):
                    page.evaluate(script)
                    size = page.evaluate(
                        "() => { const one = document.documentElement;"
                        " return [one.scrollWidth, one.clientWidth]; }"
                    )
                    assert size[0] <= size[1] == width
                red = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
                assert (int(re.findall(r"\d+", red)[0]) < 128) == (theme == "dark")


def test_no_rule_of_accessibility_is_broken(
    browser: Browser, two_domains: Written, not_begun: Written
) -> None:
    for written in (two_domains, not_begun):
        with shown(browser, written.out, width=390) as page:
            page.evaluate(OPEN)
            rules = check_rules(page, runOnly=OF_WIDTH)
            assert not rules.broken
            assert "target-size" in rules.passed
        with shown(browser, written.out) as page:
            page.evaluate(OPEN)
            # Over a gradient axe does not judge contrast: it is to judge the text in tables.
            page.add_style_tag(content=".scroll { background: none !important; }")
            rules = check_long_page(page)
            assert not rules.broken
            assert rules.passed["color-contrast"] > 20
            assert {"aria-valid-attr", "duplicate-id-aria", "target-size"} <= rules.passed.keys()


FOCUS = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  return {
    place: window.reached.indexOf(one), outline: style.outlineStyle,
    thick: Number.parseFloat(style.outlineWidth),
    inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
}"""
REACHABLE = """() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex]";
  window.reached = [...document.querySelectorAll(all)].filter((one) => one.checkVisibility());
  return window.reached.map((one) => one.className || one.localName);
}"""


def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    browser: Browser, two_domains: Written
) -> None:
    with shown(browser, two_domains.out, reduced_motion="reduce") as page:
        page.evaluate(OPEN)
        page.evaluate(THIN)
        kinds = page.evaluate(REACHABLE)
        assert kinds[0] == "skip"
        assert {"a", "summary", "scroll"} <= set(kinds)
        for place, kind in enumerate(kinds):
            page.keyboard.press("Tab")
            focus = page.evaluate(FOCUS)
            assert focus["place"] == place, kind
            assert focus["outline"] != "none", kind
            assert focus["thick"] >= 2, kind
            assert focus["inside"], kind
        # The first of them skips to the results.
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**#main")  # the browser tells of a fragment after the key
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.closest('main') !== null")


TILES = """panels => panels.map((panel) => [...panel.querySelectorAll(".tile")].map((tile) => {
  const box = tile.getBoundingClientRect(), name = tile.querySelector(":scope > span");
  const opacity = Number(getComputedStyle(tile).opacity);
  return [box.left, box.right, box.top, opacity, name.innerText];
}))"""


def assert_side_by_side(page: Page) -> None:
    """All maps of every panel stand in a row, none faded."""
    panels = page.locator(".panel").evaluate_all(TILES)
    assert len(panels) > 2
    for tiles in panels:
        assert [tile[-1] for tile in tiles] == MAPS
        for (_, right, top, *_), (left, _, next_top, *_) in itertools.pairwise(tiles):
            assert right <= left or top < next_top
        assert all(tile[1] - tile[0] > 40 and tile[3] == 1 for tile in tiles)


def test_without_scripts_nothing_is_missing(
    browser: Browser, two_domains: Written, page: Page
) -> None:
    with shown(browser, two_domains.out, java_script_enabled=False) as plain:
        plain.emulate_media(media="print")  # in which what is folded is shown
        assert_side_by_side(plain)
        for kind in ("table", "tbody tr", "td", "svg", ".panel", "details"):
            assert plain.locator(kind).count() == page.locator(kind).count() > 0


def test_on_paper_all_is_open_and_controls_are_gone(page: Page) -> None:
    folded = page.locator("details:not([open])").count()
    assert folded > 2
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
            window.printed = document.querySelectorAll("details[open]").length;
        })"""
    )
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", paper)) > 4
    assert page.evaluate("() => window.printed") == page.locator("details").count()
    assert page.locator("details:not([open])").count() == folded  # and folded again afterwards

    page.emulate_media(media="print")
    assert_side_by_side(page)
    for hidden in ("nav", ".skip"):
        assert page.locator(hidden).count() > 0
        assert page.locator(f"{hidden}:visible").count() == 0
    # What is folded is printed where no script could open it, too.
    assert page.locator("details.fold table").first.is_visible()
    page.emulate_media(media="screen")
