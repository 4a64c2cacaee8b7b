"""Decoders of JPEG files, and the filling of an image cache against the decoder alone.

  python benchmarks/bench_decoders.py [decoders | cache] [--folder IMAGES] [--turns T]

decoders   CPU time from a file in memory to an array, and to an image of Pillow, which the cache
           needs for resizing and other decoders have to copy their array into; the gray levels by
           which the pixels differ from Pillow's; what becomes of files of other kinds. Pillow as in
           `decode_image` and `load_image`. simplejpeg (MIT) is measured where it is installed
cache      plain loop: the files decoded and resized by Pillow, without this library, by as many
           threads or processes as cores, with the same pixels as in the cache
           filling: a manifest of them opened with an empty cache, which also checks the table,
           hashes the files and stores images and index on the disk; the processes that it starts
           for many files count. Speed of the filling ÷ speed of each loop, in CPU time and in time,
           the median of the turns with smallest and largest

The files are squares from the two photographs of scikit-learn, or, with --folder, all images in a
folder and its subfolders (decoders: the JPEG files among them).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import in_turn, machine, ratio
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.io import ImageReadMode, decode_jpeg

from preceptor.config.image_format import ImageFormat
from preceptor.data.images import decode_image, image_suffixes, load_image
from preceptor.data.workspace import Workspace
from preceptor.runtime.cores import core_count

FORM = ImageFormat(224)
COUNTS = {64: 12000, 256: 10000, 1024: 200}
"""Number of files of each side in pixels; a tenth of them for the decoders."""
LEAST = 400  # side of the square that is cut from a photograph, if the file is smaller
SUBSAMPLING = {"4:4:4": 0, "4:2:0": 2}

Pixels = NDArray[np.uint8]


def pillow(content: bytes) -> Pixels:
    return decode_image("image.jpg", content=content)


def torchvision(content: bytes) -> Pixels:
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    pixels = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
    found: Pixels = pixels.permute(1, 2, 0).numpy()
    return found


def simplejpeg(content: bytes) -> Pixels:
    import simplejpeg

    found: Pixels = simplejpeg.decode_jpeg(content, "RGB")
    return found


DECODERS: dict[str, Callable[[bytes], Pixels]] = {"Pillow": pillow, "torchvision": torchvision}
if importlib.util.find_spec("simplejpeg"):
    DECODERS["simplejpeg"] = simplejpeg
OTHERS = [name for name in DECODERS if name != "Pillow"]


def copied(decode: Callable[[bytes], Pixels]) -> Callable[[bytes], Image.Image]:
    """Decoder to an image of Pillow."""
    return lambda content: Image.fromarray(decode(content))


def squares(side: int, count: int) -> list[Image.Image]:
    """Squares from photographs, which are mirrored at their borders for those larger than them."""
    generator = np.random.default_rng(side)
    photographs = load_sample_images().images
    cut = max(side, LEAST)
    found = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        more = [(0, max(0, 2 * cut - length)) for length in photograph.shape[:2]]
        large = np.pad(photograph, [*more, (0, 0)], mode="symmetric")
        y, x = (int(generator.integers(length - cut + 1)) for length in large.shape[:2])
        square = Image.fromarray(large[y : y + cut, x : x + cut])
        found.append(square if cut == side else square.resize((side, side)))
    return found


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in image_suffixes())


def compare_decoders(title: str, files: Sequence[bytes], turns: int) -> None:
    """One row: CPU time of an image, and largest and mean difference from Pillow's pixels."""

    def each(decode: Callable[[bytes], object]) -> Callable[[], None]:
        def run() -> None:
            for content in files:
                decode(content)

        return run

    sides = {name: each(decode) for name, decode in DECODERS.items()}
    sides["Pillow, image"] = each(lambda content: load_image("image.jpg", content=content))
    for name in OTHERS:
        sides[f"{name}, image"] = each(copied(DECODERS[name]))
    seconds = in_turn(sides, turns=turns, clock=time.process_time)
    cells = [
        f"{1e3 * median(seconds[name]) / len(files):.3f}" for name in ("Pillow", "Pillow, image")
    ]
    for name in OTHERS:
        decode = DECODERS[name]
        for kind in ("", ", image"):
            middle, least, most = ratio(seconds, name + kind, "Pillow" + kind)
            cells.append(f"{middle:.2f} ({least:.2f}-{most:.2f})")
        largest, total, values = 0, 0, 0
        for content in files:
            difference = np.abs(decode(content).astype(np.int16) - pillow(content))
            largest = max(largest, int(difference.max()))
            total, values = total + int(difference.sum()), values + difference.size
        cells.append(f"{largest}, {total / values:.4f}")
    print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def kinds_of_files() -> dict[str, bytes]:
    """Files of other kinds, and two that are damaged."""
    (image,) = squares(256, 1)
    whole, turn = jpeg(image), Image.Exif()
    turn[0x0112] = 6  # orientation
    middle = len(whole) // 2
    return {
        "progressive": jpeg(image, progressive=True),
        "gray": jpeg(image.convert("L")),
        "CMYK": jpeg(image.convert("CMYK")),
        "turned by EXIF": jpeg(image, exif=turn),
        "cut in the middle": whole[:middle],
        "100 bytes overwritten": whole[:middle] + bytes(100) + whole[middle + 100 :],
    }


