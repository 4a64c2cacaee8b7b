"""Many small trainings on one device: batched in one program, or one after another in processes?

    python benchmarks/many.py [--sizes 48 64 96] [--backbones test_byobnet resnet10t] [--runs 4]

All sides train the same networks, which differ in seed and α, on the same batches in memory with
the guided loss, AdamW and clipped gradients, float32, in the default memory layout:

  one thread     one network after another in one process with one thread
  two processes  half of the networks in each of two processes with one thread
  two threads    one network after another in one process with two threads
  batched        all networks at once in one process with two threads: `torch.func.functional_call`
                 and `torch.vmap` over stacked parameters and buffers, so that convolutions become
                 grouped convolutions and every network keeps its own batch norm statistics
  batched pair   half of the networks at once in each of two processes with one thread

Sides take turns; a ratio compares two sides within a turn. Before that, batched and single
trainings are compared weight by weight, in float64 and in float32. `--device cuda` was never run.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import torch
from measure import in_turn, machine, ratio
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.utils import clip_grad_norm_

from preceptor.losses.guided import Targets, combine, guided_loss_terms
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel

ALPHAS = (0.9, 0.5, 0.1, 0.05)
ARGUMENTS = {"test_byobnet": {"output_stride": 8}}
CLIP = 1.0
SIDES = ("one thread", "two processes", "two threads", "batched", "batched pair")


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        backbone: timm name.
        side: Side of the images in pixels.
        batch: Images of a step.
        steps: Steps of each network in a turn.
        device: cpu or cuda.
    """

    backbone: str
    side: int
    batch: int
    steps: int
    device: str


class Data:
    """Batches of random images in memory, the same for every side."""

    def __init__(self, task: Task, grid: tuple[int, int], dtype: torch.dtype) -> None:
        made = torch.Generator().manual_seed(0)
        count = min(task.steps, 8)
        shape = (count, task.batch, 3, task.side, task.side)
        self.images = torch.randn(shape, generator=made).to(task.device, dtype)
        self.maps = torch.rand((count, task.batch, *grid), generator=made).to(task.device, dtype)
        self.labels = (torch.arange(task.batch) % 2).to(task.device)

    def targets(self, step: int, copies: int = 1) -> Targets:
        """Labels and maps of a batch, repeated for each network."""
        maps = self.maps[step % len(self.maps)]
        return Targets(self.labels.repeat(copies), maps.repeat(copies, 1, 1))


def networks(task: Task, runs: list[int], dtype: torch.dtype = torch.float32) -> list[GuidedModel]:
    """Initial networks, one per run."""
    made = []
    for run in runs:
        torch.manual_seed(run)
        model = build_model(
            task.backbone, ["real", "fake"], input_size=task.side,
            backbone_args=ARGUMENTS.get(task.backbone, {}),
        )  # fmt: skip
        made.append(model.to(task.device, dtype).train())
    return made


def optimizer_of(parameters: list[Tensor]) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=0.006, weight_decay=0.01)


class Single:
    """Trainings one after another."""

    def __init__(self, task: Task, runs: list[int], dtype: torch.dtype = torch.float32) -> None:
        self.task, self.models = task, networks(task, runs, dtype)
        self.alphas = [ALPHAS[run % len(ALPHAS)] for run in runs]
        self.optimizers = [optimizer_of(list(model.parameters())) for model in self.models]
        self.data = Data(task, self.models[0].grid(), dtype)

    def train(self) -> None:
        """All steps of every network."""
        triples = zip(self.models, self.optimizers, self.alphas, strict=True)
        for model, optimizer, alpha in triples:
            for step in range(self.task.steps):
                targets = self.data.targets(step)
                images = self.data.images[step % len(self.data.images)]
                logits, _, cam, _ = model(images, targets.labels)
                loss = combine(guided_loss_terms(logits, cam, targets), alpha)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
        finish(self.task)

    def weights(self) -> list[dict[str, Tensor]]:
        """Parameters and buffers of every network."""
        return [dict(model.state_dict()) for model in self.models]


