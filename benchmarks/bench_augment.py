"""Host work of augmented training batches at 224 px, in images per second of one core.

  python benchmarks/bench_augment.py [--before REVISION] [--changes …]

host       what the CPU does where the model is on a GPU: read canvases and maps, draw the changes,
           and copy the images once more, as into pinned memory
all        the whole batch on the CPU, changes included
before     the whole batch with the code of REVISION, by the same script, in the same turns
torchvision, kornia, dali
           flip, crop and resize, color, blur: on a batch of tensors, one image at a time for
           torchvision, whose transforms change all images of a batch alike. kornia (Apache-2.0)
           and DALI (nvidia-dali-cuda120, Apache-2.0; its operators for the CPU) are measured where
           they are installed

Each side is a process with one thread; its CPU time counts, of all its threads (DALI computes in a
thread of its own), the best of several turns. What runs on a GPU is not measured here. FFCV is not
measured: pip cannot build it without the development files of OpenCV 4, which are not on PyPI.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine
from numpy.typing import NDArray
from torchvision.transforms import v2

from preceptor.config.run import RunConfig

try:
    from preceptor.data import rows as row_data
    from preceptor.data.loader import TrainingStream
except ImportError:  # one module in revisions to compare with
    from preceptor.data import loader as row_data  # type: ignore[attr-defined, no-redef]

    TrainingStream = row_data.TrainingStream  # type: ignore[attr-defined, misc]

# Through the config, since earlier revisions have these classes in another module.
Training: Any = RunConfig.model_fields["training"].annotation
Augmentation: Any = Training.model_fields["augmentation"].annotation

SIZE, BATCH, COUNT = 224, 32, 512
CHANGES = {
    "flips, quarter turns": {"flip": True, "quarter_turns": True},
    "flips, crops": {"flip": True, "crop_area": 0.5},
    "flips, crops, color, blur": {"flip": True, "crop_area": 0.5, "color": 0.3, "blur": 0.5},
    "all, JPEG too": {
        "flip": True,
        "quarter_turns": True,
        "crop_area": 0.5,
        "color": 0.3,
        "blur": 0.5,
        "jpeg": 0.5,
    },
}
TARGET = "flips, crops, color, blur"


@dataclass
class Canvases:
    """An `ImageSource` in a memory-mapped file, as the cache is."""

    pixels: NDArray[np.uint8]
    maps: NDArray[np.uint8]

    @property
    def side(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def sizes(self) -> NDArray[np.int32]:
        return np.full((len(self.pixels), 2), self.side, np.int32)

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.maps[rows]


def canvases_of(folder: Path, side: int) -> Canvases:
    path = folder / f"{side}.npy"
    generator = np.random.default_rng(0)
    if not path.exists():
        np.save(path, generator.integers(0, 256, (COUNT, side, side, 3), np.uint8))
    maps = generator.integers(0, 256, (COUNT, 128, 128), np.uint8)
    return Canvases(np.load(path, mmap_mode="r"), maps)


def settings_of(name: str) -> Any:
    changes = dict(CHANGES[name])
    if "color" in changes and "color" not in Augmentation.model_fields:
        changes["colour"] = changes.pop("color")  # its name in revisions to compare with
    return Augmentation.model_validate(changes)


def stream_of(folder: Path, name: str, **options: Any) -> TrainingStream:
    settings = settings_of(name)
    images = canvases_of(folder, Training(augmentation=settings).image_format(SIZE).side)
    # By position, and under the class's earlier name: other revisions call them otherwise.
    kind: Any = getattr(row_data, "MapTargets", None) or row_data.Guides  # type: ignore[attr-defined]
    maps = kind(np.ones(COUNT, np.float32), None, np.full(COUNT, -1, np.int64))
    labels = np.zeros(COUNT, np.int64)
    rows = row_data.Rows(images, np.arange(COUNT), labels, SIZE, "squash", None, maps, (7, 7))
    return TrainingStream(rows, BATCH, seed=0, settings=settings, **options)


def whole(folder: Path, name: str) -> Callable[[], object]:
    stream = stream_of(folder, name)
    return lambda: [None for _ in stream.steps(0, stream.steps_per_epoch)]


def host(folder: Path, name: str) -> Callable[[], object]:
    stream = stream_of(folder, name)
    side = stream.rows.images.side
    pinned = torch.empty((BATCH, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

    def run() -> None:
        for step in range(stream.steps_per_epoch):
            chosen, numbers = stream._positions(step * BATCH, (step + 1) * BATCH)
            pinned.copy_(stream.rows.stage(chosen, stream.settings, numbers).batch.images)

    return run


def torchvision(folder: Path, name: str) -> Callable[[], object]:
    settings = settings_of(name)
    images = canvases_of(folder, Training(augmentation=settings).image_format(SIZE).side)
    change = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(settings.crop_area, 1), ratio=(1, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(settings.color, settings.color, settings.color),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], settings.blur),
        ]
    )

    def run() -> None:
        for start in range(0, COUNT, BATCH):
            batch = torch.from_numpy(images.canvases(np.arange(start, start + BATCH)))
            torch.stack([change(image) for image in batch.permute(0, 3, 1, 2)])

    return run


def kornia(folder: Path, name: str) -> Callable[[], object]:
    import kornia.augmentation as K

    settings = settings_of(name)
    images = canvases_of(folder, Training(augmentation=settings).image_format(SIZE).side)
    change = K.AugmentationSequential(
        K.RandomResizedCrop((SIZE, SIZE), scale=(settings.crop_area, 1.0), ratio=(1.0, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJiggle(settings.color, settings.color, settings.color, p=1.0),
        K.RandomGaussianBlur((13, 13), (0.1, 2.0), p=settings.blur),
    )

    def run() -> None:
        for start in range(0, COUNT, BATCH):
            batch = torch.from_numpy(images.canvases(np.arange(start, start + BATCH)))
            change(batch.permute(0, 3, 1, 2).float().div(255))

    return run


def dali(folder: Path, name: str) -> Callable[[], object]:
    from nvidia.dali import fn, pipeline_def, types

    settings = settings_of(name)
    images = canvases_of(folder, Training(augmentation=settings).image_format(SIZE).side)

    @pipeline_def(
        batch_size=BATCH,
        num_threads=1,
        device_id=None,
        seed=0,
        exec_pipelined=False,
        exec_async=False,
        prefetch_queue_depth=1,
        enable_conditionals=True,
    )
    def changes() -> Any:
        factors = (1 - settings.color, 1 + settings.color)
        batch = fn.external_source(name="images", layout="HWC", no_copy=True)
        batch = fn.random_resized_crop(
            batch,
            size=(SIZE, SIZE),
            random_area=(settings.crop_area, 1.0),
            random_aspect_ratio=(1.0, 1.0),
            antialias=True,
        )
        batch = fn.flip(batch, horizontal=fn.random.coin_flip())
        batch = fn.color_twist(
            batch,
            brightness=fn.random.uniform(range=factors),
            contrast=fn.random.uniform(range=factors),
            saturation=fn.random.uniform(range=factors),
        )
        if fn.random.coin_flip(probability=settings.blur, dtype=types.BOOL):
            batch = fn.gaussian_blur(
                batch, window_size=13, sigma=fn.random.uniform(range=(0.1, 2.0))
            )
        return batch

    pipeline = changes()
    pipeline.build()

    def run() -> None:
        for start in range(0, COUNT, BATCH):
            batch = images.canvases(np.arange(start, start + BATCH))
            pipeline.run(images=batch)[0].as_tensor()

    return run


SIDES = {
    "host": host,
    "all": whole,
    "before": whole,
    "torchvision": torchvision,
    "kornia": kornia,
    "dali": dali,
}
OTHERS = {"kornia": "kornia", "dali": "nvidia.dali"}


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def measure(side: str, folder: Path, name: str) -> float:
    """Images a second of CPU time, in this process."""
    torch.set_num_threads(1)
    run = SIDES[side](folder, name)
    run()
    best = 0.0
    for _ in range(2):
        started = time.process_time()
        run()
        best = max(best, COUNT / (time.process_time() - started))
    return best


def source_of(revision: str, folder: Path) -> Path:
    here = Path(__file__).resolve().parents[1]
    archive = subprocess.run(
        ["git", "archive", revision, "src"], cwd=here, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)
    return folder / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="revision to compare with")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "FOLDER", "CHANGES"))
    options = parser.parse_args()
    if options.one:
        side, folder, name = options.one
        print(measure(side, Path(folder), name))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sides = ["host", "all"]
        paths = {side: os.environ.get("PYTHONPATH", "") for side in SIDES}
        if options.before:
            sides.append("before")
            paths["before"] = str(source_of(options.before, folder))
        print("| changes | " + " | ".join(sides) + " |")
        print("| --- |" + " --- |" * len(sides))
        for name in options.changes:
            also = ["torchvision"] if name == TARGET else []
            if also:
                also += [side for side, module in OTHERS.items() if is_installed(module)]
            found = dict.fromkeys([*sides, *also], 0.0)
            for _ in range(options.turns):
                for side in found:
                    done = subprocess.run(
                        [sys.executable, __file__, "--one", side, str(folder), name],
                        env=os.environ | {"PYTHONPATH": paths[side], "OMP_NUM_THREADS": "1"},
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    found[side] = max(found[side], float(done.stdout))
            print(f"| {name} | " + " | ".join(f"{found[side]:,.0f}" for side in sides) + " |")
            for side in also:
                print(f"| … {side} | {found[side]:,.0f} |")


if __name__ == "__main__":
    main()
