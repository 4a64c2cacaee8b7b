"""Speed of the page of `preceptor label` in Chromium: frames of a stroke, and the next image.

  python benchmarks/label_page.py [--seconds S] [--images N]

Frames: the mouse draws on an image of 16 megapixels, as a whole and enlarged, while timestamps of
requestAnimationFrame are kept; a display of 60 Hz allows for 60. Without a stroke, the same
movement says what the browser and the machine allow for. Where other work keeps the machine busy,
the processor time of the page's main thread for each frame says more: 50 frames a second leave
20 ms. Next image: the time from the key N until the frame after the one in which the next image of
1 megapixel is drawn, with images loaded ahead, and the processor time of the main thread in it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from label_browser import PHOTOGRAPHS, browser, enter, saved, served, write_photographs
from measure import machine
from PIL import Image

TICK = """() => {
  window.stamps = [];
  window.ticking = true;
  const tick = (time) => {
    window.stamps.push(time);
    if (window.ticking) requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""
NEXT = """() => new Promise((done) => {
  const from = performance.now(), before = document.body.dataset.image;
  const key = { key: "n", code: "KeyN", bubbles: true, cancelable: true };
  document.getElementById("stage").dispatchEvent(new KeyboardEvent("keydown", key));
  const look = () => {
    if (document.body.dataset.image === before) requestAnimationFrame(look);
    // Drawn in this frame or the next, and on the screen at the one after that.
    else requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - from)));
  };
  requestAnimationFrame(look);
})"""


class MainThread:
    """Processor time of the main thread of a page."""

    def __init__(self, page: Any) -> None:
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(self) -> float:
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def measure(name: str, page: Any, seconds: float, draws: bool) -> None:
    """Frames a second while the mouse moves, and what each costs."""
    thread = MainThread(page)
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(x + 200, y)
    if draws:
        page.mouse.down()
    page.evaluate(TICK)
    begun = thread.seconds()
    end, step = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        step += 1
        page.mouse.move(x + 200 * math.cos(step / 15), y + 150 * math.sin(step / 11))
    spent = thread.seconds() - begun
    stamps = page.evaluate("() => { window.ticking = false; return window.stamps; }")
    if draws:
        page.mouse.up()
        saved(page)
    gaps = np.diff(stamps)
    found = 1000 / gaps[gaps > 0]
    low, cost = np.percentile(found, 5), 1000 * spent / len(found)
    print(
        f"{name:<26} median {np.median(found):5.1f}  5 % {low:5.1f}  mean "
        f"{1000 / gaps.mean():5.1f}  main thread {cost:5.1f} ms a frame"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--images", type=int, default=20)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary, browser() as chromium:
        folder = Path(temporary)
        large = write_photographs(folder / "photographs", 1000, PHOTOGRAPHS[:1]) / "coffee.jpg"
        (folder / "large").mkdir()
        Image.open(large).resize((4900, 3266)).save(folder / "large" / "coffee.jpg", quality=90)
        for width, height in ((1280, 720), (1920, 1080)):
            home = folder / f"{width}"
            home.mkdir()
            with served(folder / "large", home) as link:
                page = chromium.new_page(viewport={"width": width, "height": height})
                enter(page, link)
                page.wait_for_load_state("networkidle")
                print(f"\nframes a second at {width} × {height}, image of 16 megapixels")
                measure("movement without a stroke", page, given.seconds, False)
                measure("stroke, whole image", page, given.seconds, True)
                for _ in range(6):
                    page.keyboard.press("+")
                page.wait_for_load_state("networkidle")
                measure("stroke, enlarged", page, given.seconds, True)
                page.close()

        small = folder / "small"
        write_photographs(small, 1225)
        for number in range(given.images):
            copy = small / f"copy-{number}.jpg"
            Image.open(small / f"{PHOTOGRAPHS[number % 3]}.jpg").save(copy, quality=95)
        home = folder / "next"
        home.mkdir()
        with served(small, home) as link:
            page = chromium.new_page(viewport={"width": 1280, "height": 720})
            enter(page, link)
            thread, times, costs = MainThread(page), [], []
            for _ in range(given.images):
                page.mouse.move(500, 300)
                page.mouse.down()
                page.mouse.move(600, 350, steps=4)
                page.mouse.up()
                saved(page)
                page.wait_for_load_state("networkidle")  # a person looks at the image meanwhile
                begun = thread.seconds()
                times.append(page.evaluate(NEXT))
                costs.append(1000 * (thread.seconds() - begun))
            cost, most = np.median(costs), np.percentile(costs, 95)
            middle, last = np.median(times), np.percentile(times, 95)
            print(
                f"\nfrom the key to the next image of 1 megapixel on the screen, {len(times)} "
                f"images: median {middle:.0f} ms, 95 % {last:.0f} ms; main thread {cost:.0f} ms, "
                f"95 % {most:.0f} ms"
            )


if __name__ == "__main__":
    main()
