"""A guided training step against a plain one and against the published way of computing it.

    python benchmarks/bench_guided_step.py [--turns 5] [--batch 20] [--backbones ...]
        [--guidance] [--outside [KIND ...]] [--cpu-time]

Three sides, same network, same batch, float32, channels-last:
  plain      cross-entropy alone
  guided     cross-entropy and guidance: one forward, one contraction for the CAM
  published  the CAM as the authors' released code makes it: features by a second forward where
             the network does not hand them out (DenseNet), one CAM an image in a Python loop
Targets: guided ÷ plain ≤ 1.03; guided ÷ published ≤ 0.55 for DenseNet, ≤ 1.00 for the others.

With --guidance, other sides: plain, and guided with each distance of the decision map, with each
pooling, and without the classification term (a mapper). Targets: ÷ plain ≤ 1.03, the mapper ≤ 1.05.

With --outside, other sides: a whole step from canvases and maps in memory, plain, guided, and
guided with each change outside maps at its default rate and strength, all images with a map.
Target: ÷ plain ≤ 1.15. --cpu-time is for a machine that others use too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import torch
from measure import in_turn, machine, ratio
from numpy.typing import NDArray

from preceptor.config.training import Augmentation, OutsideKind, Training
from preceptor.data import augment
from preceptor.data.loader import MapTargets, Rows
from preceptor.losses.distances import EVIDENCE_DISTANCES
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model, with_pool
from preceptor.models.guided_model import GuidedModel, autocast
from preceptor.models.spec import Pool

PAPER = ("densenet121", "resnet50", "legacy_xception", "inception_v3")


class Sides:
    """The three steps of one network.

    Args:
        backbone: timm name.
        batch: Images of a step.
        device: Device of the network.
        speed: Settings with the precision and the memory layout.
        size: Side of the images in pixels; None = that of the backbone.
    """

    def __init__(
        self,
        backbone: str,
        batch: int,
        device: torch.device,
        speed: Training | None = None,
        size: int | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.speed = speed or Training()
        self.model: GuidedModel = build_model(backbone, ["real", "fake"], input_size=size)
        layout = torch.channels_last if self.speed.channels_last else torch.contiguous_format
        self.model = self.model.to(device).to(memory_format=layout).train()
        self.second_forward = backbone.startswith("densenet")
        side = self.model.spec.input_size
        self.images = torch.randn(batch, 3, side, side, device=device)
        self.images = self.images.contiguous(memory_format=layout)
        self.labels = torch.arange(batch, device=device) % 2
        self.maps = torch.rand(batch, *self.model.grid(), device=device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.005, momentum=0.9)
        self.loss = GuidedLoss(0.5, "mse")
        self.device = device

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.speed.precision)

    def finish(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def plain(self) -> None:
        with self.autocast():
            logits, _ = self.model(self.images)
        self.finish(torch.nn.functional.cross_entropy(logits, self.labels))

    def guided(self) -> None:
        with self.autocast():
            logits, _, cam, *_ = self.model(self.images, "predicted")
        self.finish(self.loss(logits, self.labels, cam, self.maps))

    def published(self) -> None:
        with self.autocast():
            logits, features = self.model(self.images)
            if self.second_forward:
                features = self.model.backbone.forward_features(self.images)
        predicted = logits.argmax(1)
        total = torch.zeros((), device=self.device)
        for index in range(len(self.labels)):
            channels, height, width = features[index].shape
            weight = self.model.head.weight[predicted[index]]
            cam = weight @ features[index].float().reshape(channels, height * width)
            cam = cam.reshape(height, width)
            cam = cam - cam.min()
            cam = cam / cam.max()
            human = self.maps[index] - self.maps[index].min()
            total = total + torch.nn.functional.mse_loss(cam, human / human.max())
        classification = torch.nn.functional.cross_entropy(logits, self.labels)
        self.finish(0.5 * total / len(self.labels) + 0.5 * classification)


class Canvases:
    """An `ImageSource` of noise with a marked square each."""

    def __init__(self, count: int, side: int) -> None:
        generator = np.random.default_rng(0)
        self.pixels = generator.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
        self.maps = np.zeros((count, 128, 128), np.uint8)
        self.maps[:, 40:90, 30:80] = 255
        self.side, self.sizes = side, np.full((count, 2), side, np.int32)

    def canvases(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def human_maps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.maps[rows]


class WholeSteps(Sides):
    """Steps from canvases and maps."""

    def __init__(self, backbone: str, batch: int, device: torch.device) -> None:
        super().__init__(backbone, batch, device)
        side = self.model.spec.input_size
        self.rows = Rows(
            Canvases(batch, side),
            np.arange(batch),
            np.arange(batch) % 2,
            side,
            "squash",
            targets=MapTargets.human(np.ones(batch, np.float32)),
            grid=self.model.grid(),
        )
        self.numbers = augment.draw(0, 0, np.arange(batch))

    def plain(self) -> None:
        images = self.rows.batch(np.arange(len(self.labels))).images.to(self.device)
        logits, _ = self.model(self.model.preprocess(images))
        self.finish(torch.nn.functional.cross_entropy(logits, self.labels))

    def changed(self, kind: OutsideKind) -> None:
        changes = Augmentation(outside=kind)
        staged = self.rows.stage(np.arange(len(self.labels)), changes, self.numbers)
        batch = augment.moved(staged, lambda part: part.to(self.device)).finished()
        logits, _, cam, *_ = self.model(self.model.preprocess(batch.images), "predicted")
        loss = self.loss(logits, self.labels, cam, batch.maps)
        self.finish(loss)


class GuidanceSteps(Sides):
    """Steps with each distance of evidence and each pooling, and of a mapper."""

    def __init__(self, backbone: str, batch: int, device: torch.device) -> None:
        super().__init__(backbone, batch, device)
        self.pooled = {
            kind: with_pool(self.model, Pool(kind)).to(device).train() for kind in ("top", "lse")
        }
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.005, momentum=0.9)

    def steps(self) -> dict[str, Callable[[], None]]:
        found: dict[str, Callable[[], None]] = {"plain": self.plain}
        for name in (*EVIDENCE_DISTANCES, "l2"):
            found[name] = partial(self.of_evidence, self.model, GuidedLoss(0.5, name))
        both = GuidedLoss(0.5, {"l2": 0.5, "cells": 0.5})
        found["l2, cells"] = partial(self.of_evidence, self.model, both)
        for kind, model in self.pooled.items():
            found[f"cells, {kind}"] = partial(self.of_evidence, model, GuidedLoss(0.5, "cells"))
        found["mapper"] = partial(self.of_evidence, self.pooled["top"], GuidedLoss(0.0, "cells"))
        return found

    def of_evidence(self, model: GuidedModel, loss: GuidedLoss) -> None:
        out = model(self.images, self.labels, decision=True)
        self.finish(loss(out.logits, self.labels, out.evidence, self.maps))


def compare_guidance(
    backbones: list[str], batch: int, turns: int, device: torch.device, clock: Callable[[], float]
) -> None:
    """Print the ratio of each distance and pooling to a plain step."""
    print("÷ plain step, median (min-max)")
    for backbone in backbones:
        steps = GuidanceSteps(backbone, batch, device).steps()
        seconds = in_turn(steps, turns=turns, clock=clock)
        for name in steps:
            if name != "plain":
                middle, low, high = ratio(seconds, name, "plain")
                print(f"{backbone:16} {name:12} {middle:.3f} ({low:.3f}-{high:.3f})", flush=True)


def compare_outside(
    kinds: list[OutsideKind],
    backbones: list[str],
    batch: int,
    turns: int,
    device: torch.device,
    clock: Callable[[], float],
) -> None:
    """Print the ratio of each change outside maps to a plain step."""
    print("÷ plain step, median (min-max)")
    print("backbone         " + "".join(f"{name:22}" for name in kinds))
    for backbone in backbones:
        sides = WholeSteps(backbone, batch, device)
        steps = {"plain": sides.plain} | {kind: partial(sides.changed, kind) for kind in kinds}
        seconds = in_turn(steps, turns=turns, clock=clock)
        found = [ratio(seconds, name, "plain") for name in kinds]
        cells = (f"{middle:.3f} ({low:.3f}-{high:.3f})" for middle, low, high in found)
        print(f"{backbone:16} " + "".join(f"{cell:22}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--backbones", nargs="+", default=PAPER)
    parser.add_argument("--guidance", action="store_true")
    parser.add_argument("--outside", nargs="*", choices=get_args(OutsideKind))
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the process")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine())
    if arguments.guidance:
        compare_guidance(arguments.backbones, arguments.batch, arguments.turns, device, clock)
        return
    if arguments.outside is not None:
        kinds = arguments.outside or list(get_args(OutsideKind))
        sizes = arguments.batch, arguments.turns
        compare_outside(kinds, arguments.backbones, *sizes, device, clock)
        return
    print("backbone         size  plain s  guided/plain (min-max)      guided/published (min-max)")
    for backbone in arguments.backbones:
        sides = Sides(backbone, arguments.batch, device)
        steps = {"plain": sides.plain, "guided": sides.guided, "published": sides.published}
        seconds = in_turn(steps, turns=arguments.turns, clock=clock)
        plain = ratio(seconds, "guided", "plain")
        published = ratio(seconds, "guided", "published")
        print(
            f"{backbone:16} {sides.model.spec.input_size:4}  {min(seconds['plain']):7.2f}  "
            f"{plain[0]:.3f} ({plain[1]:.3f}-{plain[2]:.3f})        "
            f"{published[0]:.3f} ({published[1]:.3f}-{published[2]:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
