"""Rows of a run: their images, labels and map targets, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from preceptor.config.image_format import Fit
from preceptor.config.training import Augmentation
from preceptor.data import draws
from preceptor.data.batch import Batch, Staged
from preceptor.data.cache import ImageSource
from preceptor.data.geometry import fit_boxes
from preceptor.data.map_geometry import resample, turn_maps
from preceptor.data.outside import MASK_SIDE, Outside, masks_of, partners_of, prepare_outside
from preceptor.data.prepared_changes import prepare

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
        post: Post-processing of the (B, h, w) maps of `array` on the model's grid; None = none. It
            must commute with flips and quarter turns, which are applied afterwards.
        human_post: Post-processing of human maps.
        human_rows: (n,) manifest row whose human map guides each row; None = the row itself.
        masks: Treatment of the maps as masks; None = maps of any scale.
        unmatched: Number of rows without guidance because a store or folder lacks their maps.
    """

    weight: NDArray[np.float32]
    array: MapArray | None
    index: NDArray[np.int64]
    post: Callable[[Tensor], Tensor] | None = None
    human_post: Callable[[Tensor], Tensor] | None = None
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
            if masks is not None and targets.human_post is None:
                found /= 255  # stored from 0 to 255
            found = found if targets.human_post is None else targets.human_post(found)
            if masks is not None:
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
            found = found if targets.post is None else targets.post(found)
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
