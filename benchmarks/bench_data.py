"""Memory and speed of the image cache.

  python benchmarks/bench_data.py

memory    peak private memory of one training process on 1,000 and on 8,000 images: the growth
          should be none (the cache is memory-mapped; what the kernel keeps of it is not ours)
epoch     an epoch from the cache ÷ the same loop on tensors that lie in memory (target ≤ 1.02)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import in_turn, machine, ratio
from PIL import Image

from preceptor.config.run import RunConfig
from preceptor.config.training import Augmentation, Training
from preceptor.data.loader import Batch, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.losses.guided import GuidedLoss
from preceptor.saliency.cam import class_activation_map
from preceptor.training.prepare import build, guided_rows
from preceptor.training.run import train

SIDE = 96
SIZES = (1000, 8000)
STEPS = 60


def make_data(folder: Path, count: int) -> Path:
    """`count` training images (JPEG) and their maps, and a small val and test set."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count + 64):
        split = "train" if number < count else ("val", "test")[number % 2]
        small = generator.integers(0, 256, (12, 12, 3)).astype(np.uint8)
        name = f"images/{number}.jpg"
        Image.fromarray(small).resize((SIDE, SIDE)).save(folder / name, quality=85)
        saliency = ""
        if split == "train":
            saliency = f"images/{number}-map.png"
            mark = np.zeros((SIDE, SIDE), np.uint8)
            top, left = generator.integers(0, SIDE // 2, 2)
            mark[top : top + SIDE // 4, left : left + SIDE // 4] = 255
            Image.fromarray(mark).save(folder / saliency)
        rows.append((name, "ab"[number // 2 % 2], split, saliency))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "saliency"])
    frame.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def config_of(manifest: Path) -> RunConfig:
    return RunConfig(
        manifest=manifest,
        backbone="test_byobnet",
        positive="b",
        training=Training(
            input_size=SIDE,
            epochs=1,
            length="steps",
            steps=STEPS,  # of both sizes, since memory also grows over the first steps of a process
            batch_size=32,
            lr=0.001,
            augmentation=Augmentation(flip=True, quarter_turns=True),
        ),
    )


def private_peak(manifest: Path, folder: Path) -> float:
    """MiB of private memory at its peak in a process that trains for some steps."""
    code = f"""
import threading, time
peak = [0]
def watch():
    while True:
        with open("/proc/self/status") as file:
            now = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        peak[0] = max(peak[0], now)
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bench_data import config_of
from pathlib import Path
from preceptor.training.run import train
from preceptor.data.workspace import Workspace
config = config_of(Path({str(manifest)!r}))
workspace = Workspace.open(config.manifest, Path({str(folder / "cache")!r}))
train(config, {str(folder / "runs")!r}, workspace=workspace)
print(peak[0] / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def epoch_ratio(manifest: Path, folder: Path, turns: int = 7) -> tuple[float, float, float]:
    """An epoch from the cache ÷ the same steps on batches that were made before."""
    torch.set_num_threads(1)
    config = config_of(manifest)
    workspace = Workspace.open(manifest, folder / "cache")
    model = build(workspace, config).to(memory_format=torch.channels_last).train()
    rows = guided_rows(workspace, config, model)
    settings = config.training
    stream = TrainingStream(rows, settings.batch_size, seed=0, settings=settings.augmentation)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr)
    loss = GuidedLoss(0.5)

    def step(batch: Batch) -> None:
        logits, features = model(model.preprocess(batch.images))
        cam = class_activation_map(features, model.head.weight, batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss(logits, batch.labels, cam, batch.maps, batch.map_weight).backward()
        optimizer.step()

    kept = list(stream.steps(0, stream.steps_per_epoch))

    def from_cache() -> None:
        for batch in stream.steps(0, stream.steps_per_epoch):
            step(batch)

    def from_memory() -> None:
        for batch in kept:
            step(batch)

    seconds = in_turn({"cache": from_cache, "memory": from_memory}, turns=turns)
    return ratio(seconds, "cache", "memory")


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        peaks = {}
        for count in SIZES:
            folder = Path(temporary) / str(count)
            manifest = make_data(folder, count)
            config = config_of(manifest)
            train(config, folder / "first", workspace=Workspace.open(manifest, folder / "cache"))
            peaks[count] = private_peak(manifest, folder)
            print(f"{count:6,} images: {peaks[count]:.0f} MiB of private memory at peak")
        few, many = SIZES
        growth = (peaks[many] - peaks[few]) / (many - few) * 1024
        image = 3 * SIDE * SIDE / 1024
        print(f"growth {growth:.2f} KiB an image, where a decoded image has {image:.0f} KiB")
        folder = Path(temporary) / str(few)
        found = epoch_ratio(folder / "manifest.csv", folder)
        print(f"epoch from the cache ÷ from memory: {found[0]:.3f} ({found[1]:.3f}-{found[2]:.3f})")


if __name__ == "__main__":
    main()
