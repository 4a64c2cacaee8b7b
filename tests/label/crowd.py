"""People who draw while the server is killed and started again, and who know what they drew."""

from __future__ import annotations

import http.client
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preceptor.data.images import decode_map
from preceptor.label.marks import Bits
from tests.label.serving import Client, blob, command, disc, point_of, stroke_of
from tests.serving import Told

SIZE = (96, 64)


@dataclass
class Drawn:
    """One acknowledged stroke."""

    name: str
    mask: Bits
    erase: bool
    undone: bool = False
    buried: bool = False  # undone for good


@dataclass
class Drawer:
    """One person; every change is sent again until it is acknowledged, as the page does."""

    client: Client
    images: list[int]
    draw: np.random.Generator
    drawn: dict[int, list[Drawn]] = field(default_factory=dict)
    repeated: int = 0

    def sent(self, send: Callable[..., Told], *arguments: Any, **more: Any) -> Told:
        """Send until the server answers, for 100 seconds at least."""
        for _ in range(2000):
            try:
                told = send(*arguments, **more)
            except (OSError, http.client.HTTPException):
                self.repeated += 1
                time.sleep(0.05)  # until the server is there again
                continue
            assert told.status == 200, told
            return told
        raise AssertionError("the server has not come back")

    def work(self, stop: threading.Event) -> None:
        """Draw until the end, and answer."""
        while not stop.is_set():
            image = self.images[int(self.draw.integers(len(self.images)))]
            self.change(image, self.drawn.setdefault(image, []))
        for image in self.drawn:
            state = "marked" if self.mask(image).any() else "nothing"
            self.sent(self.client.answer, image, state)

    def change(self, image: int, strokes: list[Drawn]) -> None:
        kind = self.draw.random()
        done = [one for one in strokes if not one.undone]
        undone = [one for one in strokes if one.undone and not one.buried]
        if kind < 0.15 and done:
            self.sent(self.client.turn, image, "undo", done[-1].name)
            done[-1].undone = True
        elif kind < 0.25 and undone:
            self.sent(self.client.turn, image, "redo", undone[0].name)
            undone[0].undone = False
        else:
            if kind < 0.45:
                x, y = (int(self.draw.integers(end)) for end in SIZE)
                mask = disc(x, y, SIZE)
                body = point_of(x, y, SIZE, self.client.tab)
            else:
                mask = blob(*SIZE, int(self.draw.integers(10_000)))
                body = stroke_of(mask, self.client.tab)
                body["erase"] = bool(self.draw.random() < 0.3)
            self.sent(self.client.post, f"/api/images/{image}/strokes", body)
            for one in undone:
                one.buried = True
            strokes.append(Drawn(body["uuid"], mask, body["erase"]))

    def mask(self, image: int) -> Bits:
        mask = np.zeros(SIZE[::-1], bool)
        for one in self.drawn[image]:
            if not one.undone:
                mask = mask & ~one.mask if one.erase else mask | one.mask
        return mask


def kill_while_people_draw(
    folder: Path, *, people: int, kills: int, between: float, export: Callable[[Path, Path], None]
) -> dict[str, Any]:
    """Kill a server again and again while people draw, and compare the export with their memory.

    People draw, click, undo and redo. Returns counts: acknowledged strokes, strokes in the database
    and in maps of the export, maps that differ, requests that were repeated. `between` is the
    longest time before a kill.
    """
    (folder / "images").mkdir()
    rows = ["path,label,split"]
    for at in range(people * 2):
        Image.fromarray(np.full((*SIZE[::-1], 3), at, np.uint8)).save(folder / f"images/{at}.png")
        rows.append(f"images/{at}.png,{'ab'[at % 2]},train")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    draw, stop, port = np.random.default_rng(0), threading.Event(), "0"
    crowd: list[Drawer] = []
    names: dict[int, str] = {}
    with ThreadPoolExecutor(people) as pool:
        try:
            for number in range(kills + 1):
                options = ["--port", port, "--overlap", people]
                with command(manifest, *options) as one:
                    port = one.address.split(":")[1]
                    if not crowd:
                        clients = [one.client(f"person {at}") for at in range(people)]
                        images = clients[0].queue()
                        names = {image: clients[0].image(image)["name"] for image in images}
                        crowd = [
                            Drawer(client, images, np.random.default_rng(at))
                            for at, client in enumerate(clients)
                        ]
                        working = [pool.submit(drawer.work, stop) for drawer in crowd]
                    if number < kills:
                        stop.wait(draw.uniform(0.2, 1) * between)
                        continue  # and it is killed
                    stop.wait(between)
                    stop.set()
                    for person in working:
                        person.result()
        finally:
            stop.set()
    return _compared(folder, crowd, names, export)


def _compared(
    folder: Path, crowd: list[Drawer], names: dict[int, str], export: Callable[[Path, Path], None]
) -> dict[str, Any]:
    database, out = folder / "manifest.label.sqlite", folder / "out"
    export(database, out)
    with closing(sqlite3.connect(database)) as connection:
        undone = dict(connection.execute("SELECT uuid, undone FROM strokes").fetchall())
    counts = {"acknowledged": 0, "kept": 0, "exported": 0, "maps": 0, "different": 0}
    for at, drawer in enumerate(crowd):
        for image, strokes in drawer.drawn.items():
            file = out / "annotators" / f"person {at}" / "images" / names[image]
            same = bool(((decode_map(file) >= 0.5) == drawer.mask(image)).all())
            counts["acknowledged"] += len(strokes)
            counts["kept"] += sum(
                one.name in undone and bool(undone[one.name]) == one.undone for one in strokes
            )
            counts["maps"] += 1
            counts["different"] += not same
            counts["exported"] += len(strokes) if same else 0
    counts["unknown"] = len(undone) - counts["acknowledged"]
    counts["repeated"] = sum(drawer.repeated for drawer in crowd)
    return counts