class Batched:
    """All trainings at once, on stacked parameters and buffers."""

    def __init__(self, task: Task, runs: list[int], dtype: torch.dtype = torch.float32) -> None:
        self.task, self.count = task, len(runs)
        models = networks(task, runs, dtype)
        self.data = Data(task, models[0].grid(), dtype)
        parameters, self.buffers = stack_module_state(list[nn.Module](models))
        self.parameters = {
            name: value.detach().requires_grad_() for name, value in parameters.items()
        }
        self.optimizer = optimizer_of(list(self.parameters.values()))
        alphas = [ALPHAS[run % len(ALPHAS)] for run in runs]
        self.alphas = torch.tensor(alphas, dtype=dtype, device=task.device)[:, None]
        # Without the weights of one of the networks, so that none of them can be used by mistake.
        self.model = copy.deepcopy(models[0]).to("meta")

    def _forward(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        # Batch norm writes its statistics into the stacked buffers.
        logits, _, cam, _ = functional_call(self.model, (parameters, buffers), (images, labels))
        return logits, cam

    def train(self) -> None:
        """All steps."""
        forward = torch.vmap(self._forward, in_dims=(0, 0, None, None))
        for step in range(self.task.steps):
            targets = self.data.targets(step, self.count)
            images = self.data.images[step % len(self.data.images)]
            logits, cam = forward(self.parameters, self.buffers, images, self.data.labels)
            # The loss is one of images, so that those of all networks are one batch of images.
            terms = guided_loss_terms(logits.flatten(0, 1), cam.flatten(0, 1), targets)
            guidance, classification = (
                one.view(self.count, -1) for one in (terms.guidance, terms.classification)
            )
            each = ((1 - self.alphas) * guidance + self.alphas * classification).mean(1)
            self.optimizer.zero_grad(set_to_none=True)
            each.sum().backward()
            self._clip()
            self.optimizer.step()
        finish(self.task)

    def _clip(self) -> None:
        """As `clip_grad_norm_`, for each network by its own norm."""
        gradients = [one.grad for one in self.parameters.values() if one.grad is not None]
        squares = torch.stack([one.flatten(1).square().sum(1) for one in gradients])
        factor = (CLIP / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
        for one in gradients:
            one.mul_(factor.view(-1, *[1] * (one.ndim - 1)))

    def weights(self) -> list[dict[str, Tensor]]:
        """Parameters and buffers of every network."""
        whole = {**self.parameters, **self.buffers}
        return [{name: value[run] for name, value in whole.items()} for run in range(self.count)]


def finish(task: Task) -> None:
    """Wait for the device."""
    if task.device == "cuda":
        torch.cuda.synchronize()


def largest_difference(task: Task, runs: list[int], dtype: torch.dtype) -> float:
    """Largest difference of a weight or statistic between batched and single trainings."""
    single, batched = Single(task, runs, dtype), Batched(task, runs, dtype)
    single.train()
    batched.train()
    return max(
        float((one[name] - other[name]).abs().max())
        for one, other in zip(single.weights(), batched.weights(), strict=True)
        for name in one
        if one[name].is_floating_point()
    )


def serve(link: Connection, kind: str, task: Task, runs: list[int], threads: int) -> None:
    """A process that trains when it is told to, until it is told to end."""
    torch.set_num_threads(threads)
    side = (Batched if kind == "batched" else Single)(task, runs)
    link.send(True)
    while link.recv():
        side.train()
        link.send(True)


class Workers:
    """Processes that train at the same time, each with its share of the networks."""

    def __init__(self, kind: str, task: Task, runs: int, processes: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.links: list[Connection] = []
        for place in range(processes):
            ours, theirs = context.Pipe()
            own = list(range(place, runs, processes))
            arguments = (theirs, kind, task, own, threads)
            context.Process(target=serve, args=arguments, daemon=True).start()
            self.links.append(ours)
        for link in self.links:
            link.recv()

    def train(self) -> None:
        """One turn of all processes."""
        for link in self.links:
            link.send(True)
        for link in self.links:
            link.recv()

    def close(self) -> None:
        """End the processes."""
        for link in self.links:
            link.send(False)


def measured(task: Task, runs: int, turns: int) -> dict[str, list[float]]:
    """Seconds of every side, turn by turn."""
    workers = {
        "one thread": Workers("single", task, runs, 1, 1),
        "two processes": Workers("single", task, runs, 2, 1),
        "two threads": Workers("single", task, runs, 1, 2),
        "batched": Workers("batched", task, runs, 1, 2),
        "batched pair": Workers("batched", task, runs, 2, 1),
    }
    sides: dict[str, Callable[[], object]] = {name: one.train for name, one in workers.items()}
    seconds = in_turn(sides, turns=turns)
    for one in workers.values():
        one.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["test_byobnet", "resnet10t"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[48, 64, 96])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="of a network in a turn")
    parser.add_argument("--length", type=int, default=700, help="steps of a whole training")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print(machine())
    print(f"{arguments.runs} networks, batch {arguments.batch}; networks an hour: of "
          f"{arguments.length} steps; ratios: two processes = 1, median (min to max) of "
          f"{arguments.turns} turns")  # fmt: skip
    for backbone in arguments.backbones:
        task = Task(backbone, arguments.sizes[0], 8, 20, arguments.device)
        both = [largest_difference(task, [0, 1, 2], one) for one in (torch.float64, torch.float32)]
        print(f"{backbone}: batched and single weights after {task.steps} steps differ by "
              f"{both[0]:.1e} (float64) and {both[1]:.1e} (float32)", flush=True)  # fmt: skip
    print("\n| backbone | px | " + " | ".join(SIDES) + " | batched ÷ two processes |")
    print("| --- | --- | " + "--- | " * len(SIDES) + "--- |")
    for backbone in arguments.backbones:
        for side in arguments.sizes:
            task = Task(backbone, side, arguments.batch, arguments.steps, arguments.device)
            seconds = measured(task, arguments.runs, arguments.turns)
            cells = []
            for name in SIDES:
                steps = arguments.runs * task.steps / median(seconds[name])
                low, middle, high = sorted(ratio(seconds, "two processes", name))
                cells.append(
                    f"{3600 * steps / arguments.length:.0f} an hour, {middle:.2f} "
                    f"({low:.2f} to {high:.2f})"
                )
            best = max(ratio(seconds, "two processes", one)[0] for one in SIDES[3:])
            print(f"| {backbone} | {side} | {' | '.join(cells)} | {best:.2f} |", flush=True)


if __name__ == "__main__":
    main()
