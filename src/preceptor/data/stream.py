"""Training batches: their order, random numbers and prefetching.

The order of images and every random change are pure functions of (seed, epoch, position), so that a
run can be resumed at any epoch and shared by any number of processes with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.config.training import Augmentation, Length
from preceptor.data import draws
from preceptor.data.batch import Batch, Staged
from preceptor.data.rows import Rows


def epoch_order(
    seed: int, epoch: int, labels: NDArray[np.int64], *, balanced: bool
) -> NDArray[np.int64]:
    """The order of an epoch: a permutation, or as many draws with every class equally likely."""
    generator = np.random.default_rng([seed, epoch, 1])
    if not balanced:
        return generator.permutation(len(labels))
    counts = np.bincount(labels)
    chance = 1 / counts[labels]
    return generator.choice(len(labels), len(labels), p=chance / chance.sum())


def split_batches(count: int, batch_size: int, least: int = 2) -> list[slice]:
    """Consecutive batches; a last one that is too small joins the batch before it.

    Args:
        count: Images.
        batch_size: Images a batch.
        least: Fewest images of a batch: batch norm needs two, several devices one each.

    Example:
        >>> [(s.start, s.stop) for s in split_batches(9, 4)]
        [(0, 4), (4, 9)]
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def shares(count: int, parts: int) -> list[slice]:
    """Consecutive shares of `count` positions whose sizes differ by one at most.

    Example:
        >>> [(s.start, s.stop) for s in shares(5, 3)]
        [(0, 2), (2, 4), (4, 5)]
    """
    size, larger = divmod(count, parts)
    starts = [size * part + min(part, larger) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


class TrainingStream:
    """Infinite sequence of training batches; step t is a pure function of t.

    Every pass over the rows is a permutation of them. With `length: epochs`, the last batch of a
    pass contains the remaining rows. With `length: steps`, batches continue across passes: step t
    has the positions t·B … t·B + B − 1 of the concatenated permutations, so that every step has B
    images and two runs with the same number of steps see the same number of images.

    Args:
        rows: Training rows.
        batch_size: Number of images B of a step.
        seed: Random seed of order and augmentation.
        settings: Augmentation.
        length: Whether batches end with a pass (epochs) or continue across passes (steps).
        balanced: Whether every class is drawn equally often.
        rank, world: Index and number of the processes; each process gets its share of every batch.
        device: Device of augmentation and training; None = the CPU.
        paired: Whether batches have the images without changes outside their maps as well.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        settings: Augmentation,
        length: Length = "epochs",
        balanced: bool = False,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
        paired: bool = False,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.length = length
        self.settings = settings if settings != Augmentation() else None
        self.balanced, self.paired = balanced, paired
        self.rank, self.world = rank, world
        self.slices = split_batches(len(rows), batch_size, max(2, world))
        self.device = device or torch.device("cpu")
        self._uploads: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._uploads = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._kept: dict[int, NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the rows, where batches end with a pass."""
        return len(self.slices)

    @property
    def sizes(self) -> list[int]:
        """Every number of images that a batch may have, all shares together."""
        if self.length == "steps":
            return [self.batch_size]
        return sorted({part.stop - part.start for part in self.slices})

    def size(self, step: int) -> int:
        """Images of the batch of step t, all shares together."""
        start, stop = self._range(step)
        return stop - start

    def _range(self, step: int) -> tuple[int, int]:
        """The positions of step t's batch among the orders of all passes in a row."""
        if self.length == "steps":
            return step * self.batch_size, (step + 1) * self.batch_size
        epoch, position = divmod(step, self.steps_per_epoch)
        part, before = self.slices[position], epoch * len(self.rows)
        return before + part.start, before + part.stop

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of steps start ≤ t < stop, each made while the one before it is trained on.

        For a GPU, what is made ahead are canvases and maps, in its memory; images are changed
        there, in the order of the step's own work.
        """
        if start >= stop:
            return
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._load, start)
            for step in range(start + 1, stop + 1):
                load = coming.result()
                if step < stop:
                    coming = ahead.submit(self._load, step)
                yield load()

    def _load(self, step: int) -> Callable[[], Batch]:
        """Make a batch ahead; the function that is returned does what is left."""
        start, stop = self._range(step)
        share = shares(stop - start, self.world)[self.rank]
        chosen, numbers = self._positions(start + share.start, start + share.stop)
        staged = replace(self.rows.stage(chosen, self.settings, numbers), paired=self.paired)
        if self._uploads is None:
            batch = staged.finished()
            return lambda: batch
        return self._upload(staged, self._uploads)

    def _upload(self, staged: Staged, uploads: torch.cuda.Stream) -> Callable[[], Batch]:
        """Copy a batch to the GPU beside what it computes."""
        with torch.cuda.stream(uploads):
            moved = staged.moved(lambda part: part.pin_memory().to(self.device, non_blocking=True))
            copied = uploads.record_event()

        def finish() -> Batch:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)

            def used(part: Tensor) -> Tensor:
                part.record_stream(current)  # its memory is not free before the step is through
                return part

            return moved.moved(used).finished()

        return finish

    def _positions(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """The rows at start ≤ position < stop of all orders in a row, and their uniform numbers."""
        count = len(self.rows)
        orders, drawn = [], []
        for epoch in range(start // count, (stop - 1) // count + 1):
            positions = np.arange(max(start - epoch * count, 0), min(stop - epoch * count, count))
            orders.append(self._order(epoch)[positions])
            if self.settings is not None:
                drawn.append(draws.draw(self.seed, epoch, positions))
        return np.concatenate(orders), np.concatenate(drawn) if drawn else None

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._kept:
            order = epoch_order(self.seed, epoch, self.rows.labels, balanced=self.balanced)
            # The pass before is kept too: in steps, a batch may lie in both.
            self._kept = {key: self._kept[key] for key in self._kept if key == epoch - 1}
            self._kept[epoch] = order
        return self._kept[epoch]
