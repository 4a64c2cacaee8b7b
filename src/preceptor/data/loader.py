"""Rows of a run, their batches, and the order of training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from preceptor.config.settings import Fit
from preceptor.config.training import Augmentation, Length
from preceptor.data.augment import (
    MASK_SIDE,
    Changes,
    Outside,
    Prepared,
    apply,
    changes_of,
    draw,
    masks_of,
    moved,
    partners_of,
    prepare,
)
from preceptor.data.cache import Features, ImageSource, in_memory
from preceptor.data.geometry import fit_boxes
from preceptor.data.resampling import resample, turn_maps

Item = TypeVar("Item")
Made = TypeVar("Made")


class Batch(NamedTuple):
    """What a training step needs."""

    images: Tensor  # (B, C, S, S) uint8, or (B, K, h, w) float16 features; in channels-last memory
    labels: Tensor  # (B,) int64
    maps: Tensor | None = None  # (B, h, w) float32 on the model's grid; None = no guidance
    map_weight: Tensor | None = None  # (B,) float32 w_k; None if maps is None
    sample_weight: Tensor | None = None  # (B,) float32 v_k; None = 1
    input_maps: Tensor | None = None  # (B, s, s) maps in input space, of any scale


class Staged(NamedTuple):
    """Batch before augmentation, on the device of the model."""

    batch: Batch  # with whole canvases if there are changes
    changes: Prepared | None

    def finished(self) -> Batch:
        """The batch with its images changed; waits for no device."""
        if self.changes is None:
            return self.batch
        canvases = self.batch.images.permute(0, 2, 3, 1)
        return self.batch._replace(images=apply(canvases, self.changes).permute(0, 3, 1, 2))


_BATCH = 512  # maps that are resampled at once


@dataclass(frozen=True)
class MapArray:
    """Maps of one resolution, each covering a region of its image's plane."""

    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]  # (m, H, W)
    regions: NDArray[np.float64]  # (m, 4) x0, y0, x1, y1


@dataclass(frozen=True)
class Masks:
    """Map targets as masks in [0, 1]: 1 where the evidence for the label of an image lies."""

    # Examined images of a class that is defined by the absence of marks: 1 everywhere.
    whole: NDArray[np.bool_]
    inverted: NDArray[np.bool_]  # images of such a class whose maps show marks: 1 − map
    full: float = 1.0  # share of a cell that a human map must cover to count as 1


@dataclass(frozen=True)
class MapTargets:
    """Map targets of rows: human maps, maps of a Teacher, or both."""

    weight: NDArray[np.float32]  # (n,) w_k, 0 = no guidance
    array: MapArray | None  # maps other than human maps
    index: NDArray[np.int64]  # (n,) position in `array`, −1 = the human map of the row
    human_rows: NDArray[np.int64] | None = None  # (n,) whose human map; None = the row's own
    masks: Masks | None = None  # None = maps of any scale
    unmatched: int = 0  # rows without guidance because a store lacks their maps

    @classmethod
    def human(cls, weight: NDArray[np.float32] | NDArray[np.bool_]) -> MapTargets:
        """Human maps only, with the (n,) map weights."""
        return cls(weight.astype(np.float32), None, np.full(len(weight), -1, np.int64))


