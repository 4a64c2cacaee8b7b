"""How far the maps of the authors' released CYBORG code are from the exact CAM.

    python benchmarks/tap_distance.py [--data FOLDER] [--steps 100] [--backbones ...]

The released code weighs, with the head's weights of a class, features that are not what the head
pools, except in Inception-v3 (`cam_source: cyborg`); the exact CAM weighs those that are. Both are
taken from the same network on the same images, of the label's class: Pearson's correlation after
min-max, median and 5 to 95 % of 300 images that the network was not trained on. From random
weights, and after plain training (cross-entropy alone, the optimizer of the recipe, batch 16) on
256 forged photographs of the built-in benchmark (preset `full`, seed 0). One thread; some 10
minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import machine
from torch.nn import functional

from preceptor.benchmark.forged import write_forged
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.config.training import Augmentation, Training
from preceptor.data.loader import Rows, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.inference.predict import predict, to_device
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.agreement import correlation
from preceptor.saliency.normalise import normalise

# The paper's backbones, at sizes with a feature grid of 4 × 4.
PAPER = {"resnet50": 112, "densenet121": 128, "legacy_xception": 112, "inception_v3": 171}
BATCH = 16


def compare(published: GuidedModel, exact: GuidedModel, rows: Rows) -> str:
    """Median and 5 to 95 % of the correlation of the two kinds of maps."""
    one, other = (predict(model, rows, cams="label").cams for model in (published, exact))
    assert one is not None
    assert other is not None
    values, valid = correlation(normalise(one), normalise(other))
    low, middle, high = np.percentile(values[valid].numpy(), [5, 50, 95])
    lost = "" if valid.all() else f", {int((~valid).sum())} constant"
    return f"{middle:.2f} ({low:.2f} to {high:.2f}{lost})"


def train(model: GuidedModel, rows: Rows, steps: int) -> float:
    """Plain steps; the mean cross-entropy of the last ten."""
    recipe = Training(recipe="cyborg")
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    stream = TrainingStream(rows, BATCH, seed=0, settings=Augmentation())
    model.train()
    losses = []
    for batch in stream.steps(0, steps):
        images = model.preprocess(to_device(batch.images, model.device, True))
        loss = functional.cross_entropy(model(images).logits, batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-10:]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("families-data"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--backbones", nargs="+", choices=list(PAPER), default=list(PAPER))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    settings = PRESETS["full"].model_copy(update={"train": 256, "test_seen": 300})
    workspace = Workspace.open(
        write_forged(arguments.data / "forged-taps", settings, 0), arguments.data / "cache"
    )
    split = workspace.manifest.table["split"].to_numpy()
    print("| backbone | input | random weights | trained | cross-entropy |")
    print("| --- | --- | --- | --- | --- |")
    for backbone in arguments.backbones:
        size = PAPER[backbone]
        torch.manual_seed(0)
        published = build_model(
            backbone,
            workspace.manifest.classes,
            positive="forged",
            input_size=size,
            cam_source="cyborg",
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The same network; the taps stay and are not asked.
        exact = GuidedModel(published.backbone, replace(published.spec, cam_source="head_input"))
        trained_on, seen = (
            workspace.rows(np.flatnonzero(split == name), published.spec.image_format)
            for name in ("train", "test-seen")
        )
        random = compare(published, exact, seen)
        loss = train(exact, trained_on, arguments.steps)
        trained = compare(published, exact, seen)
        print(f"| {backbone} | {size} | {random} | {trained} | {loss:.2f} |", flush=True)


if __name__ == "__main__":
    main()
