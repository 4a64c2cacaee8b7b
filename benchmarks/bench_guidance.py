"""Cost of a training step with each guidance method, relative to plain cross-entropy.

    python benchmarks/bench_guidance.py [--networks NAME ...] [--turns 3] [--batch 16]
        [--size 96] [--cpu-time]

Each step is a whole one with optimizer; all images have maps. Seconds are medians of ratios within
a turn, in which all methods run one after the other. Memory is the largest allocation of a step on
a GPU, and on a CPU the most that autograd keeps at once for the backward pass.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import torch
from measure import in_turn, machine, ratio
from torch.autograd.graph import saved_tensors_hooks

from preceptor import guidance_method
from preceptor.losses.guidance import GuidanceBatch, GuidedForward, TeacherOutput, guided_objective
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel

NETWORKS = {
    "resnet10t": ("resnet10t", {}),
    "small DenseNet": ("densenet121", {"growth_rate": 12, "block_config": [4, 4, 4]}),
}
METHODS = [
    ("cyborg", None), ("evidence", "energy"), ("evidence", "cfce"), ("rank", None),
    ("slack", None), ("teach", "kd"), ("teach", "e2kd"), ("head", "mask"), ("head", "abn"),
    ("outside", "swap"), ("masktune", None), ("latent", "actdiff"), ("robust", "corm"),
    ("faithful", None), ("latent", "sage"), ("saliency_guided", None), ("robust", "pgd_ex"),
    ("gradient", "ross"), ("gradient", "gals"), ("harmonize", None),
]  # fmt: skip


def batch_for(model: GuidedModel, size: int) -> GuidanceBatch:
    """Noise with maps, and the output of a Teacher."""
    device, side, grid = model.device, model.spec.input_size, model.grid()
    teacher = TeacherOutput(
        torch.randn(size, 2), torch.randn(size, 2, *grid), torch.rand(size, *grid)
    )
    return GuidanceBatch(
        torch.randn(size, 3, side, side, device=device),
        torch.arange(size, device=device) % 2,
        torch.rand(size, *grid, device=device),
        teacher=TeacherOutput(*(part.to(device) for part in teacher)),
    )


def step_of(
    model: GuidedModel, batch: GuidanceBatch, name: str, preset: str | None
) -> Callable[[], None]:
    """A training step; "plain" is cross-entropy alone."""
    forward = GuidedForward(model)
    method = guidance_method("cyborg" if name == "plain" else name, preset)
    method.prepare(model, batch.images)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if name == "plain":
            loss = torch.nn.functional.cross_entropy(model(batch.images)[0], batch.labels)
        else:
            loss = guided_objective(method, batch, forward, 0.5, 1e-3).loss
        loss.backward()
        optimizer.step()
        if batch.images.is_cuda:
            torch.cuda.synchronize()

    return step


class Saved:
    """A tensor that autograd keeps; storages are counted once."""

    alive: ClassVar[Counter[tuple[int, int]]] = Counter()  # by address and bytes
    peak: ClassVar[int] = 0

    def __init__(self, part: torch.Tensor) -> None:
        storage = part.untyped_storage()
        self.part, self.key = part, (storage.data_ptr(), storage.nbytes())
        Saved.alive[self.key] += 1
        if Saved.alive[self.key] == 1:
            Saved.peak = max(Saved.peak, sum(size for _, size in Saved.alive))

    def __del__(self) -> None:
        Saved.alive[self.key] -= 1
        if not Saved.alive[self.key]:
            del Saved.alive[self.key]


def memory_of(step: Callable[[], None]) -> int:
    """Bytes of a step beyond the weights."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    Saved.alive.clear()
    Saved.peak = 0
    with saved_tensors_hooks(Saved, lambda saved: saved.part):
        step()
    return Saved.peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of the process")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine())
    for network in arguments.networks:
        backbone, options = NETWORKS[network]
        torch.manual_seed(0)
        model = build_model(backbone, ["a", "b"], input_size=arguments.size, backbone_args=options)
        model = model.to(device).train()
        batch = batch_for(model, arguments.batch)
        sides = {f"{name} {preset or ''}".strip(): (name, preset) for name, preset in METHODS}
        steps = {key: step_of(model, batch, *side) for key, side in sides.items()}
        steps = {"plain": step_of(model, batch, "plain", None)} | steps
        seconds = in_turn(steps, turns=arguments.turns, clock=clock)
        memory = {name: memory_of(step) for name, step in steps.items()}
        print(f"{network}: {min(seconds['plain']):.3f} s, {memory['plain'] / 2**20:.0f} MiB a step")
        for name in sides:
            middle, low, high = ratio(seconds, name, "plain")
            share = memory[name] / memory["plain"]
            print(
                f"  {name:18} {middle:5.2f} ({low:.2f}-{high:.2f})  memory {share:5.2f}", flush=True
            )


if __name__ == "__main__":
    main()
