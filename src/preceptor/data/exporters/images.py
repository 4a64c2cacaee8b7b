"""Images with the map that is exported, and the options of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preceptor.data.outlines import joined, outline

Form = Literal["polygons", "masks"]
_EIGHT = np.ones((3, 3), np.int64)


@dataclass(frozen=True)
class ExportOptions:
    """How maps become shapes.

    Args:
        form: Polygons or masks.
        threshold: Value from 0 to 1 from which on a pixel is inside; None = 0.5, and maps in gray
            levels in the format `masks`.
        tolerance: Largest distance in pixels by which points of polygons may be left out; 0 = the
            polygons give the masks again, exactly.
        predictions: Whether the shapes are those of a model, to be corrected.
        model: Name of the model.
        image_prefix: Text before the name of an image where a tool needs an address.
    """

    form: Form = "polygons"
    threshold: float | None = None
    tolerance: float = 0.0
    predictions: bool = False
    model: str = ""
    image_prefix: str = "/data/local-files/?d="


@dataclass(frozen=True, eq=False)
class ExportedImage:
    """One image with its map.

    Args:
        name: Name as in the manifest.
        path: Image file or location.
        size: Width and height of the upright image in pixels.
        label: Class of the image.
        split, source, group: As in the manifest.
        pixels: float32 of shape (height, width) from 0 to 1; None = nothing is marked.
        score: Score of a model, or None.
        marked: Class of the shapes; "" = that of the image.
    """

    name: str
    path: Path | str
    size: tuple[int, int]
    label: str
    split: str = ""
    source: str = ""
    group: str = ""
    pixels: NDArray[np.float32] | None = None
    score: float | None = None
    marked: str = ""

    @property
    def shape_label(self) -> str:
        """Class of the shapes."""
        return self.marked or self.label


@dataclass(frozen=True, eq=False)
class Region:
    """Connected region of an image.

    Args:
        ring: (n, 2) x and y in pixels of the image; holes are joined to it by cuts without width.
        x, y: Column and row of the first pixel of `mask`.
        mask: bool of shape (height, width), the smallest rectangle around it.
    """

    ring: NDArray[np.float64]
    x: int
    y: int
    mask: NDArray[np.bool_]


Writer = Callable[[Iterable[ExportedImage], Path, ExportOptions], None]
"""Function of images, the folder that is written, and options."""


def mask_of(image: ExportedImage, options: ExportOptions) -> NDArray[np.bool_]:
    """Mask of an image at the threshold."""
    if image.pixels is None:
        return np.zeros(image.size[::-1], bool)
    return image.pixels >= (0.5 if options.threshold is None else options.threshold)


def regions_of(image: ExportedImage, options: ExportOptions) -> list[Region]:
    """Connected regions of the mask of an image, from top to bottom.

    Example:
        >>> pixels = np.zeros((3, 4), np.float32)
        >>> pixels[1:, 2:] = 1
        >>> image = ExportedImage("a.png", Path("a.png"), (4, 3), "crack", pixels=pixels)
        >>> regions_of(image, ExportOptions())[0].ring.tolist()
        [[2.0, 1.0], [4.0, 1.0], [4.0, 3.0], [2.0, 3.0]]
    """
    labels, _ = ndimage.label(mask_of(image, options), structure=_EIGHT)
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        mask = labels[place] == number
        x, y = place[1].start, place[0].start
        rings = outline(mask, options.tolerance)
        if rings:
            found.append(Region(joined(rings[0]) + np.array([x, y]), x, y, mask))
    return found