def outcome(decode: Callable[[bytes], Pixels], content: bytes, of: Pixels | None) -> str:
    try:
        pixels = decode(content)
    except Exception:  # a decoder's own exceptions
        return "refused"
    if of is None or pixels.shape != of.shape:
        return f"{pixels.shape[1]} × {pixels.shape[0]} pixels"
    largest = int(np.abs(pixels.astype(np.int16) - of).max())
    return f"differs by up to {largest}" if largest else "equal"


def decoders(folder: Path | None, turns: int) -> None:
    heads = [f"{name} ÷ Pillow: array | image | difference: largest, mean" for name in OTHERS]
    print("| files | " + " | ".join(["Pillow, ms: array | image", *heads]) + " |")
    print("| --- | --- | --- |" + " --- | --- | --- |" * len(OTHERS))
    if folder is not None:
        paths = [path for path in images_in(folder) if path.suffix.lower() in (".jpg", ".jpeg")]
        paths = paths[:: max(1, len(paths) // 200)]
        compare_decoders(str(folder), [path.read_bytes() for path in paths], turns)
        return
    for side, count in COUNTS.items():
        images = squares(side, count // 10)
        for quality, (name, subsampling) in product((75, 95), SUBSAMPLING.items()):
            files = [jpeg(image, quality=quality, subsampling=subsampling) for image in images]
            compare_decoders(f"{side} px, quality {quality}, {name}", files, turns)
    print("| kind of file | " + " | ".join(DECODERS) + " |")
    print("| --- |" + " --- |" * len(DECODERS))
    for kind, content in kinds_of_files().items():
        try:
            right = pillow(content)
        except Exception:
            right = None
        cells = [outcome(decode, content, right) for decode in DECODERS.values()]
        print(f"| {kind} | " + " | ".join(cells) + " |")


def fill(manifest: Path, caches: Path) -> None:
    Workspace.open(manifest, caches, verify=True, formats=[FORM])


def decode_and_resize(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            size = (FORM.side, FORM.side)
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def plain_loop(paths: Sequence[Path], pool: Executor) -> None:
    parts = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    with pool:
        list(pool.map(decode_and_resize, parts))


def forked() -> Executor:
    return ProcessPoolExecutor(core_count(), multiprocessing.get_context("fork"))


def cpu_seconds() -> float:
    """Seconds of a core of this process and of its children that have ended."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)


def compare_filling(title: str, paths: Sequence[Path], folder: Path, turns: int) -> None:
    """One row: time and CPU time of an image, and the ratio of the speeds."""
    splits = [
        ("val", "test")[at // 10 % 2] if at % 10 == 0 else "train" for at in range(len(paths))
    ]
    labels = ["ab"[at // 2 % 2] for at in range(len(paths))]
    table = pd.DataFrame({"path": paths, "label": labels, "split": splits})
    table.to_csv(folder / "m.csv", index=False)
    caches = folder / "caches"
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    sides = {
        "filling": lambda: fill(folder / "m.csv", caches),
        "threads": lambda: plain_loop(paths, ThreadPoolExecutor(core_count())),
        "processes": lambda: plain_loop(paths, forked()),
    }
    for turn in range(turns + 1):
        for name, run in sides.items():
            started, used = time.perf_counter(), cpu_seconds()
            run()
            if turn:  # the first warms up
                seconds.setdefault(name, []).append(time.perf_counter() - started)
                cpu.setdefault(name, []).append(cpu_seconds() - used)
        shutil.rmtree(caches)
    cells = []
    for clock in (cpu, seconds):
        cells += [f"{1e3 * median(clock[name]) / len(paths):.3f}" for name in sides]
        for loop in ("threads", "processes"):
            middle, least, most = ratio(clock, loop, "filling")
            cells.append(f"{middle:.3f} ({least:.3f}-{most:.3f})")
    print(f"| {len(paths):,} files, {title} | " + " | ".join(cells) + " |", flush=True)


def cache(folder: Path | None, turns: int) -> None:
    sides = "threads | processes | ÷ threads | ÷ processes"
    print(f"| files | filling, CPU ms | {sides} | filling, ms | {sides} |")
    print("| --- |" + " --- |" * 10)
    with tempfile.TemporaryDirectory() as temporary:
        if folder is not None:
            compare_filling(str(folder), images_in(folder), Path(temporary), turns)
            return
        for side, count in COUNTS.items():
            (home := Path(temporary, str(side))).mkdir()
            paths = [home / f"{number}.jpg" for number in range(count)]
            for path, image in zip(paths, squares(side, count), strict=True):
                image.save(path, quality=90)
            compare_filling(f"{side} px", paths, home, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = {"decoders": decoders, "cache": cache}
    parser.add_argument("part", nargs="?", choices=parts)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print(f"{machine()}; {core_count()} cores, {options.turns} turns")
    torch.set_num_threads(1)
    for name, run in parts.items():
        if options.part in (None, name):
            run(options.folder, options.turns)


if __name__ == "__main__":
    main()
