"""RISE's speed: a mask, the whole against a plain loop over the same masks, and against XAITK.

    pip install 'preceptor[bench]'
    WEIGHTS=FOLDER python benchmarks/bench_rise.py [--turns 5] [--masks 512] [--backbones ...]

masks      milliseconds a mask at 224 px on one core (target ≤ 0.03)
plain      `rise` ÷ a batched loop with the same masks, network, batch, precision and layout: masks
           enlarged by torch's interpolation and cut out one by one, image × mask, forward, softmax,
           sum of f · m (target ≤ 0.7)
network    milliseconds an image of the network alone, as it is and fused, in the same batches
xaitk      `rise` ÷ xaitk-saliency's RISE with as many masks of as many cells, its classifier being
           the same network in batches of the same size (target ≤ 0.3)

One image at 224 px, one thread, float32, channels-last. Networks with ImageNet weights where
WEIGHTS holds them, else random ones: the time is the same.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import in_turn, machine, ratio
from torch.nn import functional

from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.masked_scores import fused
from preceptor.saliency.rise import (
    CELLS,
    Block,
    balanced_block,
    full_block,
    ramps,
    render,
    rise,
    spread_shift,
)

SIDE, BATCH = 224, 16


def mask_milliseconds(turns: int) -> list[float]:
    """Of one mask, rendered in blocks."""
    generator = torch.Generator().manual_seed(0)
    weights = ramps(SIDE, CELLS)
    block = balanced_block(CELLS, full_block(CELLS), (3, 5), generator)
    seconds = in_turn({"masks": lambda: render(block, weights, weights)}, turns=20 * turns, warm=5)
    return sorted(1e3 * value / len(block.cells) for value in seconds["masks"])


def blocks(masks: int) -> list[Block]:
    """The blocks that `rise` uses at seed 0."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.rand(2, generator=generator).tolist()
    pixels = len(ramps(SIDE, CELLS))
    size = full_block(CELLS)
    return [
        balanced_block(CELLS, size, spread_shift(index, (row, column), (pixels, pixels)), generator)
        for index in range(masks // size)
    ]


def plain(model: GuidedModel, image: torch.Tensor, group: list[Block]) -> torch.Tensor:
    """The published estimator as one writes it down, in batches."""
    side = (CELLS + 1) * -(-SIDE // CELLS)
    total, count = torch.zeros(SIDE, SIDE, device=image.device), 0
    with torch.inference_mode():
        for block in group:
            row, column = block.shifts.tolist()
            for cells in block.cells.to(image.device).split(BATCH):
                large = functional.interpolate(cells[:, None], size=(side, side), mode="bilinear")
                masks = torch.stack(
                    [one[:, row : row + SIDE, column : column + SIDE] for one in large]
                )
                masked = (image * masks).contiguous(memory_format=torch.channels_last)
                scores = model(masked).logits.softmax(1)[:, 1]
                total += (scores[:, None, None] * masks[:, 0]).sum(0)
                count += len(masks)
    return total / (count * 0.5)


def network_milliseconds(
    model: GuidedModel, image: torch.Tensor, turns: int
) -> tuple[float, float]:
    """Of an image in a batch: the network as it is, and with its batch norms fused."""
    images = image.repeat(BATCH, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    quick = fused(model.backbone, images)
    with torch.inference_mode():
        sides = {"plain": lambda: model.backbone(images), "fused": lambda: quick(images)}
        seconds = in_turn(sides, turns=turns)
    plain, less = (1e3 * median(times) / BATCH for times in seconds.values())
    return plain, less


def xaitk(model: GuidedModel, picture: np.ndarray, masks: int) -> Any:
    """xaitk-saliency's RISE of the same network."""
    from smqtk_classifier.interfaces.classify_image import ClassifyImage
    from xaitk_saliency.impls.gen_image_classifier_blackbox_sal.rise import RISEStack

    class Classifier(ClassifyImage):
        def get_labels(self) -> list[str]:
            return list(model.spec.classes)

        def classify_images(self, img_iter: Iterable[np.ndarray]) -> Iterator[dict[str, float]]:
            waiting: list[np.ndarray] = []
            for image in img_iter:
                waiting.append(image)
                if len(waiting) == BATCH:
                    yield from self.answer(waiting)
                    waiting = []
            if waiting:
                yield from self.answer(waiting)

        def answer(self, images: list[np.ndarray]) -> Iterator[dict[str, float]]:
            batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            with torch.inference_mode():
                scores = model(model.preprocess(batch)).logits.softmax(1)
            for row in scores.tolist():
                yield dict(zip(model.spec.classes, row, strict=True))

        def get_config(self) -> dict[str, Any]:
            return {}

    stack = RISEStack(n=masks, s=CELLS, p1=0.5, seed=0, threads=0)
    return stack.generate(picture, Classifier())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--masks", type=int, default=512)
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=["tf_efficientnet_lite0", "mobilenetv2_100", "resnet50", "densenet121"],
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    times = mask_milliseconds(arguments.turns)
    print(f"masks: median {times[len(times) // 2]:.4f} ms, least {times[0]:.4f}, at 224 px")
    group = blocks(arguments.masks)
    count = sum(len(block.cells) for block in group)
    folder = Path(os.environ.get("WEIGHTS", "."))
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    print(f"\n{count} masks, one image, batches of {BATCH}")
    print(
        "| backbone | rise, s | ÷ plain (min-max) | ÷ xaitk (min-max) | network, ms | fused, ms |"
    )
    print("| --- |" + " --- |" * 5)
    for backbone in arguments.backbones:
        file = folder / f"{backbone}.safetensors"
        weights = str(file) if file.is_file() else "none"
        model = build_model(backbone, ["a", "b"], weights=weights, input_size=SIDE).eval()
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        tensor = model.preprocess(torch.from_numpy(picture).permute(2, 0, 1)[None])
        tensor = tensor.contiguous(memory_format=torch.channels_last)

        def ours(model: GuidedModel = model, tensor: torch.Tensor = tensor) -> None:
            found = rise(
                model,
                tensor,
                torch.tensor([1]),
                max_masks=count,
                tolerance=0,
                size="image",
                batch_size=BATCH,
            )
            assert int(found.masks_used) == count

        sides = {
            "rise": ours,
            "plain": lambda model=model, tensor=tensor: plain(model, tensor, group),
            "xaitk": lambda model=model: xaitk(model, picture, count),
        }
        seconds = in_turn(sides, turns=arguments.turns)
        bare = network_milliseconds(model, tensor, turns=3 * arguments.turns)
        against = [ratio(seconds, "rise", other) for other in ("plain", "xaitk")]
        cells = " | ".join(f"{mid:.3f} ({low:.3f}-{high:.3f})" for mid, low, high in against)
        cells += " | " + " | ".join(f"{milliseconds:.1f}" for milliseconds in bare)
        print(f"| {backbone} | {min(seconds['rise']):.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
