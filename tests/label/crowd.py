"""People who draw while the server is killed and started again, and who know what they drew."""

from __future__ import annotations

import http.client
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.label.marks import Bits
from tests.label.serving import Client, Told, blob, command, stroke_of

SIZE = (96, 64)


@dataclass
class Drawn:
    """One acknowledged stroke."""

    name: str
    mask: Bits
    erase: bool
    undone: bool = False
    buried: bool = False


@dataclass
class Drawer(threading.Thread):
    """One person; every change is sent again until it is acknowledged, as the page does."""

    client: Client
    images: list[int]
    seed: int
    stop: threading.Event
    drawn: dict[int, list[Drawn]] = field(default_factory=dict)
    repeated: int = 0
    error: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def sent(self, send: Callable[[], Told]) -> Told:
        """Answer of the server, as soon as there is one."""
        while True:
            try:
                told = send()
            except (OSError, http.client.HTTPException):
                self.repeated += 1
                time.sleep(0.05)  # until the server is there again
                continue
            assert told.status == 200, told
            return told

    def run(self) -> None:
        draw = np.random.default_rng(self.seed)
        try:
            while not self.stop.is_set():
                image = self.images[int(draw.integers(len(self.images)))]
                strokes = self.drawn.setdefault(image, [])
                self.change(image, strokes, draw)
            for image, strokes in self.drawn.items():
                state = "marked" if self.mask(strokes).any() else "nothing"
                self.sent(lambda image=image, state=state: self.client.answer(image, state))  # type: ignore[misc]
        except BaseException as error:
            self.error = error

    def change(self, image: int, strokes: list[Drawn], draw: np.random.Generator) -> None:
        kind = draw.random()
        done = [one for one in strokes if not one.undone]
        undone = [one for one in strokes if one.undone and not one.buried]
        if kind < 0.15 and done:
            self.sent(lambda: self.client.turn(image, "undo", done[-1].name))
            done[-1].undone = True
        elif kind < 0.25 and undone:
            self.sent(lambda: self.client.turn(image, "redo", undone[0].name))
            undone[0].undone = False
        else:
            mask, erase = blob(*SIZE, int(draw.integers(10_000))), bool(draw.random() < 0.3)
            body = stroke_of(mask, self.client.tab) | {"erase": erase, "uuid": str(uuid.uuid4())}
            self.sent(lambda: self.client.post(f"/api/images/{image}/strokes", body))
            for one in undone:
                one.buried = True
            strokes.append(Drawn(body["uuid"], mask, erase))

    @staticmethod
    def mask(strokes: list[Drawn]) -> Bits:
        mask = np.zeros(SIZE[::-1], bool)
        for one in strokes:
            if not one.undone:
                mask = mask & ~one.mask if one.erase else mask | one.mask
        return mask


def kill_while_people_draw(
    folder: Path, *, people: int, kills: int, between: float, export: Callable[[Path, Path], None]
) -> dict[str, Any]:
    """Kill a server again and again while people draw, and compare the export with their memory.

    Args:
        folder: Empty folder.
        people: Number of people.
        kills: Number of SIGKILLs.
        between: Longest time between the start and a kill, in seconds.
        export: Function of the database and a folder that exports.

    Returns:
        Counts: acknowledged strokes, those that are in the database and in maps of the export,
        maps that differ, requests that were repeated.
    """
    (folder / "images").mkdir()
    rows = ["path,label,split"]
    for at in range(people * 2):
        Image.fromarray(np.full((*SIZE[::-1], 3), at, np.uint8)).save(folder / f"images/{at}.png")
        rows.append(f"images/{at}.png,{'ab'[at % 2]},train")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    draw = np.random.default_rng(0)
    stop = threading.Event()
    crowd: list[Drawer] = []
    port = "0"
    names: dict[int, str] = {}
    for number in range(kills + 1):
        with command(manifest, "--port", port, "--overlap", people) as one:
            port = one.address.split(":")[1]
            if not crowd:
                clients = [one.client(f"person {at}") for at in range(people)]
                images = clients[0].queue()
                names = {image: clients[0].image(image)["name"] for image in images}
                crowd = [Drawer(client, images, at, stop) for at, client in enumerate(clients)]
                for drawer in crowd:
                    drawer.start()
            if number < kills:
                stop.wait(draw.uniform(0.2, 1) * between)
                one.kill()
                continue
            stop.wait(between)
            stop.set()
            for drawer in crowd:
                drawer.join()
            for drawer in crowd:
                if drawer.error is not None:
                    raise drawer.error
            one.kill()
    return _compared(folder, crowd, names, export)


def _compared(
    folder: Path,
    crowd: list[Drawer],
    names: dict[int, str],
    export: Callable[[Path, Path], None],
) -> dict[str, Any]:
    import sqlite3

    database = folder / "manifest.label.sqlite"
    out = folder / "out"
    export(database, out)
    connection = sqlite3.connect(database)
    undone = dict(connection.execute("SELECT uuid, undone FROM strokes"))
    connection.close()
    Manifest.read(out / "manifest.csv", need=())
    counts = {"acknowledged": 0, "kept": 0, "exported": 0, "maps": 0, "different": 0}
    for at, drawer in enumerate(crowd):
        for image, strokes in drawer.drawn.items():
            counts["acknowledged"] += len(strokes)
            counts["kept"] += sum(
                one.name in undone and bool(undone[one.name]) == one.undone for one in strokes
            )
            file = out / "annotators" / f"person {at}" / "images" / names[image]
            found = decode_map(file) >= 0.5
            same = bool((found == drawer.mask(strokes)).all())
            counts["maps"] += 1
            counts["different"] += not same
            counts["exported"] += len(strokes) if same else 0
    counts["unknown"] = len(undone) - counts["acknowledged"]
    counts["repeated"] = sum(drawer.repeated for drawer in crowd)
    return counts
