"""Images on which an export is checked: those of validation, or synthetic ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError

_BATCH = 16
# Synthetic images: cells of the smooth part along each side.
_COARSE = 8


@dataclass(frozen=True)
class CheckImages:
    """Images of a check, in the input format of a model.

    Args:
        read: Function from (B,) positions to (B, channels, side, side) uint8 images.
        positions: (n,) positions of the images.
        labels: (n,) index of the class of each image; None for synthetic images.
        sets: (n,) name of the validation set of each image; None for synthetic images.
    """

    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    sets: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self) -> Iterator[NDArray[np.uint8]]:
        """(B, channels, side, side) batches in order: one of a single image, then larger ones."""
        starts = [0, *range(1, len(self), _BATCH), len(self)]
        for start, stop in pairwise(starts):
            yield self.read(self.positions[start:stop])

    def sample(self, limit: int) -> CheckImages:
        """At most `limit` of the images, drawn at random from a fixed seed, in order."""
        if limit >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self))[:limit])
        return replace(
            self,
            positions=self.positions[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            sets=None if self.sets is None else self.sets[chosen],
        )


def validation_images(
    workspace: Workspace,
    form: ImageFormat,
    classes: Sequence[str],
    cache: Literal["memmap", "none"] = "none",
) -> CheckImages:
    """Images of all validation sets of a manifest.

    Raises:
        InputError: There are none, or a label is not among the classes.
    """
    which = workspace.split_rows("val")
    if not len(which):
        raise InputError(
            "the manifest has no validation images; assign some rows to the split val or val-NAME"
        )
    rows = workspace.rows(which, form, classes, cache=cache)

    def read(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = rows.batch(positions).images.numpy()
        return found

    sets = workspace.manifest.table["split"].to_numpy(object)[which]
    return CheckImages(read, np.arange(len(which)), np.asarray(rows.labels, np.int64), sets)


def synthetic_images(
    form: ImageFormat, count: int = 16, larger: tuple[int, int] = (0, 0)
) -> CheckImages:
    """Smooth random images with noise, from a fixed seed.

    Args:
        form: Input format.
        count: Number of images.
        larger: Pixels by which height and width exceed the size of the format.
    """
    height, width = (form.size + more for more in larger)
    generator = np.random.default_rng(0)
    coarse = generator.random((count, form.channels, _COARSE, _COARSE), np.float32)
    noise = generator.random((count, form.channels, height, width), np.float32)
    rows, columns = (np.arange(side) * _COARSE // side for side in (height, width))
    images = np.rint(255 * (0.8 * coarse[:, :, rows][..., columns] + 0.2 * noise)).astype(np.uint8)
    return CheckImages(lambda positions: images[positions], np.arange(count))
