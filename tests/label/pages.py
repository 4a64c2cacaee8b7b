"""The page of `preceptor label` in tests: server, Chromium, and expected pixels."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.label.db import connect
from preceptor.label.marks import mask_of
from tests.label.serving import Client, command, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

Mask = NDArray[np.bool_]
Point = tuple[int, int]
BARS = (52, 72, 280)
"""Height of the head, width of the tools and of the settings at 1280 × 720, in CSS pixels."""
SAVED = "() => document.getElementById('save').dataset.kind === 'saved'"
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
PLACE = """async ([x, y]) => {
  const { view } = await import("/static/canvas.js");
  const { left, top } = document.getElementById("stage").getBoundingClientRect();
  const [across, down] = view.toStage(x + 0.5, y + 0.5);
  return [across + left, down + top];
}"""
SHOWN = "body[data-image]:not([data-image=''])"


@dataclass
class Served:
    """A server of `preceptor label`."""

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
        """Address of the page with the token."""
        return f"{self.place()}?token={self.token}"

    def cookie(self, person: str) -> dict[str, str]:
        """Cookie of a browser in which a person has signed in."""
        client = Client(self.address).enter(self.token, person)
        client.close()
        name, _, value = client.headers["cookie"].partition("=")
        return {"name": name, "value": value, "url": self.place()}

    def ask(self, statement: str, *values: object) -> list[Any]:
        """Rows of the database, beside the server."""
        with closing(connect(self.database, readonly=True)) as connection:
            return [tuple(row) for row in connection.execute(statement, values)]

    def strokes(self, image: str) -> list[tuple[Any, ...]]:
        """Tools of the strokes on an image and whether they erase, by its file name."""
        return self.ask(
            "SELECT tool, erase FROM strokes JOIN images ON images.id = image "
            "WHERE path LIKE ? ORDER BY number",
            f"%{image}",
        )

    def mask(self, image: str, person: str = "Ada") -> Mask:
        """Mask of a person on an image, as the export folds it."""
        with closing(connect(self.database, readonly=True)) as connection:
            number, width, height = connection.execute(
                "SELECT id, width, height FROM images WHERE path LIKE ?", (f"%{image}",)
            ).fetchone()
            own = connection.execute("SELECT id FROM people WHERE name = ?", (person,)).fetchone()
            return mask_of(connection, number, own["id"]).whole(width, height)


@dataclass
class ServedApart(Served):
    """The same as a process of its own, which can be killed and started again at its port."""

    source: Path = Path()
    options: Sequence[str] = ()
    process: subprocess.Popen[str] | None = None
    _ended: ExitStack = field(default_factory=ExitStack, repr=False)

    def start(self) -> ServedApart:
        port = self.address.partition(":")[2] or 0
        started = command(self.source, "--database", self.database, "--port", port, *self.options)
        one = self._ended.enter_context(started)
        self.address, self.token, self.process = one.address, one.token, one.process
        return self

    def kill(self) -> None:
        """End the server as a power failure would."""
        self._ended.close()


@contextmanager
def served(source: Path, folder: Path, **options: Any) -> Iterator[Served]:
    """A server in a thread that ends with the context; its database is in a folder."""
    database = folder / "label.sqlite"
    with running(source, database, **options) as one:
        yield Served(database, one.address, one.token)


@contextmanager
def served_apart(source: Path, folder: Path, *options: str) -> Iterator[ServedApart]:
    """A server as a process of its own."""
    one = ServedApart(folder / "label.sqlite", source=source, options=options)
    try:
        yield one.start()
    finally:
        one.kill()


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
    """The page in a window of its own; what it says on the console fails the test."""
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
    """Where a fitted image is on the screen: a margin of 24 pixels, or 4 % of a small stage."""

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


def brush_size(page: Page, fit: Fit, zoom: float = 1) -> float:
    """Size of the brush in pixels of a fitted image, from pixels of the screen as the page says."""
    said = page.locator("#size-value").text_content() or ""
    return int(said.split()[0]) / fit.scale / zoom


def toast(page: Page) -> str:
    """What the page has said in passing."""
    return page.locator("#toast").text_content() or ""


def name(page: Page) -> str:
    """File name of the image at hand; "" at the end."""
    return page.locator("#name").text_content() or ""


def other_than(page: Page, before: str) -> str:
    """Wait until another image is shown and all is saved; its name."""
    page.wait_for_function(
        "(before) => document.getElementById('name').textContent !== before", arg=before
    )
    saved(page)
    return name(page)


def place(page: Page, point: Point) -> tuple[float, float]:
    """Where a pixel of the image at hand is on the page."""
    x, y = page.evaluate(PLACE, list(point))
    return float(x), float(y)


def click(page: Page, *points: Point, touch: bool = False) -> str:
    """Click pixels, all but the last one with Shift; the image that was left by the last one."""
    before = name(page)
    for at, point in enumerate(points, 1):
        spot = place(page, point)
        if touch:
            page.touchscreen.tap(*spot)
            continue
        if at < len(points):
            page.keyboard.down("Shift")
        page.mouse.click(*spot)
        page.keyboard.up("Shift")
    other(page, before)
    return before


def other(page: Page, before: str) -> None:
    page.wait_for_function(
        "(name) => document.getElementById('name').textContent !== name", arg=before
    )


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def leave(page: Page, *keys: str) -> str:
    """Press keys of which the last leads to another image; the name of the image before."""
    before = name(page)
    press(page, *keys)
    other_than(page, before)
    return before


def choose_person(page: Page, person: str) -> None:
    """Let another person take over in this tab."""
    page.locator("#who").click()
    page.fill("#person", person)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "(person) => document.getElementById('who').textContent === person", arg=person
    )


def pen(page: Page, steps: Sequence[tuple[str, tuple[float, float], float]]) -> None:
    """Send events of a pen: kind, point of the page, pressure."""
    session = page.context.new_cdp_session(page)
    for kind, (x, y), force in steps:
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        event |= {"buttons": int(force > 0), "pointerType": "pen", "force": force}
        session.send("Input.dispatchMouseEvent", event)
