"""The page of `preceptor label` in tests: server, Chromium, and expected pixels."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.label.serving import Client, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

Mask = NDArray[np.bool_]
BARS = (52, 72, 280)
"""Height of the head, width of the tools and of the settings at 1280 × 720, in CSS pixels."""
SAVED = "() => document.getElementById('save').dataset.kind === 'saved'"
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
SHOWN = "body[data-image]:not([data-image=''])"


@dataclass
class Served:
    """A server of `preceptor label`.

    Args:
        database: SQLite file.
        address: Host and port.
        token: Token of the link.
    """

    database: Path
    address: str = ""
    token: str = ""

    def place(self, image: str = "") -> str:
        """Address of the page, or of an image by its file name."""
        if not image:
            return f"http://{self.address}/"
        ((number,),) = self.ask("SELECT id FROM images WHERE path LIKE ?", f"%{image}")
        return f"http://{self.address}/#{number}"

    @property
    def link(self) -> str:
        """Address of the page with the token of the lead."""
        return f"{self.place()}?token={self.token}"

    def cookie(self, person: str) -> dict[str, str]:
        """Cookie of a browser in which a person has signed in."""
        client = Client(self.address).enter(self.token, person)
        client.close()
        name, _, value = client.headers["cookie"].partition("=")
        return {"name": name, "value": value, "url": self.place()}

    def ask(self, statement: str, *values: object) -> list[Any]:
        """Rows of the database, beside the server."""
        from preceptor.label.db import connect

        connection = connect(self.database, readonly=True)
        try:
            return [tuple(row) for row in connection.execute(statement, values)]
        finally:
            connection.close()

    def mask(self, image: str, person: str = "Ada", class_: str | None = None) -> Mask:
        """Mask of a person on an image, as the export folds it."""
        from preceptor.label.db import connect
        from preceptor.label.marks import masks_of

        connection = connect(self.database, readonly=True)
        try:
            row = connection.execute(
                "SELECT id, width, height FROM images WHERE path LIKE ?", (f"%{image}",)
            ).fetchone()
            own = connection.execute("SELECT id FROM people WHERE name = ?", (person,)).fetchone()
            masks = masks_of(connection, row["id"], own["id"])
        finally:
            connection.close()
        found = np.zeros((row["height"], row["width"]), bool)
        for name, patch in masks.items():
            if class_ in (None, name):
                found |= patch.whole(row["width"], row["height"])
        return found


@dataclass
class ServedApart(Served):
    """The same as a process of its own, which can be killed.

    Args:
        source: Manifest, or folder of images.
        port: Port; 0 = a free one.
    """

    source: Path = Path()
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> ServedApart:
        """Start the server, on the same port as before."""
        command = [sys.executable, "-m", "preceptor", "label", "run", str(self.source), "--no-open"]
        command += ["--database", str(self.database), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(self.database.parent / "cache")},
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.match(r"open http://([^:]+:(\d+))/\?token=(\S+)", line):
                self.address, self.port, self.token = found[1], int(found[2]), found[3]
                return self
        raise AssertionError(f"the server did not start: {''.join(said)}")

    def kill(self) -> None:
        """End the server as a power failure would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End the server."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@contextmanager
def served(source: Path, folder: Path, **options: Any) -> Iterator[Served]:
    """A server in a thread that ends with the context; the database is `label.sqlite` of a folder.

    Args:
        source: Manifest, or folder of images.
        folder: Folder of the database and of caches.
        options: Settings of the server.
    """
    pytest.importorskip("uvicorn", reason="preceptor[web] is not installed")
    database = folder / "label.sqlite"
    with running(source, database, cache=folder / "cache", **options) as one:
        yield Served(database, one.address, one.token)


@contextmanager
def served_apart(source: Path, folder: Path) -> Iterator[ServedApart]:
    """A server as a process of its own."""
    pytest.importorskip("uvicorn", reason="preceptor[web] is not installed")
    one = ServedApart(folder / "label.sqlite", source=source)
    try:
        yield one.start()
    finally:
        one.close()


@contextmanager
def opened(
    browser: Browser,
    server: Served,
    person: str | None = "Ada",
    image: str | None = "",
    *,
    may_say: str = "status of 409",
    **how: Any,
) -> Iterator[Page]:
    """The page in a window of its own; what it says on the console fails the test.

    Args:
        browser: Browser.
        server: Server.
        person: Person who has signed in; None = the page asks for a name.
        image: File name of the first image; "" = the first of the queue; None = no image yet.
        may_say: Pattern of messages of the console that are expected; by default, that the image of
            the last test is still open in its tab, which was closed without a word.
        how: Options of the window.
    """
    how.setdefault("viewport", {"width": 1280, "height": 720})
    context: BrowserContext = browser.new_context(**how)
    if person is not None:
        context.add_cookies([server.cookie(person)])  # type: ignore[list-item]
    page = another_tab(context, server, person, image, may_say)
    yield page
    said = page.said  # type: ignore[attr-defined]
    assert not said, said
    context.close()


def another_tab(
    context: BrowserContext,
    server: Served,
    person: str | None,
    image: str | None = "",
    may_say: str = "",
) -> Page:
    """A further tab of a window, with the arguments of `opened`."""
    page, said = context.new_page(), list[str]()

    def hear(text: str) -> None:
        if not (may_say and re.search(may_say, text)):
            said.append(text)

    page.on("console", lambda one: hear(one.text))
    page.on("pageerror", lambda error: hear(str(error)))
    page.said = said  # type: ignore[attr-defined]
    if person is None:
        page.goto(server.link)
    elif image:
        show(page, server, image)
    elif image is not None:
        page.goto(server.place())
        page.wait_for_selector(SHOWN)
    return page


