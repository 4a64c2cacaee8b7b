"""Rows of a run, their batches, and the order of training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from preceptor.config.settings import Fit
from preceptor.config.training import Augmentation, Length
from preceptor.data import draws
from preceptor.data.augment import Prepared, apply, prepare
from preceptor.data.cache import ImageSource
from preceptor.data.geometry import fit_boxes
from preceptor.data.outside import MASK_SIDE, Outside, masks_of, partners_of, prepare_outside
from preceptor.data.resampling import resample, turn_maps


class Batch(NamedTuple):
    """What a training step needs.

    Args:
        images: (B, C, S, S) uint8; its memory is channels-last.
        labels: (B,) int64.
        maps: (B, h, w) float32 on the model's grid, or None for a run without guidance.
        map_weight: (B,) float32 w_k; None with maps.
        sample_weight: (B,) float32 v_k; None = 1.
        soft: (B, C) float32 a Teacher's probabilities, NaN for an image it has none of; None =
            labels alone.
        unchanged: (B, C, S, S) the images without changes outside their maps; None = not needed.
        changed: (B,) bool, images with such a change; None with unchanged.
    """

    images: Tensor
    labels: Tensor
    maps: Tensor | None = None
    map_weight: Tensor | None = None
    sample_weight: Tensor | None = None
    soft: Tensor | None = None
    unchanged: Tensor | None = None
    changed: Tensor | None = None


@dataclass(frozen=True)
class Staged:
    """Batch before augmentation, on the device of the model.

    Args:
        batch: The batch; its images are whole canvases if they are still to be augmented.
        changes: Augmentation of the images, on the same device; None = no augmentation.
        paired: Whether the images without changes outside their maps are needed as well.
    """

    batch: Batch
    changes: Prepared | None
    paired: bool = False

    def finished(self) -> Batch:
        """The batch with its images changed; waits for no device."""
        if self.changes is None:
            return self.batch
        canvases = self.batch.images.permute(0, 2, 3, 1)
        images = apply(canvases, self.changes).permute(0, 3, 1, 2)
        if not self.paired:
            return self.batch._replace(images=images)
        unchanged = images
        if self.changes.outside is not None:
            unchanged = apply(canvases, self.changes.without_outside()).permute(0, 3, 1, 2)
        return self.batch._replace(
            images=images, unchanged=unchanged, changed=self.changes.changed_outside()
        )

    def moved(self, move: Callable[[Tensor], Tensor]) -> Staged:
        """The same with every tensor passed through `move`."""
        batch = Batch(*(None if part is None else move(part) for part in self.batch))  # type: ignore[arg-type]
        changes = None if self.changes is None else self.changes.moved(move)
        return Staged(batch, changes, self.paired)


_BATCH = 512  # maps that are resampled at once


@dataclass(frozen=True)
class MapArray:
    """Maps of one resolution, each covering a region of its image's plane.

    Args:
        maps: (m, H, W) uint8, float16 or float32.
        regions: (m, 4) x0, y0, x1, y1.
    """

    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]
    regions: NDArray[np.float64]


@dataclass(frozen=True)
class Masks:
    """Map targets as masks in [0, 1]: 1 where the evidence for the label of an image lies.

    Args:
        whole: (n,) bool, rows whose mask is 1 everywhere: examined images of a class that is
            defined by the absence of marks.
        inverted: (n,) bool, rows of such a class whose maps show marks: the mask is 1 − map.
        full: Share of a cell that a human map must cover to count as 1; less in proportion.
    """

    whole: NDArray[np.bool_]
    inverted: NDArray[np.bool_]
    full: float = 1.0

    def part(self, which: slice) -> Masks:
        """The masks of consecutive positions."""
        return Masks(self.whole[which], self.inverted[which], self.full)


@dataclass(frozen=True)
class MapTargets:
    """Map targets of rows: human maps, maps of a Teacher, or both.

    Args:
        weight: (n,) map weight w_k of each row, 0 = no guidance.
        array: Maps other than human maps, or None.
        index: (n,) position in `array`, −1 = the human map of the row.
        human_rows: (n,) manifest row whose human map guides each row; None = the row itself.
        masks: Treatment of the maps as masks; None = maps of any scale.
        unmatched: Number of rows without guidance because a store or folder lacks their maps.
    """

    weight: NDArray[np.float32]
    array: MapArray | None
    index: NDArray[np.int64]
    human_rows: NDArray[np.int64] | None = None
    masks: Masks | None = None
    unmatched: int = 0

    @classmethod
    def human(cls, weight: NDArray[np.float32] | NDArray[np.bool_]) -> MapTargets:
        """Human maps only, with the (n,) map weights."""
        return cls(weight.astype(np.float32), None, np.full(len(weight), -1, np.int64))


@dataclass(frozen=True)
class Rows:
    """Rows of a run, in manifest order.

    Args:
        images: Source of canvases and human maps by manifest row.
        rows: (n,) manifest rows.
        labels: (n,) int64.
        size: Side of the model's input in pixels.
        fit: Method that made the canvases square.
        sample_weight: (n,) v_k, or None.
        targets: Map targets, or None.
        grid: Feature grid of the model, for maps.
        soft: (n, C) soft labels, with rows of NaN for none; or None.
    """

    images: ImageSource
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    size: int
    fit: Fit
    sample_weight: NDArray[np.float32] | None = None
    targets: MapTargets | None = None
    grid: tuple[int, int] = (1, 1)
    soft: NDArray[np.float32] | None = None
    boxes: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        boxes = fit_boxes(self.images.sizes[self.rows], self.fit, self.images.side)
        object.__setattr__(self, "boxes", boxes)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, which: slice) -> Rows:
        """The rows of consecutive positions."""
        targets = self.targets
        if targets is not None:
            whose = None if targets.human_rows is None else targets.human_rows[which]
            targets = replace(
                targets,
                weight=targets.weight[which],
                index=targets.index[which],
                human_rows=whose,
                masks=None if targets.masks is None else targets.masks.part(which),
            )
        return replace(
            self,
            rows=self.rows[which],
            labels=self.labels[which],
            sample_weight=None if self.sample_weight is None else self.sample_weight[which],
            targets=targets,
            soft=None if self.soft is None else self.soft[which],
        )

    def without_maps(self) -> Rows:
        """The same rows without map targets."""
        return replace(self, targets=None)

    def batch(
        self,
        chosen: NDArray[np.int64],
        settings: Augmentation | None = None,
        numbers: NDArray[np.float64] | None = None,
    ) -> Batch:
        """The batch of positions `chosen`, augmented by their rows of uniform numbers if given."""
        return self.stage(chosen, settings, numbers).finished()

    def stage(
        self,
        chosen: NDArray[np.int64],
        settings: Augmentation | None = None,
        numbers: NDArray[np.float64] | None = None,
    ) -> Staged:
        """Host work of a batch: canvases, and map targets on the kept part of the canvas."""
        canvases = torch.from_numpy(self.images.canvases(self.rows[chosen])).permute(0, 3, 1, 2)
        boxes, side = self.boxes[chosen], self.images.side
        changes = None
        if settings is None or numbers is None:
            if side != self.size:
                canvases = vision.resize(canvases, [self.size, self.size], antialias=True)
        else:
            changes = draws.changes_of(settings, numbers, side)
            boxes = changes.boxes(boxes, side)
        maps = weight = None
        if self.targets is not None:
            maps = self.maps_on_grid(chosen, boxes)
            if changes is not None:
                flips, quarters = changes.flips, changes.quarters
                maps = turn_maps(maps, torch.from_numpy(flips), torch.from_numpy(quarters))
            weight = torch.from_numpy(self.targets.weight[chosen])
        batch = Batch(
            canvases,
            torch.from_numpy(self.labels[chosen]),
            maps,
            weight,
            None if self.sample_weight is None else torch.from_numpy(self.sample_weight[chosen]),
            None if self.soft is None else torch.from_numpy(self.soft[chosen]),
        )
        if settings is None or changes is None:
            return Staged(batch, None)
        outside = self._outside(chosen, boxes, changes, settings)
        partners = None
        if outside is not None and outside.kind == "other":
            which = outside.places.numpy()
            others = partners_of(changes.keys[which], chosen[which], len(self))
            partners = torch.from_numpy(self.images.canvases(self.rows[others]))
        return Staged(batch, prepare(changes, side, self.size, outside, partners))

    def _outside(
        self,
        chosen: NDArray[np.int64],
        boxes: NDArray[np.float64],
        changes: draws.Changes,
        settings: Augmentation,
    ) -> Outside | None:
        """Host work of the changes outside maps; None if no image is changed."""
        if self.targets is None:
            return None
        which = np.flatnonzero(changes.outside & (self.targets.weight[chosen] > 0))
        if not len(which):
            return None
        maps = self.maps_on_grid(chosen[which], boxes[which], self.mask_grid)
        flips, quarters = changes.flips[which], changes.quarters[which]
        maps = turn_maps(maps, torch.from_numpy(flips), torch.from_numpy(quarters))
        masks, usable = masks_of(maps)
        which = which[usable.numpy()]
        if not len(which):
            return None
        return prepare_outside(settings, which, masks[usable], changes.keys[which], self.size)

    @property
    def mask_grid(self) -> tuple[int, int]:
        """Grid of the masks of changes outside maps: finer than the model's where the maps are."""
        side = min(MASK_SIDE, self.size)
        if self.targets is not None and self.targets.array is not None:
            side = min(side, max(self.targets.array.maps.shape[1:]))
        return side, side

    @cached_property
    def targets_on_grid(self) -> Tensor:
        """(n, h, w) maps of all rows on the grid of the model, resampled once, in batches."""
        starts = range(0, len(self), _BATCH)
        parts = [self.maps_on_grid(np.arange(at, min(at + _BATCH, len(self)))) for at in starts]
        return torch.cat(parts) if parts else torch.zeros((0, *self.grid))

    def maps_on_grid(
        self,
        chosen: NDArray[np.int64],
        boxes: NDArray[np.float64] | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """(B, h, w) maps of positions `chosen`.

        Args:
            chosen: (B,) positions.
            boxes: (B, 4) boxes of the grids; None = whole canvases.
            grid: Size (h, w) of the grid; None = the grid of the model.
        """
        assert self.targets is not None
        boxes = self.boxes[chosen] if boxes is None else boxes
        grid = self.grid if grid is None else grid
        maps = torch.zeros((len(chosen), *grid))
        targets = self.targets
        used = targets.weight[chosen] > 0
        index, masks = targets.index[chosen], targets.masks
        if masks is not None:
            used &= ~masks.whole[chosen]
        human = np.flatnonzero(used & (index < 0))
        if len(human):
            whose = self.rows if targets.human_rows is None else targets.human_rows
            stored, full = _without_constants(self.images.human_maps(whose[chosen[human]]))
            unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(len(human), 4)
            found = resample(stored, unit, torch.from_numpy(boxes[human]), grid)
            if masks is not None:
                found /= 255  # stored from 0 to 255
                found = (found / masks.full).clamp_max(1)
                found[full] = 1
            maps[human] = found
        other = np.flatnonzero(used & (index >= 0))
        if len(other) and targets.array is not None:
            places = index[other]
            stored, full = _without_constants(targets.array.maps[places])
            regions = torch.from_numpy(targets.array.regions[places])
            found = resample(stored, regions, torch.from_numpy(boxes[other]), grid)
            if masks is not None and targets.array.maps.dtype == np.uint8:
                found /= 255  # stored from 0 to 255
            if masks is not None:
                found[full] = 1
            maps[other] = found
        if masks is not None:
            inverted = torch.from_numpy(masks.inverted[chosen])
            maps = maps.clamp(0, 1)
            maps = torch.where(inverted[:, None, None], 1 - maps, maps)
            maps[torch.from_numpy(masks.whole[chosen])] = 1
        return maps


def _without_constants(
    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32],
) -> tuple[Tensor, Tensor]:
    """(B, H, W) as float32 with zeros for constant maps, and (B,) whether a map was 1 everywhere.

    Among maps of any scale, a constant map says nothing, and on a letterboxed canvas, with zeros
    around it, it would say "not the margins". As a mask, 1 everywhere says that the whole image is
    marked.
    """
    stored = torch.from_numpy(maps)
    lowest, highest = stored.amin((1, 2)), stored.amax((1, 2))
    constant = lowest == highest
    full = constant & (highest == (255 if maps.dtype == np.uint8 else 1))
    return stored.float().masked_fill(constant[:, None, None], 0), full


def in_order(rows: Rows, batch_size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Every row once, in order, without augmentation: positions and their batch."""
    positions = np.arange(len(rows))
    parts = [positions[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(rows.batch, parts[0]) if parts else None
        for index, part in enumerate(parts):
            assert coming is not None
            batch = coming.result()
            if index + 1 < len(parts):
                coming = ahead.submit(rows.batch, parts[index + 1])
            yield part, batch


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
