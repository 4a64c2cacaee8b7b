"""Pictures of docs/label.md: the page of `preceptor label` in Chromium, with photographs.

python docs/pictures/label_pictures.py --to docs/images
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from label_browser import browser, enter, saved, served, write_photographs
from PIL import Image

SIDE = 1225
EYES = ((0.382, 0.385), (0.705, 0.455))
"""Centers of the eyes of the cat, as shares of the image's sides."""


def keep(page: Any, file: Path) -> None:
    """Write a picture of the page as WebP."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(file, quality=82, method=6)
    print(f"{file} {file.stat().st_size:,} bytes")


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Place of a point of the image, given as shares of its sides, while it is fitted."""
    box = page.locator("#stage").bounding_box()
    wide, high = page.evaluate(
        "async () => { const r = await fetch('/api/images/' + "
        "document.body.dataset.image); const i = await r.json(); "
        "return [i.width, i.height]; }"
    )
    scale = min((box["width"] - 48) / wide, (box["height"] - 48) / high)
    left = box["x"] + (box["width"] - wide * scale) / 2
    top = box["y"] + (box["height"] - high * scale) / 2
    return left + x * wide * scale, top + y * high * scale


def paint(page: Any, points: list[tuple[float, float]]) -> None:
    places = [on_screen(page, *point) for point in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    saved(page)


def show(page: Any, database: Path, name: str) -> None:
    saved(page)  # a page with changes that are not saved asks before it is left
    with sqlite3.connect(database) as connection:
        ((image,),) = connection.execute("SELECT id FROM images WHERE path LIKE ?", (f"%{name}",))
    page.goto(f"{page.url.split('#')[0]}#{image}")
    page.reload()
    page.wait_for_selector(f"body[data-image='{image}']")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    to = parser.parse_args().to
    with tempfile.TemporaryDirectory() as temporary, browser() as chromium:
        folder = Path(temporary)
        images = write_photographs(folder / "images", SIDE)
        manifest = folder / "manifest.csv"
        names = sorted(file.name for file in images.iterdir())
        pd.DataFrame(
            {
                "path": [f"images/{name}" for name in names],
                "label": ["camera", "generated"] * (len(names) // 2),
                "split": "train",
            }
        ).to_csv(manifest, index=False)
        with served(manifest, folder) as links:
            page = chromium.new_page(viewport={"width": 1280, "height": 720})
            enter(page, links["open"])
            database = folder / "label.sqlite"
            show(page, database, "chelsea.jpg")
            for x, y in EYES:
                paint(page, [(x - 0.03, y), (x + 0.02, y + 0.01), (x + 0.03, y - 0.02)])
            keep(page, to / "label.webp")
            page.emulate_media(color_scheme="dark")
            show(page, database, "coins.jpg")
            x, y = on_screen(page, 0.5, 0.5)
            page.mouse.move(x, y)
            page.keyboard.press("w")
            page.keyboard.press("l")
            page.mouse.click(*on_screen(page, 0.262, 0.115))
            saved(page)
            keep(page, to / "label-dark.webp")
        with served(manifest, folder, "--quick") as links:
            page = chromium.new_page(viewport={"width": 390, "height": 780})
            enter(page, links["open"])
            show(page, database, "chelsea.jpg")
            page.keyboard.down("Shift")
            page.mouse.click(*on_screen(page, *EYES[0]))
            page.keyboard.up("Shift")
            saved(page)
            keep(page, to / "label-quick.webp")


if __name__ == "__main__":
    main()
