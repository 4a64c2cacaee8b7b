"""Batch of a run, before and after the augmentation of its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from preceptor.data.augment import apply
from preceptor.data.prepared_changes import Prepared


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
