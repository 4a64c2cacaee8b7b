"""The page to try an image, in a real browser on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browsers import check_rules, start_browser
from tests.deploy.serving import Running, running
from tests.image_files import ImageFiles

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from start_browser()


def opened(browser: Browser, address: str) -> tuple[Page, list[str]]:
    """The page, and what goes wrong on it: errors, messages, requests to others."""
    page, wrong = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda one: (
            wrong.append(one.url)
            if not one.url.startswith((f"http://{address}/", "data:", "blob:"))
            else None
        ),
    )
    page.goto(f"http://{address}/")
    return page, wrong


def test_an_image_is_predicted_and_shown(
    server: Running, browser: Browser, pictures: ImageFiles
) -> None:
    page, wrong = opened(browser, server.address)
    page.wait_for_selector("#model option >> nth=1", state="attached")
    page.set_input_files("#file", str(pictures.good[0]))
    page.wait_for_selector("#result:not([hidden])")
    (wanted,) = server.post(pictures.good[0].read_bytes()).json["predictions"]
    assert page.inner_text("#decision") == wanted["decision"]
    assert page.inner_text("#score") == f"Score {wanted['score']:.4f}, threshold 0.5"
    assert page.inner_text("#caption") == "Map of the class “fake”"
    rows = page.locator("#classes tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["real", "fake"]
    pixels = "document.getElementById('canvas').toDataURL()"
    with_map = page.evaluate(pixels)
    page.locator("#opacity").fill("0")
    assert page.evaluate(pixels) != with_map
    page.select_option("#threshold", "fdr=0.05")
    page.wait_for_function("() => document.getElementById('score').textContent.endsWith('0.25')")
    page.select_option("#model", "three")
    page.wait_for_function("() => document.querySelectorAll('#classes tr').length === 3")
    assert page.is_hidden("#threshold-field")
    assert not wrong


def test_a_bad_image_and_a_missing_key_are_told(
    served_folders: dict[str, Path], browser: Browser, pictures: ImageFiles, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    with running({"best": served_folders["best"]}, keys=keys) as server:
        page, _ = opened(browser, server.address)
        page.wait_for_selector("#key-field:not([hidden])")
        assert page.inner_text("#status") == "Enter an API key."
        page.fill("#key", "0123456789abcdef")
        page.locator("#key").press("Tab")
        page.wait_for_selector("#threshold option >> nth=1", state="attached")
        bad = next(path for path in pictures.bad if path.name == "c text.png")
        page.set_input_files("#file", str(bad))
        page.wait_for_selector("#status.bad")
        assert page.inner_text("#status").startswith("c text.png: not an image")
        assert page.is_hidden("#result")
        page.set_input_files("#file", str(pictures.good[1]))
        page.wait_for_selector("#result:not([hidden])")


def test_the_page_is_accessible(server: Running, browser: Browser, pictures: ImageFiles) -> None:
    page, wrong = opened(browser, server.address)
    page.set_input_files("#file", str(pictures.good[0]))
    page.wait_for_selector("#result:not([hidden])")
    page.set_viewport_size({"width": 380, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not check_rules(page).broken
    page.emulate_media(color_scheme="dark")
    assert not check_rules(page, runOnly=["color-contrast"]).broken
    assert not wrong
