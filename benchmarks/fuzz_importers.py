"""Mutated annotation files through the importers: how many are read, refused, or crash.

    python benchmarks/fuzz_importers.py [--count 20000] [--seed 1] [--reader coco] [--one coco:17]

The files are those of tests/data/importers/fixtures and of its trees, with bytes, words or values
replaced. An input is right if it is refused with an error of the library, or makes a manifest with
valid rows; every tenth is read again from its file. Anything else is printed: another exception,
more than 5 seconds of processor time or 30 seconds in all (other work on the machine counts in the
latter alone), or a file that was written outside of the output folder. Ends with 1 if there was
one. Most of the time is flushing: with TMPDIR in memory (/dev/shm) it is much shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.data.importers.trees import coco, save_json

from preceptor.data import importers
from preceptor.data.importers import Gaze, ImportOptions, write_import
from preceptor.data.manifest import Manifest
from preceptor.errors import PreceptorError

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "data" / "importers" / "fixtures"
LIMIT = 5  # seconds of processor time
WAIT_LIMIT = 30  # seconds
WORDS = [
    "NaN",
    "Infinity",
    "-1",
    "0",
    "1e309",
    "1e400",
    "99999999999999999999",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "../x",
    "%2e%2e%2fx",
    "\x00",
    "\ud800".encode("utf-8", "replace").decode(),
    "é",
    "&a;",
    "<!DOCTYPE a>",
    "1_000",
    "0x10",
    " ",
    "\n",
    ",",
    ";",
    "/etc/hostname",
    "9" * 400,
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    0.5,
    10**18,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "a\nb",
    [],
    {},
    [[]],
    [None],
    [1],
    [1, 2, 3],
    {"a": 1},
    "9" * 40,
    -(2**63),
    2**63,
]


def seeds(root: Path) -> dict[str, tuple[Path, Callable[[Path, Path], Any], list[str]]]:
    """By reader: a folder, how it is read, and the suffixes of the files that are mutated."""
    images = root / "images"
    made = root / "seeds"
    shutil.copytree(FIXTURES / "images", images)
    encoded = {"size": [160, 200], "counts": [5000, 50, 26950]}
    shapes = [
        {"bbox": [1, 2, 30, 40]},
        {"segmentation": [[1, 1, 50, 1, 50, 50], [60, 60, 90, 60, 90, 90]]},
        {"segmentation": encoded, "iscrowd": 1},
        {"segmentation": {"size": [160, 200], "counts": "PPP51Q1"}},
    ]
    save_json(
        made / "coco" / "a.json",
        coco([{"file_name": "scan a.jpg", "width": 200, "height": 160}], shapes[:3]),
    )
    shutil.copytree(FIXTURES / "labelstudio", made / "labelstudio")
    brush = made / "labelstudio" / "brush.json"
    brush.write_text(brush.read_text().replace("scan%20a", "scan%20b"))
    tasks = json.loads((made / "labelstudio" / "from coco.json").read_text())
    save_json(made / "labelstudio" / "from coco.json", [t for t in tasks if "20a" in str(t)])
    (root / "labels.csv").write_text("path,label\nscan a.jpg,fake\nscan b.jpg,real\n")
    shutil.copytree(FIXTURES / "labelme", made / "labelme")
    shutil.copytree(FIXTURES / "datumaro" / "cvat", made / "cvat")
    shutil.copytree(FIXTURES / "datumaro" / "voc", made / "voc")
    shutil.copytree(FIXTURES / "supervision" / "boxes" / "yolo", made / "yolo")
    (made / "masks").mkdir()
    shutil.copy(FIXTURES / "supervision" / "rust.png", made / "masks" / "scan a.png")
    (made / "masks" / "labelmap.txt").write_text("background:0,0,0::\nrust:255,255,255::\n")
    (made / "folders").mkdir()
    shutil.copytree(images, made / "folders" / "fake")
    (made / "fixations").mkdir()
    (made / "fixations" / "gaze.csv").write_text(
        "image,x,y,duration,annotator,label\nscan a.jpg,5,6,1.5,ann,fake\nscan a.jpg,9,9,2,bob,\n"
    )
    release = made / "und"
    (release / "heat").mkdir(parents=True)
    shutil.copy(FIXTURES / "supervision" / "rust.png", release / "heat" / "scan a.png")
    (release / "train.csv").write_text("train,real,/scan a.jpg\ntest,fake,scan b.jpg\n")
    (release / "gan9.csv").write_text("test,real,/new/c.jpg\n")
    (images / "new").mkdir()
    shutil.copy(images / "scan a.jpg", images / "new" / "c.jpg")
    one = importers
    return {
        "coco": (made / "coco", lambda p, i: one.read_coco(p), [".json"]),
        "labelstudio": (made / "labelstudio", lambda p, i: one.read_labelstudio(p), [".json"]),
        "labelme": (made / "labelme", lambda p, i: one.read_labelme(p), [".json"]),
        "cvat": (made / "cvat", lambda p, i: one.read_cvat(p), [".xml"]),
        "voc": (made / "voc", lambda p, i: one.read_voc(p), [".xml", ".png", ".txt"]),
        "yolo": (made / "yolo", lambda p, i: one.read_yolo(p, i), [".txt", ".yaml"]),
        "masks": (made / "masks", lambda p, i: one.read_masks(p), [".png", ".txt"]),
        "folders": (made / "folders", lambda p, i: one.read_folders(p), [".jpg"]),
        "fixations": (
            made / "fixations",
            lambda p, i: one.read_fixations(p / "gaze.csv", i, Gaze(5.0)),
            [".csv"],
        ),
        "und": (release, _read_release, [".csv", ".png"]),
    }


def _read_release(release: Path, images: Path) -> Manifest:
    return importers.read_und(
        release / "train.csv", [release / "gan9.csv"], images, release / "heat", need=()
    )


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Content with one to three changes."""
    for _ in range(draw.choice([1, 1, 2, 3])):
        kind = draw.randrange(7)
        at = draw.randrange(len(data) + 1)
        if kind == 0:
            data = data[:at]
        elif kind == 1 and data:
            data = data[: at - 1] + bytes([draw.randrange(256)]) + data[at:]
        elif kind == 2:
            end = min(len(data), at + draw.randrange(1, 40))
            data = data[:at] + data[end:]
        elif kind == 3:
            end = min(len(data), at + draw.randrange(1, 40))
            data = data[:end] + data[at:end] * draw.randrange(1, 4) + data[end:]
        elif kind == 4:
            word = draw.choice(WORDS).encode("utf-8", "replace")
            data = data[:at] + word + data[at + draw.choice([0, len(word)]) :]
        else:
            try:
                value = json.loads(data)
            except (ValueError, RecursionError):
                continue
            data = json.dumps(changed(value, draw)).encode()
    return data