@dataclass(frozen=True)
class Rows:
    """Rows of a run, in manifest order."""

    images: ImageSource
    rows: NDArray[np.int64]  # (n,) manifest rows
    labels: NDArray[np.int64]
    size: int  # side of the model's input in pixels
    fit: Fit
    sample_weight: NDArray[np.float32] | None = None  # (n,) v_k
    targets: MapTargets | None = None
    grid: tuple[int, int] = (1, 1)  # of the model's features
    features: Features | None = None  # which batches have for images
    boxes: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        boxes = fit_boxes(self.images.sizes[self.rows], self.fit, self.images.side)
        object.__setattr__(self, "boxes", boxes)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def in_memory(cls, pixels: NDArray[np.uint8], labels: NDArray[np.int64], fit: Fit) -> Rows:
        """Rows of (n, side, side, C) images in memory."""
        return cls(in_memory(pixels), np.arange(len(pixels)), labels, pixels.shape[1], fit)

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
        in_input: bool = False,
    ) -> Staged:
        """Host work of a batch: canvases, and map targets on the kept part of the canvas, with
        `in_input` also on `mask_grid`.
        """
        boxes, side, changes = self.boxes[chosen], self.images.side, None
        if settings is not None and numbers is not None:
            changes = changes_of(settings, numbers, side)
            boxes = changes.boxes(boxes, side)
        if self.features is not None:
            taken = self.features.of(self.rows[chosen], None if changes is None else changes.flips)
            images = torch.from_numpy(taken).permute(0, 3, 1, 2)
        else:
            images = torch.from_numpy(self.images.canvases(self.rows[chosen])).permute(0, 3, 1, 2)
            if changes is None and side != self.size:
                images = vision.resize(images, [self.size, self.size], antialias=True)
        batch = Batch(images, torch.from_numpy(self.labels[chosen]))
        if self.sample_weight is not None:
            batch = batch._replace(sample_weight=torch.from_numpy(self.sample_weight[chosen]))
        if self.targets is not None:
            grids = [self.grid, self.mask_grid] if in_input else [self.grid]
            maps = [self.maps_on_grid(chosen, boxes, grid) for grid in grids]
            if changes is not None:
                maps = [turn_maps(one, changes.flips, changes.quarters) for one in maps]
            weight = torch.from_numpy(self.targets.weight[chosen])
            batch = batch._replace(maps=maps[0], map_weight=weight)
            batch = batch._replace(input_maps=maps[1] if in_input else None)
        if settings is None or changes is None or self.features is not None:
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
        changes: Changes,
        settings: Augmentation,
    ) -> Outside | None:
        """Host work of the changes outside maps; None if no image is changed."""
        if self.targets is None:
            return None
        which = np.flatnonzero(changes.outside & (self.targets.weight[chosen] > 0))
        if not len(which):
            return None
        maps = self.maps_on_grid(chosen[which], boxes[which], self.mask_grid)
        masks, usable = masks_of(turn_maps(maps, changes.flips[which], changes.quarters[which]))
        which = which[usable.numpy()]
        if not len(which):
            return None
        return Outside(
            settings.outside,
            torch.from_numpy(which),
            masks[usable],
            torch.from_numpy(changes.keys[which].astype(np.int64)),
        )

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
        """(B, h, w) maps of (B,) positions on a grid over (B, 4) boxes; None = whole canvases."""
        assert self.targets is not None
        targets, views = self.targets, self.boxes[chosen] if boxes is None else boxes
        shape = grid or self.grid
        maps = torch.zeros((len(chosen), *shape))
        used = targets.weight[chosen] > 0
        index, masks = targets.index[chosen], targets.masks
        if masks is not None:
            used &= ~masks.whole[chosen]

        def place(which: NDArray[np.int64], array: MapArray, full_share: float = 1.0) -> None:
            stored, full = _without_constants(array.maps)
            regions = torch.from_numpy(array.regions)
            found = resample(stored, regions, torch.from_numpy(views[which]), shape)
            if masks is not None:
                if array.maps.dtype == np.uint8:
                    found /= 255  # stored from 0 to 255
                found = (found / full_share).clamp_max(1)
                found[full] = 1
            maps[which] = found

        if len(human := np.flatnonzero(used & (index < 0))):
            whose = self.rows if targets.human_rows is None else targets.human_rows
            units = np.tile([0.0, 0.0, 1.0, 1.0], (len(human), 1))
            stored = MapArray(self.images.human_maps(whose[chosen[human]]), units)
            place(human, stored, 1.0 if masks is None else masks.full)
        if len(other := np.flatnonzero(used & (index >= 0))) and targets.array is not None:
            maps_of, places = targets.array, index[other]
            place(other, MapArray(maps_of.maps[places], maps_of.regions[places]))
        if masks is not None:
            inverted = torch.from_numpy(masks.inverted[chosen])
            maps = maps.clamp(0, 1)
            maps = torch.where(inverted[:, None, None], 1 - maps, maps)
            maps[torch.from_numpy(masks.whole[chosen])] = 1
        return maps


