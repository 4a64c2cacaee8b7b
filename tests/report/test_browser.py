"""The page in a real browser: two themes, three widths, keyboard, sliders, filters, print."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browsers import start_browser
from tests.report.conftest import NASTY, Written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

WIDTHS = {390: 844, 820: 1180, 1280: 900}
MAPS = ["Image", "Human", "Teacher", "Student", "Baseline 2"]
OPEN = "() => { for (const one of document.querySelectorAll('details')) one.open = true; }"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


@contextmanager
def shown(browser: Browser, out: Path, *, width: int = 1280, **how: Any) -> Iterator[Page]:
    """The page of a study folder in a window of its own, and nothing said or asked for by it."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, **how
    )
    page, said, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda one: said.append(one.text) if one.type != "log" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((out / "report.html").as_uri())
    yield page
    assert not said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    own = [url for url in asked if url.startswith("file:")]
    assert all(url.endswith((".html", ".svg")) for url in own)  # what a test itself opened
    context.close()


@pytest.fixture
def page(browser: Browser, two_domains: Written) -> Iterator[Page]:
    with shown(browser, two_domains.out) as found:
        yield found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_every_width_in_both_themes(
    browser: Browser, two_domains: Written, not_begun: Written, theme: str
) -> None:
    for written in (two_domains, not_begun):
        with shown(browser, written.out, color_scheme=theme) as page:
            for _ in range(2):
                for width, height in WIDTHS.items():
                    page.set_viewport_size({"width": width, "height": height})
                    size = page.evaluate(
                        "() => { const one = document.documentElement;"
                        " return [one.scrollWidth, one.clientWidth]; }"
                    )
                    assert size[0] <= size[1] == width
                page.evaluate(OPEN)
            red = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall(r"\d+", red)[0]) < 128) == (theme == "dark")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_no_rule_of_accessibility_is_broken(
    browser: Browser, two_domains: Written, not_begun: Written, theme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    # Selectors of a thousand elements take most of the time; a broken one is told by its HTML.
    options = {"runOnly": tags, "resultTypes": ["violations", "passes"], "selectors": False}
    for written in (two_domains, not_begun):
        with shown(browser, written.out, width=width, color_scheme=theme) as page:
            page.evaluate(OPEN)
            # Over a gradient axe does not judge contrast: it is to judge the text in tables.
            page.add_style_tag(content=".scroll, .wide { background: none !important; }")
            found = axe.run(page, options=options).response
            broken = [
                f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
                for rule in found["violations"]
                for node in rule["nodes"]
            ]
            assert not broken
            passed = {rule["id"]: len(rule["nodes"]) for rule in found["passes"]}
            assert passed["color-contrast"] > 40
            assert passed["aria-valid-attr"] > 10


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
        kinds = page.evaluate(REACHABLE)
        assert kinds[0] == "skip"
        assert {"a", "button", "input", "select", "summary", "scroll", "wide"} <= set(kinds)
        for place, kind in enumerate(kinds):
            page.keyboard.press("Tab")
            focus = page.evaluate(FOCUS)
            assert focus["place"] == place, kind
            assert focus["outline"] != "none", kind
            assert focus["thick"] >= 2, kind
            assert focus["inside"], kind


def test_the_first_key_skips_to_the_results(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('main') !== null")


def state(page: Page, section: int, panel: int) -> tuple[list[float], str, str | None]:
    """The opacity of each map of a panel, what the panel says, and what its slider says."""
    one = page.locator(".looks").nth(section).locator(".panel").nth(panel)
    opacity = one.locator(".tile").evaluate_all(
        "tiles => tiles.map((tile) => Number(getComputedStyle(tile).opacity))"
    )
    said = one.locator("output").inner_text()
    return opacity, said, one.locator("input").get_attribute("aria-valuetext")


def only(name: str) -> tuple[list[float], str, str]:
    """The state of a panel that shows one map: the image lies under all of them."""
    return [1.0 if one in ("Image", name) else 0.0 for one in MAPS], name, name


def test_a_slider_fades_the_maps_of_its_image(page: Page) -> None:
    slider = page.locator(".looks").first.locator(".panel input").first
    assert state(page, 0, 0) == only("Student")
    slider.focus()
    slider.press("ArrowRight")
    between = state(page, 0, 0)
    assert between[0] == pytest.approx([1, 0, 0, 0.95, 0.05])
    assert between[1] == between[2] == "Student to Baseline 2"
    for key, name in (("End", "Baseline 2"), ("Home", "Image")):
        slider.press(key)
        assert state(page, 0, 0) == only(name)
    for name in MAPS[1:3]:
        for _ in range(20):
            slider.press("ArrowRight")
        assert state(page, 0, 0) == only(name)
    for _ in range(20):
        slider.press("ArrowLeft")
    assert state(page, 0, 0) == only("Human")
    assert state(page, 0, 1) == only("Student")  # the others stay as they were


def test_one_slider_moves_all_images_of_its_domain(page: Page) -> None:
    together = page.locator(".looks").first.locator(".filters input")
    count = page.locator(".looks").first.locator(".panel").count()
    assert count > 1
    assert together.get_attribute("aria-valuetext") == "Student"
    together.focus()
    for key, name in (("Home", "Image"), ("End", "Baseline 2")):
        together.press(key)
        assert together.get_attribute("aria-valuetext") == name
        assert all(state(page, 0, panel) == only(name) for panel in range(count))
    assert state(page, 1, 0) == only("Student")


def test_filters_leave_the_images_that_fit(page: Page) -> None:
    looks = page.locator(".looks").last
    data = looks.locator(".panel").evaluate_all(
        "panels => panels.map(({dataset}) => ({...dataset}))"
    )
    sources = sorted({one["source"] for one in data})
    assert NASTY in sources

    def fits(one: dict[str, str], source: str, outcome: str, agreement: str) -> bool:
        r = float(one["agreement"]) if one["agreement"] else math.nan
        asked = {"": True, "high": r >= 0.5, "low": r < 0.5, "none": math.isnan(r)}
        return (
            source in ("", one["source"]) and outcome in ("", one["outcome"]) and asked[agreement]
        )

    seen = set()
    choices = itertools.product(["", *sources], ["", "hit", "miss"], ["", "high", "low", "none"])
    for choice in choices:
        for name, value in zip(("source", "outcome", "agreement"), choice, strict=True):
            looks.locator(f"select[name={name}]").select_option(value)
        expected = [fits(one, *choice) for one in data]
        visible = [looks.locator(".panel").nth(n).is_visible() for n in range(len(data))]
        assert visible == expected, choice
        words = f"{sum(expected)} of {len(data)} images"
        assert looks.locator(".count").inner_text() == words
        seen.add(sum(expected))
    assert len(seen) > 2  # the filters have something to choose from
    assert page.locator(".looks").first.locator(".panel:visible").count() == len(data)


def column(page: Page, place: int) -> list[str]:
    """A column of the first table by source, as a reader sees it."""
    cells = page.locator("table.sortable").first.locator(f"tbody tr > :nth-child({place + 1})")
    return [text.replace("▲", "").strip() for text in cells.all_inner_texts()]


def test_a_table_by_source_sorts_by_any_column(page: Page) -> None:
    table = page.locator("table.sortable").first
    heads = table.locator("thead th")
    rows = set(table.locator("tbody tr").all_inner_texts())
    assert len(rows) == 3
    place = heads.all_inner_texts().index("Student")

    def order() -> list[str | None]:
        return [heads.nth(n).get_attribute("aria-sort") for n in range(heads.count())]

    assert order() == [None] * heads.count()
    table.locator("tbody").evaluate(
        """(body, place) => ["−0.200 ± 0.1", "–", "0.100 ± 0.2"].forEach((text, row) => {
            body.rows[row].cells[place].textContent = text;
        })""",
        place,
    )
    button = heads.nth(place).locator("button")
    button.click()
    assert column(page, place) == ["0.100 ± 0.2", "−0.200 ± 0.1", "–"]
    assert order()[place] == "descending"
    button.press("Enter")
    assert column(page, place) == ["−0.200 ± 0.1", "0.100 ± 0.2", "–"]
    assert order()[place] == "ascending"
    assert order().count(None) == heads.count() - 1

    heads.nth(1).locator("button").click()
    values = [float(text.split()[0]) for text in column(page, 1)]
    assert values == sorted(values, reverse=True)
    assert order()[1] == "descending"
    assert order()[place] is None

    names = ["kind 1 (2)", "kind 2 (2)", "kind 10 (2)"]  # numbers in names count as numbers
    for expected in (names[::-1], names):
        heads.first.locator("button").click()
        assert column(page, 0) == expected
    assert table.locator("tbody tr").count() == len(rows)


def test_rows_stay_whole_when_they_are_sorted(page: Page) -> None:
    table = page.locator("table.sortable").first
    rows = sorted(table.locator("tbody tr").all_inner_texts())
    for place in range(table.locator("thead th").count()):
        table.locator("thead th").nth(place).locator("button").click()
        assert sorted(table.locator("tbody tr").all_inner_texts()) == rows


BOXES = """tiles => tiles.map((tile) => {
  const box = tile.getBoundingClientRect();
  return [box.left, box.right, box.top, Number(getComputedStyle(tile).opacity)];
})"""


def assert_side_by_side(page: Page) -> None:
    """All maps of every panel stand in a row, none faded."""
    panels = page.locator(".panel")
    assert panels.count() > 2
    for place in range(panels.count()):
        tiles = panels.nth(place).locator(".tile")
        boxes = tiles.evaluate_all(BOXES)
        assert len(boxes) == len(MAPS)
        for (_, right, top, _), (left, _, next_top, _) in itertools.pairwise(boxes):
            assert right <= left
            assert top == next_top
        assert all(box[1] - box[0] > 40 and box[3] == 1 for box in boxes)
        names = tiles.locator("> span:first-child")
        assert names.all_inner_texts() == MAPS


def test_without_scripts_nothing_is_missing(
    browser: Browser, two_domains: Written, page: Page
) -> None:
    with shown(browser, two_domains.out, java_script_enabled=False) as plain:
        assert_side_by_side(plain)
        for hidden in (".filters", ".blend", "th button"):
            assert plain.locator(f"{hidden}:visible").count() == 0
        for kind in ("table", "tbody tr", "td", "svg", ".panel", "details"):
            assert plain.locator(kind).count() == page.locator(kind).count() > 0
        assert page.locator(".filters:visible").count() == 2
        assert page.locator(".blend:visible").count() == page.locator(".panel").count()


LOOKS = """() => [...document.querySelectorAll("svg[role=img], svg[viewBox]")]
  .filter((one) => !one.closest("[aria-hidden=true], .legend"))
  .map((one) => [...one.querySelectorAll("text, path, line, circle, rect[class]")]
  .filter((part) => !part.closest(".legend"))
  .map((part) => {
    const style = getComputedStyle(part);
    const names = ["fill", "fillOpacity", "stroke", "strokeWidth", "strokeDasharray"];
    if (part.localName === "text") names.push("fontSize", "fontWeight");
    return [part.localName, ...names.map((name) => style[name])].join(" ");
  }))"""


def test_a_figure_looks_in_its_file_as_on_the_page(page: Page, two_domains: Written) -> None:
    there = page.evaluate(LOOKS)
    names = page.locator("figure a[download$='.svg']").evaluate_all(
        "links => links.map((link) => link.download)"
    )
    assert len(there) == len(names) > 18
    for name, expected in zip(names, there, strict=True):
        page.goto((two_domains.out / "figures" / name).as_uri())
        assert page.evaluate(LOOKS) == [expected], name
    page.goto("about:blank")


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
    for hidden in ("nav", ".skip", ".filters", ".get", ".blend"):
        assert page.locator(hidden).count() > 0
        assert page.locator(f"{hidden}:visible").count() == 0
    # What is folded is printed where no script could open it, too.
    assert page.locator("details.fold table").first.is_visible()


def test_downloads_are_the_files_beside_the_page(page: Page, two_domains: Written) -> None:
    page.evaluate(OPEN)
    links = page.locator("a[download]")
    names = [str(link.get_attribute("download")) for link in links.all()]
    beside = {
        file.name: file for kind in ("tables", "figures") for file in _files(two_domains, kind)
    }
    assert sorted(names) == sorted(beside)
    for ending in (".csv", ".tex", ".svg"):
        places = [place for place, name in enumerate(names) if name.endswith(ending)]
        for place in (places[0], places[len(places) // 2], places[-1]):
            with page.expect_download() as download:
                links.nth(place).click()
            assert download.value.suggested_filename == names[place]
            assert download.value.path().read_bytes() == beside[names[place]].read_bytes()


def _files(written: Written, kind: str) -> list[Path]:
    return list((written.out / kind).iterdir())