def changed(value: Any, draw: random.Random) -> Any:
    """JSON value with one part replaced, removed or repeated."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        chance = draw.random()
        if chance < 0.07:
            return value[:at] + value[at + 1 :]
        if chance < 0.14:
            return [*value[:at], value[at], *value[at:]]
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    return draw.choice(VALUES)


def too_long(number: int, _: object) -> None:
    if number == signal.SIGPROF:
        raise TimeoutError(f"more than {LIMIT} seconds of processor time")
    raise TimeoutError(f"more than {WAIT_LIMIT} seconds")


def limit_time(cpu: float, wall: float) -> None:
    """Start both clocks, or stop them with zeros."""
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_REAL, wall)


def paths_outside(root: Path, out: Path) -> set[str]:
    """Files and folders below `root` that are not in the folder `out`."""
    found: set[str] = set()
    for base, folders, names in os.walk(root):
        folders[:] = [one for one in folders if Path(base, one) != out]
        found.update(f"{base}/{one}" for one in (*folders, *names))
    return found


def run(
    reader: str,
    seed: tuple[Path, Callable[[Path, Path], Any], list[str]],
    number: int,
    root: Path,
    seed_number: int,
) -> str:
    """`read`, `refused`, or a text that says what went wrong."""
    draw = random.Random(f"{reader}:{seed_number}:{number}")
    folder, read, suffixes = seed
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work / "source")
    files = sorted(p for p in work.rglob("*") if p.is_file() and p.suffix in suffixes)
    file = draw.choice(files)
    if number >= 0:  # -1 is the seed itself, which has to be read
        file.write_bytes(mutated(file.read_bytes(), draw))
    out = work / "out"
    before = paths_outside(root, out)
    images = work / "source" if reader == "folders" else root / "images"
    limit_time(LIMIT, WAIT_LIMIT)
    try:
        labels = None if reader == "folders" else root / "labels.csv"
        options = ImportOptions(unmarked="unknown", labels=labels)
        imported = read(work / "source", images)
        if isinstance(imported, Manifest):  # the release is read into a manifest at once
            out.mkdir()
            imported.write(out / "manifest.csv")
        else:
            write_import(imported, images, out, options)
        if number % 10 == 0 or number < 0:
            Manifest.read(out / "manifest.csv", verify=False, need=())
        found = "read"
    except PreceptorError as error:
        found = "refused" if number >= 0 else f"the seed is refused: {error}"
        lines = str(error).splitlines()
        if not lines[0] or len(lines) > 22:
            found = f"message of {len(lines)} lines"
    except (Exception, TimeoutError) as error:
        found = "".join(traceback.format_exception(error)[-3:])
    finally:
        limit_time(0, 0)
    if more := paths_outside(root, out) - before:
        return f"files outside: {sorted(more)}"
    if found != "read" and out.exists():
        return f"{found}, but the folder exists"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="inputs of each reader")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", action="append")
    parser.add_argument("--one", help="READER:NUMBER of an input to run by itself")
    given = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGPROF, too_long)
    np.seterr(all="ignore")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        every = seeds(root)
        if given.one:
            reader, number = given.one.split(":")
            print(run(reader, every[reader], int(number), root, given.seed))
            return 0
        for reader in given.reader or every:
            started, tally = time.monotonic(), Counter[str]()
            for number in (-1, *range(given.first, given.first + given.count)):
                found = run(reader, every[reader], number, root, given.seed)
                tally[found if found in ("read", "refused") else "wrong"] += 1
                if found not in ("read", "refused"):
                    failed += 1
                    if tally["wrong"] <= 5:
                        print(f"{reader}:{number}\n{found}", flush=True)
            print(f"{reader}: {dict(tally)} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