def sign_in(page: Page, person: str) -> None:
    """Choose a name, if the page asks for one, and wait for the first image."""
    page.wait_for_selector(f"#person, {SHOWN}")
    if page.locator("#person").count():
        page.fill("#person", person)
        page.keyboard.press("Enter")
    page.wait_for_selector(SHOWN)


def show(page: Page, server: Served, name: str) -> None:
    """Show an image by its file name."""
    place = server.place(name)
    if page.url.startswith(server.place()):
        page.wait_for_function(SAVED)
        # From here on, an image that is on its way cannot replace the part of the address after #.
        page.goto("about:blank")
    page.goto(place)
    page.wait_for_selector(f"body[data-image='{place.rpartition('#')[2]}']")
    page.evaluate(DRAWN)


def saved(page: Page) -> None:
    """Wait until all is saved."""
    page.wait_for_function(SAVED)


def canvas(page: Page) -> str:
    """All pixels of the canvas of the marks, after it was drawn."""
    page.evaluate(DRAWN)
    return str(page.evaluate("() => document.getElementById('marks').toDataURL()"))


@dataclass(frozen=True)
class Fit:
    """Where a fitted image is on the screen: a margin of 24 pixels, or 4 % of a small stage.

    Args:
        width, height: Size of the image.
        viewport: Size of the window.
    """

    width: int
    height: int
    viewport: tuple[int, int] = (1280, 720)

    @property
    def scale(self) -> float:
        """Screen pixels to an image pixel."""
        wide, high, edge = self._stage()
        return min((wide - 2 * edge) / self.width, (high - 2 * edge) / self.height, 12)

    def _stage(self) -> tuple[float, float, float]:
        head, tools, settings = BARS
        wide, high = self.viewport[0] - tools - settings, self.viewport[1] - head
        return wide, high, min(24, 0.04 * min(wide, high))

    def image(self, x: float, y: float) -> tuple[float, float]:
        """Coordinates of the image, from those of the page."""
        wide, high, _ = self._stage()
        left = (wide - self.width * self.scale) / 2
        top = (high - self.height * self.scale) / 2
        return (x - BARS[1] - left) / self.scale, (y - BARS[0] - top) / self.scale

    def page(self, x: float, y: float) -> tuple[int, int]:
        """The whole page coordinates that are nearest to a point of the image."""
        zero, one = self.image(0, 0), self.image(1, 1)
        return round((x - zero[0]) / (one[0] - zero[0])), round((y - zero[1]) / (one[1] - zero[1]))


def centers(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the centers of all pixels."""
    return np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)


def brushed(
    width: int, height: int, points: Sequence[tuple[float, float]], radii: Sequence[float]
) -> Mask:
    """Pixels of a brush line: the center is at most the radius from the nearest point of a segment,
    or a point of the line is in the pixel.
    """
    xs, ys = centers(width, height)
    found = np.zeros((height, width), bool)
    pairs = list(zip(points, radii, strict=True))
    for (one, r0), (other, r1) in zip(pairs, pairs[1:] or pairs, strict=False):
        dx, dy = other[0] - one[0], other[1] - one[1]
        square = dx * dx + dy * dy
        along = (xs - one[0]) * dx + (ys - one[1]) * dy
        part = np.clip(along / square, 0, 1) if square else np.zeros_like(xs)
        away = np.hypot(xs - one[0] - part * dx, ys - one[1] - part * dy)
        found |= away <= r0 + part * (r1 - r0)
    for x, y in points:
        if 0 <= x < width and 0 <= y < height:
            found[int(y), int(x)] = True
    return found


def inside(width: int, height: int, points: Sequence[tuple[float, float]]) -> Mask:
    """Pixels whose center is in a polygon: a ray to the right crosses its edges an odd number of
    times.
    """
    xs, ys = centers(width, height)
    found = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 == y1:
            continue
        crosses = (np.minimum(y0, y1) <= ys) & (ys < np.maximum(y0, y1))
        found ^= crosses & (x0 + (ys - y0) * (x1 - x0) / (y1 - y0) > xs)
    return found


def write_images(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """Images of three flat regions with a little noise, so that the wand has something to find."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, (name, (width, height)) in enumerate(sizes.items()):
        rng = np.random.default_rng(at)
        xs, ys = centers(width, height)
        colors = np.array([[70, 90, 120], [190, 170, 90], [120, 40, 60]])
        disk = np.hypot(xs - width * 0.35, ys - height * 0.5) < 0.3 * min(width, height)
        region = np.where(disk, 1, np.where(xs > 0.8 * width, 2, 0))
        pixels = colors[region] + rng.integers(-3, 4, (height, width, 1))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


def drag(page: Page, points: Sequence[tuple[float, float]], button: Any = "left") -> None:
    """Draw a line with the mouse through points of the page."""
    page.mouse.move(*points[0])
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up(button=button)


def brush_size(page: Page) -> int:
    """Size of the brush in pixels of the image, as the page says it."""
    return int(page.locator("#size-value").text_content().split()[0])  # type: ignore[union-attr]


def toast(page: Page) -> str:
    """What the page has said in passing."""
    return page.locator("#toast").text_content() or ""
