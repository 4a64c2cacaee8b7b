"""The examples of examples/integrations: lines, difference of losses, step with ÷ without guidance.

    python benchmarks/integrations.py [--rounds 7] [--steps 5] [--backbone resnet18] [--size 64]
        [--examples NAME ...] [--cpu-time]
    python benchmarks/integrations.py --compile

Difference of losses: the largest difference of a step's loss from that of the plain loop over 12
steps of the example as it is, with the same seed; of MONAI from a loop in this file, with the maps
computed by hand. Step: in the library's own loop, from one request for a batch to the next, with
the guided loss and with cross-entropy alone, in turn within each round; the median over the rounds
of the ratio of the medians, with the smallest and largest ratio. MONAI trains a DenseNet of four
blocks.

With --compile, instead: forward and backward pass of the loss alone, compiled and not, in turn, for
64 images with maps of 7 × 7 cells; the median CPU time of 300 passes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from measure import in_turn, machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from preceptor import GuidedLoss, build_model

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "integrations"
sys.path.insert(0, str(FOLDER))

import hf_trainer  # noqa: E402
import ignite_engine  # noqa: E402
import lightning_module  # noqa: E402
import monai_trainer  # noqa: E402
import plain_pytorch  # noqa: E402
import squares  # noqa: E402
import timm_task  # noqa: E402
from monai.data import DataLoader as MonaiLoader  # noqa: E402
from monai.networks.nets import DenseNet  # noqa: E402

BATCH = 16
LIBRARIES = {
    plain_pytorch: "PyTorch",
    lightning_module: "Lightning",
    hf_trainer: "Hugging Face Transformers",
    timm_task: "timm",
    ignite_engine: "Ignite",
    monai_trainer: "MONAI",
}


class Clocked(Dataset[Any]):
    """Items of a data set, with the moments at which the first item of each batch is asked for."""

    def __init__(self, data: Dataset[Any], clock: Callable[[], float]) -> None:
        self.data, self.clock = data, clock
        self.moments: list[float] = []

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if index % BATCH == 0:
            self.moments.append(self.clock())
        return self.data[index]

    def step(self) -> float:
        """Median seconds of a step, without the first."""
        pairs = zip(self.moments[1:], self.moments[2:], strict=False)
        return median(later - earlier for earlier, later in pairs)


class Dictionaries(Dataset[Any]):
    """Items by name, as MONAI has them."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label, human = self.data[index]
        return {"image": image, "label": label, "map": human[None]}


class PlainModule(lightning_module.GuidedModule):
    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels, _human = batch
        loss = cross_entropy(self.model(images).logits, labels)
        self.log("loss", loss, batch_size=len(images))
        self.losses.append(loss.item())
        return loss


