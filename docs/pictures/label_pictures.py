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
from PIL import Image, ImageDraw, ImageFilter

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


def propose(manifest: Path, file: Path) -> Path:
    """Manifest with a map of the cat: its eyes, not quite where they are."""
    with Image.open(file) as image:
        width, height = image.size
    mask = Image.new("L", (width, height))
    for x, y in EYES:
        place = (x - 0.055, y - 0.07, x + 0.06, y + 0.06)
        box = [value * side for value, side in zip(place, (width, height) * 2, strict=True)]
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(width * 0.02))  # as a Teacher's map
    mask.save(manifest.with_name("eyes.png"))
    maps = manifest.with_name("maps.csv")
    maps.write_text(f"path,label,saliency\n{file},camera,eyes.png\n")
    return maps


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
                "source": ["museum", "museum", "street"] * (len(names) // 3),
            }
        ).to_csv(manifest, index=False)
        options = ["--classes", "evidence,text", "--overlap", "3"]
        with served(manifest, folder, *options, "--overlap-share", "1") as links:
            page = chromium.new_page(viewport={"width": 1280, "height": 720})
            enter(page, links["open"])
            database = folder / "label.sqlite"
            show(page, database, "chelsea.jpg")
            for x, y in EYES:
                paint(page, [(x - 0.03, y), (x + 0.02, y + 0.01), (x + 0.03, y - 0.02)])
            page.keyboard.press("Shift+Digit3")
            keep(page, to / "label.webp")
            page.keyboard.press("Control+z")
            page.keyboard.press("Control+z")
            saved(page)
        maps = propose(manifest, images / "chelsea.jpg")
        options += ["--overlap-share", "1", "--start-from", str(maps), "--links", "Grace,Mary"]
        with served(manifest, folder, *options) as links:
            enter(page, links["open"])
            show(page, database, "chelsea.jpg")
            page.wait_for_selector("#offer:not([hidden])")
            keep(page, to / "label-proposal.webp")
            page.keyboard.press("a")
            page.keyboard.press("n")
            page.emulate_media(color_scheme="dark")
            show(page, database, "coins.jpg")
            x, y = on_screen(page, 0.5, 0.5)
            page.mouse.move(x, y)
            page.keyboard.press("w")
            page.keyboard.press("l")
            page.mouse.click(*on_screen(page, 0.262, 0.115))
            saved(page)
            keep(page, to / "label-dark.webp")
            page.keyboard.press("b")
            page.emulate_media(color_scheme="light")
            for person in ("Grace", "Mary"):
                other = chromium.new_context(viewport={"width": 1280, "height": 720}).new_page()
                enter(other, links[person])
                for number, name in enumerate(("chelsea.jpg", "coffee.jpg", "camera.jpg")):
                    show(other, database, name)
                    shift = 0.01 * len(person)
                    for x, y in EYES[: 2 - number // 2]:
                        paint(other, [(x - 0.03, y + shift), (x + shift, y)])
                    other.keyboard.press("n")
                    saved(other)
            page.locator("#to-lead").click()
            page.get_by_role("heading", name="Agreement of two people").wait_for()
            keep(page, to / "label-lead.webp")


if __name__ == "__main__":
    main()