def _without_constants(
    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32],
) -> tuple[Tensor, Tensor]:
    """(B, H, W) as float32, zeros for constant maps; and (B,) whether a map was 1 everywhere."""
    # A constant map of any scale says nothing; with zeros around it, it would say "no margins".
    stored = torch.from_numpy(maps)
    lowest, highest = stored.amin((1, 2)), stored.amax((1, 2))
    constant = lowest == highest
    full = constant & (highest == (255 if maps.dtype == np.uint8 else 1))
    return stored.float().masked_fill(constant[:, None, None], 0), full


def in_order(rows: Rows, batch_size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Every row once, in order, without augmentation: positions and their batch."""
    positions = np.arange(len(rows))
    parts = [positions[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    yield from zip(parts, _ahead(rows.batch, parts), strict=True)


def _ahead(make: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """What is made of each item, while what is made of the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(make, item) for item in items[:1]]
        for item in items[1:]:
            made = coming.pop().result()
            coming.append(thread.submit(make, item))
            yield made
        if coming:
            yield coming.pop().result()


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


def split_batches(count: int, batch_size: int) -> list[slice]:
    """Consecutive batches; a single last image joins the batch before it, for batch norm."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] < 2:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


class TrainingStream:
    """Infinite sequence of training batches; step t is a pure function of t."""

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        settings: Augmentation,
        length: Length = "epochs",
        balanced: bool = False,
        device: torch.device | None = None,
        in_input: bool = False,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.length = length
        self.settings = settings if settings != Augmentation() else None
        self.balanced, self.in_input = balanced, in_input
        self.slices = split_batches(len(rows), batch_size)
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
        """Every number of images that a batch may have."""
        if self.length == "steps":
            return [self.batch_size]
        return sorted({part.stop - part.start for part in self.slices})

    def _range(self, step: int) -> tuple[int, int]:
        """The positions of step t's batch among the orders of all passes in a row."""
        if self.length == "steps":
            return step * self.batch_size, (step + 1) * self.batch_size
        epoch, position = divmod(step, self.steps_per_epoch)
        part, before = self.slices[position], epoch * len(self.rows)
        return before + part.start, before + part.stop

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of steps start ≤ t < stop, each made while the one before it is trained on."""
        yield from (load() for load in _ahead(self._load, range(start, stop)))

    def _load(self, step: int) -> Callable[[], Batch]:
        """Make a batch ahead; the function that is returned does what is left."""
        start, stop = self._range(step)
        staged = self.rows.stage(*self._positions(start, stop), self.in_input)
        if self._uploads is None:
            batch = staged.finished()
            return lambda: batch
        return self._upload(staged, self._uploads)

    def _upload(self, staged: Staged, uploads: torch.cuda.Stream) -> Callable[[], Batch]:
        """Copy a batch to the GPU beside what it computes."""
        with torch.cuda.stream(uploads):
            on_device = moved(
                staged, lambda part: part.pin_memory().to(self.device, non_blocking=True)
            )
            copied = uploads.record_event()

        def finish() -> Batch:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)

            def used(part: Tensor) -> Tensor:
                part.record_stream(current)  # its memory is not free before the step is through
                return part

            return moved(on_device, used).finished()

        return finish

    def _positions(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.int64], Augmentation | None, NDArray[np.float64] | None]:
        """The rows at start ≤ position < stop of all orders in a row, and their augmentation."""
        count = len(self.rows)
        orders, drawn = [], []
        for epoch in range(start // count, (stop - 1) // count + 1):
            positions = np.arange(max(start - epoch * count, 0), min(stop - epoch * count, count))
            orders.append(self._order(epoch)[positions])
            if self.settings is not None:
                drawn.append(draw(self.seed, epoch, positions))
        numbers = np.concatenate(drawn) if drawn else None
        return np.concatenate(orders), self.settings, numbers

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._kept:
            order = epoch_order(self.seed, epoch, self.rows.labels, balanced=self.balanced)
            # The pass before is kept too: in steps, a batch may lie in both.
            self._kept = {key: self._kept[key] for key in self._kept if key == epoch - 1}
            self._kept[epoch] = order
        return self._kept[epoch]
