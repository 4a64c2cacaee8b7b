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
trainings are compared weight by weight, in float64 and in float32, and by the CPU time of one
thread, which other work on the machine does not change. `--device cuda` was never run.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import time
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
from preceptor.runtime.freed_memory import keep_freed_memory

ALPHAS = (0.9, 0.5, 0.1, 0.05)
ARGUMENTS = {"test_byobnet": {"output_stride": 8}}
CLIP = 1.0


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
            task.backbone,
            ["real", "fake"],
            input_size=task.side,
            backbone_args=ARGUMENTS.get(task.backbone, {}),
        )
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
                out = model(images, targets.labels)
                loss = combine(guided_loss_terms(out.logits, out.saliency, targets), alpha)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
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
        (self.head,) = (
            name for name, value in models[0].named_parameters() if value is models[0].head.weight
        )
        # Without the weights of one of the networks, so that none of them can be used by mistake.
        self.model = copy.deepcopy(models[0]).to("meta")

    def _forward(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Batch norm writes its statistics into the stacked buffers.
        out = functional_call(self.model, (parameters, buffers), (images,))
        return out.logits, out.features

    def train(self) -> None:
        """All steps."""
        forward = torch.vmap(self._forward, in_dims=(0, 0, None))
        for step in range(self.task.steps):
            targets = self.data.targets(step, self.count)
            images = self.data.images[step % len(self.data.images)]
            logits, features = forward(self.parameters, self.buffers, images)
            # CAM and loss are those of images; the images of all networks are one batch of them.
            weight = self.parameters[self.head][:, self.data.labels]
            cam = torch.einsum("rbchw,rbc->rbhw", features, weight)
            terms = guided_loss_terms(logits.flatten(0, 1), cam.flatten(0, 1), targets)
            guidance, classification = (
                one.view(self.count, -1) for one in (terms.guidance, terms.classification)
            )
            each = ((1 - self.alphas) * guidance + self.alphas * classification).mean(1)
            self.optimizer.zero_grad(set_to_none=True)
            each.sum().backward()  # type: ignore[no-untyped-call]
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
        float((one[name] - other[name]).detach().abs().max())
        for one, other in zip(single.weights(), batched.weights(), strict=True)
        for name in one
        if one[name].is_floating_point()
    )


def serve(link: Connection, kind: str, threads: int) -> None:
    """A process that builds the networks of each task that it gets, and trains when told to."""
    keep_freed_memory()  # as the workers of a study
    torch.set_num_threads(threads)
    side: Single | Batched | None = None
    while (told := link.recv()) is not None:
        if told == "train":
            assert side is not None
            side.train()
        else:
            side = None  # not two at once
            side = (Batched if kind == "batched" else Single)(*told)
        link.send(True)


class Workers:
    """Processes that train at the same time, each with its share of the networks.

    Args:
        kind: single or batched.
        processes: Number of processes.
        threads: Threads of each.
    """

    def __init__(self, kind: str, processes: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.links: list[Connection] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, kind, threads), daemon=True).start()
            self.links.append(ours)

    def prepare(self, task: Task, runs: int) -> None:
        """Build the networks of a task."""
        for place, link in enumerate(self.links):
            link.send((task, list(range(place, runs, len(self.links)))))
        for link in self.links:
            link.recv()

    def train(self) -> None:
        """One turn of all processes."""
        for link in self.links:
            link.send("train")
        for link in self.links:
            link.recv()

    def close(self) -> None:
        """End the processes."""
        for link in self.links:
            link.send(None)


def check(task: Task) -> None:
    """Print how far batched and single weights are apart."""
    both = [largest_difference(task, [0, 1, 2], one) for one in (torch.float64, torch.float32)]
    print(
        f"{task.backbone}: batched and single weights after {task.steps} steps differ by at most "
        f"{both[0]:.1e} (float64) and {both[1]:.1e} (float32)",
        flush=True,
    )


def work(task: Task, runs: int, turns: int) -> str:
    """CPU seconds of one network and step, one after another and batched, in one thread."""
    single, batched = Single(task, list(range(runs))), Batched(task, list(range(runs)))
    seconds = in_turn(
        {"single": single.train, "batched": batched.train}, turns=turns, clock=time.process_time
    )
    middle, low, high = ratio(seconds, "single", "batched")
    each = [1000 * median(seconds[name]) / (runs * task.steps) for name in ("single", "batched")]
    return f"{each[0]:.0f} ms | {each[1]:.0f} ms | {middle:.2f} ({low:.2f} to {high:.2f})"


def wall(tasks: list[Task], runs: int, turns: int, length: int) -> None:
    """Print the networks that every side trains in an hour."""
    workers = {
        "one thread": Workers("single", 1, 1),
        "two processes": Workers("single", 2, 1),
        "two threads": Workers("single", 1, 2),
        "batched": Workers("batched", 1, 2),
        "batched pair": Workers("batched", 2, 1),
    }
    print("\n| backbone | px | " + " | ".join(workers) + " |")
    print("| --- | --- | " + "--- | " * len(workers))
    for task in tasks:
        for one in workers.values():
            one.prepare(task, runs)
        sides: dict[str, Callable[[], object]] = {name: one.train for name, one in workers.items()}
        seconds = in_turn(sides, turns=turns)
        cells = []
        for name in workers:
            middle, low, high = ratio(seconds, "two processes", name)
            hourly = 3600 * runs * task.steps / median(seconds[name]) / length
            cells.append(f"{hourly:.0f} an hour, {middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {task.backbone} | {task.side} | {' | '.join(cells)} |", flush=True)
    for one in workers.values():
        one.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["test_byobnet", "resnet10t"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[48, 64, 96])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="of a network in a turn")
    parser.add_argument("--length", type=int, default=700, help="steps of a whole training")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--parts", nargs="+", default=["check", "work", "wall"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print(
        f"{arguments.runs} networks, batch {arguments.batch}, medians of {arguments.turns} turns; "
        f"networks an hour: of {arguments.length} steps; ratios: single ÷ batched, and two "
        "processes ÷ each side, above 1 = faster"
    )
    if "check" in arguments.parts:
        for backbone in arguments.backbones:
            check(Task(backbone, arguments.sizes[0], 8, 4, arguments.device))
    tasks = [
        Task(backbone, side, arguments.batch, arguments.steps, arguments.device)
        for backbone in arguments.backbones
        for side in arguments.sizes
    ]
    if "work" in arguments.parts:
        print("\n| backbone | px | single, CPU time | batched, CPU time | single ÷ batched |")
        print("| --- | --- | --- | --- | --- |")
        for task in tasks:
            found = work(task, arguments.runs, arguments.turns)
            print(f"| {task.backbone} | {task.side} | {found} |", flush=True)
    if "wall" in arguments.parts:
        wall(tasks, arguments.runs, arguments.turns, arguments.length)


if __name__ == "__main__":
    main()
