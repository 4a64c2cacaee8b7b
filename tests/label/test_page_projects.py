"""Two projects that are served one after the other at the same address, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.label.pages import (
    Fit,
    another_tab,
    drag,
    saved,
    served,
    show,
    sign_in,
    write_images,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTH, HEIGHT = 80, 60
LINE = [Fit(WIDTH, HEIGHT).page(20, 20), Fit(WIDTH, HEIGHT).page(60, 30)]
EXPECTED = "Failed to load resource"
UNREACHED = "Not saved: the server is not reached."
PRESSED = (
    "() => [...document.querySelectorAll('[data-label][aria-pressed=true]')]"
    ".map((one) => one.dataset.label)"
)
SIZE = """async () => {
  const id = document.body.dataset.image;
  const { version } = await (await fetch(`/api/images/${id}`)).json();
  const picture = await fetch(`/api/images/${id}/whole?version=${version}`);
  const made = await createImageBitmap(await picture.blob());
  return [made.width, made.height];
}"""


def project(folder: Path, size: tuple[int, int]) -> Path:
    folder.mkdir()
    return write_images(folder / "images", dict.fromkeys(["a.png", "b.png"], size))


def test_what_is_not_saved_stays_with_its_project(browser: Browser, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    first, second = project(one, (WIDTH, HEIGHT)), project(other, (60, 80))
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    how = {"labels": ("real", "fake")}
    with served(first, one, **how) as server:
        port = int(server.address.split(":")[1])
        page = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(page, "Ada")
        show(page, server, "a.png")
        page.keyboard.press("2")
    drag(page, LINE)
    page.get_by_text(UNREACHED).wait_for()
    with served(second, other, port=port, **how) as server:
        # The open page does not hand its strokes to another project.
        tab = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(tab, "Ada")
        page.get_by_text("Another project is served at this address now.").wait_for()
        page.close()
        show(tab, server, "a.png")
        saved(tab)
        assert tab.evaluate(PRESSED) == []
        assert tab.evaluate(SIZE) == [60, 80]
        assert server.ask("SELECT count(*) FROM strokes") == [(0,)]
        tab.close()
    with served(first, one, port=port, **how) as server:
        tab = another_tab(context, server, None, may_say=EXPECTED)
        sign_in(tab, "Ada")
        saved(tab)
        assert np.count_nonzero(server.mask("a.png")) > 0
        show(tab, server, "a.png")
        assert tab.evaluate(PRESSED) == ["1"]
    context.close()