class PlainTrainer(hf_trainer.GuidedTrainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        return cross_entropy(model(inputs["images"]).logits, inputs["labels"])


class PlainTask(timm_task.GuidedTask):
    def forward(self, input: Tensor, target: Tensor, human: Tensor) -> dict[str, Tensor]:  # noqa: A002
        logits = self.trainable_module(input).logits
        return {"loss": cross_entropy(logits, target), "output": logits}


class PlainDenseNet(DenseNet):
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)
        return logits


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> ignite_engine.Step:
    def step(_: Any, batch: list[Tensor]) -> float:
        model.train()
        loss = cross_entropy(model(batch[0]).logits, batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def plain_loss(logits: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(logits, targets[0])


def plain_loop(model: nn.Module, batches: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for images, labels, _ in batches:
        loss = cross_entropy(model(images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


Run = Callable[[Dataset[Any]], object]


def sides(model: Any, guided: bool) -> dict[Any, Run]:
    """The loop of each library over a data set, with or without guidance."""

    def loop(data: Dataset[Any]) -> object:
        loader = DataLoader(data, batch_size=BATCH)
        return plain_pytorch.train(model, loader, 1) if guided else plain_loop(model, loader)

    def lightning(data: Dataset[Any]) -> object:
        kind = lightning_module.GuidedModule if guided else PlainModule
        return lightning_module.train(kind(model), data, 1)

    def hugging_face(data: Dataset[Any]) -> object:
        return hf_trainer.train(
            model, data, 1, hf_trainer.GuidedTrainer if guided else PlainTrainer
        )

    def timm(data: Dataset[Any]) -> object:
        kind = timm_task.GuidedTask if guided else PlainTask
        return timm_task.train(kind(model, GuidedLoss(alpha=0.5), verbose=False), data, 1)

    def ignite(data: Dataset[Any]) -> object:
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        step = (ignite_engine.guided_step if guided else plain_step)(model, optimizer)
        return ignite_engine.train(step, data, 1)

    kind = monai_trainer.GuidedDenseNet if guided else PlainDenseNet
    network = kind(2, 3, 2, init_features=32, growth_rate=16, block_config=(3, 6, 6, 3))

    def monai(data: Dataset[Any]) -> object:
        loss = monai_trainer.guided_loss if guided else plain_loss
        return monai_trainer.train(network, Dictionaries(data), 1, loss)

    runs = (loop, lightning, hugging_face, timm, ignite, monai)
    return dict(zip(LIBRARIES, runs, strict=True))


class Named(NamedTuple):
    logits: Tensor
    saliency: Tensor


class ByHand(nn.Module):
    """A DenseNet of MONAI whose maps are computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2)}
        self.network = DenseNet(2, 3, 2, **layers)

    def forward(self, images: Tensor, labels: Tensor) -> Named:
        features = self.network.features(images).relu()
        head = self.network.class_layers.out
        maps = (head.weight[labels][:, :, None, None] * features).sum(1)
        return Named(head(features.mean((2, 3))), maps)


def losses_by_hand(folder: Path, epochs: int) -> list[float]:
    """Losses of the plain loop on the batches of the example of MONAI."""
    torch.manual_seed(0)
    network = ByHand()
    data = monai_trainer.read_images(squares.write_images(folder, 96))
    loader = MonaiLoader(data, batch_size=BATCH)
    found = [
        (one["image"], one["label"], one["map"][:, 0]) for _ in range(epochs) for one in loader
    ]
    losses: list[float] = plain_pytorch.train(network, found, 1)
    return losses


def difference(module: Any) -> float:
    """Largest difference of a step's loss from that of the plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        found = module.main(Path(folder), 2)
        of_plain = losses_by_hand if module is monai_trainer else plain_pytorch.main
        expected = of_plain(Path(folder), 2)
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def ratios(
    module: Any, data: TensorDataset, rounds: int, model: Any, clock: Callable[[], float]
) -> list[float]:
    """Step with guidance ÷ step without, of each round."""
    runs = {guided: sides(model, guided)[module] for guided in (False, True)}
    found = []
    for number in range(rounds + 1):  # the first warms up
        seconds = {}
        for guided in (False, True) if number % 2 else (True, False):
            clocked = Clocked(data, clock)
            runs[guided](clocked)
            seconds[guided] = clocked.step()
        found.append(seconds[True] / seconds[False])
    return found[1:]


def compare_compiled() -> None:
    logits, cam = torch.randn(64, 2), torch.randn(64, 7, 7)
    batch = (logits.requires_grad_(), torch.arange(64) % 2, cam.requires_grad_())
    for distance in ("l2", "cells"):
        loss, maps = GuidedLoss(0.5, distance), torch.rand(64, 7, 7)
        compiled = torch.compile(loss, fullgraph=True)
        started = time.perf_counter()
        compiled(*batch, maps).backward()
        waited = time.perf_counter() - started
        passes = {
            "not compiled": lambda loss=loss, maps=maps: loss(*batch, maps).backward(),
            "compiled": lambda loss=compiled, maps=maps: loss(*batch, maps).backward(),
        }
        seconds = in_turn(passes, turns=300, clock=time.process_time)
        parts = ", ".join(f"{name} {median(one) * 1e6:.0f} µs" for name, one in seconds.items())
        print(f"{distance}: {parts}; compiled in {waited:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    names = {Path(module.__file__).stem: module for module in LIBRARIES}
    parser.add_argument("--examples", nargs="+", choices=names, default=list(names))
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the process")
    parser.add_argument("--compile", action="store_true", help="the loss alone, compiled and not")
    given = parser.parse_args()
    if given.compile:
        print(machine())
        compare_compiled()
        return
    clock = time.process_time if given.cpu_time else time.perf_counter
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning_fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = build_model(given.backbone, squares.CLASSES, input_size=given.size)
    count, grid = BATCH * given.steps, model.grid()
    images, labels = torch.rand(count, 3, given.size, given.size), torch.arange(count) % 2
    data = TensorDataset(images, labels, torch.rand(count, *grid))
    print(machine())
    print(f"load {os.getloadavg()[0]:.1f} at the beginning, {given.backbone} at {given.size} px")
    print("| file | library | lines | loss difference | step ÷ without guidance |")
    print("| --- | --- | --- | --- | --- |")
    for name in given.examples:
        module = names[name]
        file = Path(module.__file__)
        lines = len(file.read_text(encoding="utf-8").splitlines())
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            apart = difference(module)
            found = ratios(module, data, given.rounds, model, clock)
        step = f"{median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
        print(
            f"| `{file.name}` | {LIBRARIES[module]} | {lines} | {apart:.1g} | {step} |", flush=True
        )
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
