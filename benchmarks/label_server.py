"""Saves of many people at once, and the opening of a large manifest, with `preceptor label`.

    python benchmarks/label_server.py --people 20 --seconds 30 --pause 0.5
    python benchmarks/label_server.py --images 100000

People are threads of this process, with one connection each, who do what the page does: they load
an image, draw strokes, undo some, answer, and load the next. Every stroke that was acknowledged is
looked for in the database afterwards.
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.label.serving import Client, blob, command, stroke_of

SIDE = 1024
# Made before the clock runs: the people share the cores with the server.
BODIES = [stroke_of(blob(SIDE // 4, SIDE // 4, at).repeat(4, 0).repeat(4, 1)) for at in range(64)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two strokes")
    parser.add_argument("--images", type=int, help="only open a manifest of so many images")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.images:
            opening(Path(folder), given.images)
        else:
            saving(Path(folder), given.people, given.seconds, given.pause)


def opening(folder: Path, images: int) -> None:
    """Seconds from the start of the command to the first images on the page, twice."""
    (folder / "images").mkdir()
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(file, "PNG")
    rows = ["path,label,split"]
    for at in range(images):
        (folder / "images" / f"{at}.png").write_bytes(file.getvalue())
        rows.append(f"images/{at}.png,{'ab'[at % 2]},train")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    for title in ("first start", "second start", "third start"):
        begin = time.perf_counter()
        with command(folder / "manifest.csv") as one:
            link = time.perf_counter() - begin
            ann = one.client("ann")
            page = time.perf_counter() - begin
            shown = time.perf_counter()
            queue = ann.queue()
            assert len(queue) == 24
            queue_time = time.perf_counter() - shown
            state = time.perf_counter()
            assert ann.get("/api/state").json["totals"]["mine_open"] == images
            state_time = time.perf_counter() - state
            ann.close()
        print(
            f"{title}: {images:,} images, link after {link:.2f} s, page after {page:.2f} s; "
            f"queue {queue_time * 1000:.0f} ms, state {state_time * 1000:.0f} ms"
        )
    begin = time.perf_counter()
    with command(folder / "images" / ".." / "manifest.csv", "--database", folder / "x.sqlite"):
        pass
    print(f"{'another database':}: link after {time.perf_counter() - begin:.2f} s")


class Person(threading.Thread):
    """One person who draws until the time is over."""

    def __init__(self, client: Client, number: int, until: float, pause: float) -> None:
        super().__init__()
        self.client, self.pause, self.until = client, pause, until
        self.draw = np.random.default_rng(number)
        self.saves: list[float] = []
        self.pictures: list[float] = []
        self.uuids: set[str] = set()

    def run(self) -> None:
        while time.monotonic() < self.until:
            image = self.client.queue()[0]
            self.client.image(image)
            begin = time.perf_counter()
            assert self.client.get(f"/api/images/{image}/whole").status == 200
            self.pictures.append(time.perf_counter() - begin)
            for _ in range(int(self.draw.integers(3, 9))):
                time.sleep(self.draw.uniform(0.5, 1.5) * self.pause)
                body = BODIES[int(self.draw.integers(len(BODIES)))] | {"uuid": str(uuid.uuid4())}
                begin = time.perf_counter()
                told = self.client.post(f"/api/images/{image}/strokes", body)
                self.saves.append(time.perf_counter() - begin)
                assert told.status == 200, told
                self.uuids.add(body["uuid"])
            assert self.client.answer(image).status == 200
        self.client.close()


def cpu_seconds(process: int) -> float:
    """Time of a core that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def saving(folder: Path, people: int, seconds: float, pause: float) -> None:
    """Times of saves of many people, and whether all of them are in the database."""
    (folder / "images").mkdir()
    noise = np.random.default_rng(0)
    rows = ["path,label,split"]
    for at in range(40 * people):
        name = f"images/{at}.jpg"
        if at < 40:
            low = noise.integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
            Image.fromarray(low).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name)
        else:
            os.link(folder / f"images/{at % 40}.jpg", folder / name)
        rows.append(f"{name},{'ab'[at % 2]},train")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    with command(folder / "manifest.csv") as one:
        clients = [one.client(f"person {at}") for at in range(people)]
        before = cpu_seconds(one.process.pid)
        until = time.monotonic() + seconds
        crowd = [Person(client, at, until, pause) for at, client in enumerate(clients)]
        for person in crowd:
            person.start()
        for person in crowd:
            person.join()
        used = cpu_seconds(one.process.pid) - before
        one.kill()
    saves = np.array([save for person in crowd for save in person.saves]) * 1000
    pictures = np.array([took for person in crowd for took in person.pictures]) * 1000
    sent = set().union(*(person.uuids for person in crowd))
    connection = sqlite3.connect(folder / "manifest.label.sqlite")
    kept = {row[0] for row in connection.execute("SELECT uuid FROM strokes")}
    print(
        f"{people} people, {seconds:g} s, pause {pause:g} s: {len(saves):,} saves "
        f"({len(saves) / seconds:.0f} a second), median {np.median(saves):.1f} ms, "
        f"95 % {np.percentile(saves, 95):.1f} ms, 99 % {np.percentile(saves, 99):.1f} ms, "
        f"largest {saves.max():.0f} ms"
    )
    print(
        f"pictures of {SIDE} × {SIDE}: {len(pictures):,}, median {np.median(pictures):.0f} ms, "
        f"95 % {np.percentile(pictures, 95):.0f} ms"
    )
    print(f"server: {used:.1f} s of a core; load of the machine {os.getloadavg()[0]:.1f}")
    print(f"lost: {len(sent - kept)} of {len(sent):,}; not asked for: {len(kept - sent)}")
    assert kept == sent


if __name__ == "__main__":
    main()
