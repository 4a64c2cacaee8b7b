"""Kills of the server of `preceptor label` while people mark: nothing acknowledged is lost.

    python benchmarks/label_kill.py --kills 20 --people 5
    python benchmarks/label_kill.py --clicks MANIFEST --to FOLDER

People send every change again until it is acknowledged, as the page does. Afterwards the maps of
each person in the export are compared with what the person remembers, pixel by pixel.

`--clicks`: 60 training images of a manifest with masks are marked in Chromium with `--quick`, half
by mouse at 1280 pixels, half by touch at 390. A click is in the middle of the largest region, N is
for images without a mask. An image takes a random time, 1.9 s in the median: a click takes an
eighteenth of the 35 s of a box (Papadopoulos, Uijlings, Keller, Ferrari, CVPR 2017). The server
is killed during two clicks, and the window is closed with each. FOLDER has the database and its
export.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.browsers import start_browser
from tests.commands import apart
from tests.label.crowd import kill_while_people_draw
from tests.label.pages import (
    Point,
    another_tab,
    click,
    leave,
    name,
    opened,
    other,
    place,
    saved,
    served_apart,
)

from preceptor.data.images import decode_map

TELEPHONE: dict[str, Any] = {"has_touch": True, "is_mobile": True}
TELEPHONE |= {"viewport": {"width": 390, "height": 844}}


def export(database: Path, to: Path) -> None:
    told = apart("label", "export", database, "--to", to)
    assert told.code == 0, told
    print(told.out.strip())


def middle(mask: Path) -> Point:
    """Pixel of the largest region that is farthest from its edge."""
    regions, _ = ndimage.label(decode_map(mask) >= 0.5)
    largest = regions == np.bincount(regions.ravel())[1:].argmax() + 1
    inside = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return int(x), int(y)


def click_images(manifest: Path, to: Path, count: int = 60) -> None:
    """Click images at a person's pace, and compare the database with the clicks."""
    table, rng = pd.read_csv(manifest), np.random.default_rng(0)
    table["path"] = [str((manifest.parent / path).absolute()) for path in table["path"]]
    masks = {Path(row["path"]).name: row["saliency"] for _, row in table.iterrows()}
    to.mkdir(parents=True)
    table.assign(saliency="", annotated=0).to_csv(to / "manifest.csv", index=False)
    clicked = dict[str, Point | None]()
    with (
        contextlib.contextmanager(start_browser)() as browser,
        served_apart(to / "manifest.csv", to, "--quick", "--splits", "train") as server,
    ):
        for how, until in ({}, count // 2), (TELEPHONE, count):
            before, started = len(clicked), time.monotonic()
            with opened(browser, server, may_say="Failed to load", **how) as page:
                killed = False
                while len(clicked) < until:
                    image = name(page)
                    page.wait_for_timeout(1000 * rng.lognormal(np.log(1.9), 0.4))
                    marked = isinstance(masks[image], str)
                    point = middle(manifest.parent / masks[image]) if marked else None
                    clicked[image] = point
                    if point and not killed and len(clicked) >= until - count // 4:
                        killed = True
                        server.kill()
                        press = page.touchscreen.tap if how else page.mouse.click
                        press(*place(page, point))
                        page.get_by_text("Not saved: the server is not reached.").wait_for()
                        page.close(run_before_unload=False)
                        server.start()
                        page = another_tab(page.context, server, "Ada")
                        saved(page)
                    elif point:
                        click(page, point, touch=bool(how))
                    elif how:
                        page.locator("[data-do=nothing]").tap()
                        other(page, image)
                    else:
                        leave(page, "n")
                saved(page)
            assert killed
            minutes, done = (time.monotonic() - started) / 60, len(clicked) - before
            print(f"{done} images in {minutes:.1f} min, a kill among them", flush=True)
        rows = server.ask(
            "SELECT path, state, x, y FROM answers JOIN images ON images.id = answers.image "
            "LEFT JOIN strokes ON strokes.image = images.id AND undone = 0"
        )
        found = {
            Path(path).name: (x, y) if state == "marked" else None for path, state, x, y in rows
        }
    marks = sum(point is not None for point in clicked.values())
    print(f"{len(clicked)} images, {marks} clicks; as clicked: {found == clicked}")
    assert found == clicked
    assert len(rows) == count
    export(to / "label.sqlite", to / "export")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--between", type=float, default=3.0, help="largest time before a kill")
    parser.add_argument("--clicks", type=Path, metavar="MANIFEST", help="click its images instead")
    parser.add_argument("--to", type=Path, help="new folder, of --clicks")
    given = parser.parse_args()
    if bool(given.clicks) != bool(given.to):
        parser.error("--clicks and --to belong together")
    if given.clicks:
        click_images(given.clicks, given.to)
        return
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_while_people_draw(
            Path(folder),
            people=given.people,
            kills=given.kills,
            between=given.between,
            export=export,
        )
    print(f"{given.kills} kills, {given.people} people: {counts}")
    assert counts["kept"] == counts["exported"] == counts["acknowledged"]
    assert counts["different"] == counts["unknown"] == 0


if __name__ == "__main__":
    main()
