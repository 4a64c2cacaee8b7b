"""What marking costs beside looking: class activation maps of a manifest against bare inference.

    python benchmarks/bench_annotation.py [--turns 5] [--images 256] [--backbones ...]

marking    `annotate` with CAM: read from the cache, forward, map, min-max, scores, map store
inference  the same images from the same cache through the network alone, in the same batches
Target: marking ÷ inference ≤ 1.05. Same threads, float32, channels-last. Random images at 224 px,
decoded and cached before the clock starts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import in_turn, machine, ratio
from PIL import Image

from preceptor.data.loader import in_order
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.inference.annotate import annotate
from preceptor.inference.predict import PREDICT_BATCH, to_device
from preceptor.models.build import build_model

SIDE = 224


def manifest(folder: Path, count: int) -> Path:
    """Random images, all for training."""
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        small = generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(folder / name)
    table = pd.DataFrame({"path": names, "label": ["a", "b"] * (count // 2), "split": "train"})
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def compare(
    backbone: str, table: Manifest, workspace: Workspace, out: Path, turns: int, device: str
) -> dict[str, list[float]]:
    """Seconds of marking and of bare inference, turn by turn."""
    model = build_model(backbone, ["a", "b"], input_size=SIDE).eval().to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = workspace.rows(np.arange(len(table)), model.spec.image_format, ["a", "b"])

    def inference() -> None:
        with torch.inference_mode():
            for _, batch in in_order(rows, PREDICT_BATCH):
                model.backbone(model.preprocess(to_device(batch.images, model.device, True)))
        if device != "cpu":
            torch.cuda.synchronize()

    def marking() -> None:
        annotate(model, table, out=out, workspace=workspace, teacher="t")

    return in_turn({"marking": marking, "inference": inference}, turns=turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "mobilenetv2_100"])
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = Manifest.read(manifest(folder, arguments.images), verify=False, need=())
        workspace = Workspace(table, folder / "cache")
        print("| backbone | inference, s | marking ÷ inference (min-max) |\n| --- | --- | --- |")
        for backbone in arguments.backbones:
            seconds = compare(backbone, table, workspace, folder / "maps", arguments.turns, "cpu")
            middle, low, high = ratio(seconds, "marking", "inference")
            least = min(seconds["inference"])
            print(f"| {backbone} | {least:.2f} | {middle:.3f} ({low:.3f}-{high:.3f}) |", flush=True)


if __name__ == "__main__":
    main()
