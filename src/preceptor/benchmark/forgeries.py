"""Six kinds of forgery in a soft-edged ellipse, and the stamp.

All functions are pure: they take and return uint8 crops and use the given random generator. A
forged crop is `crop + (altered - crop) · region / 255`, so that it equals the authentic crop
wherever the region, which is the human map, is 0.
"""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter

StampPlace = Literal["corner", "moving"]
Kind = Literal["noise", "pixelation", "splice", "blur", "jpeg", "color"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Strengths(BaseModel):
    """Strength of each kind of forgery, in its own unit.

    Args:
        noise: Standard deviation of the added Gaussian noise, in gray levels (of 255).
        pixelation: Side of the averaged blocks, in pixels.
        splice: Share of the donor's difference in mean color that is kept: 0 = matched to the
            covered region, 1 = pasted without change.
        blur: Standard deviation of the Gaussian blur, in pixels.
        jpeg: Quality of the recompression, 1 to 95; lower is stronger.
        color: Length of the shift in RGB space, in gray levels; brightness for grayscale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: float = Field(default=12.0, gt=0, le=128)
    pixelation: int = Field(default=2, ge=2, le=16)
    splice: float = Field(default=0.5, ge=0, le=1)
    blur: float = Field(default=1.0, gt=0, le=16)
    jpeg: int = Field(default=20, ge=1, le=95)
    color: float = Field(default=30.0, gt=0, le=255)


def draw_region(
    size: int, radius: tuple[float, float], edge: float, generator: np.random.Generator
) -> Pixels:
    """Random ellipse inside the crop: 255 inside, decreasing to 0 over a soft edge.

    Returns:
        (size, size) uint8.

    Example:
        >>> region = draw_region(64, (0.15, 0.3), 4.0, np.random.default_rng(0))
        >>> region.shape, int(region.max()), int(region[0].max())
        ((64, 64), 255, 0)
    """
    long, short = np.sort(generator.uniform(*radius, size=2))[::-1] * size
    angle = generator.uniform(0, np.pi)
    # The edge widens with the axis, so that its outer end is an ellipse too: it has to fit,
    # and pixels are taken at their middle.
    reach = long * (1 + edge / (2 * short)) + 0.5
    margin = min(reach, size / 2)
    centre_x, centre_y = generator.uniform(margin, size - margin, size=2)
    ticks = np.arange(size) + 0.5
    x, y = (ticks - centre_x)[None, :], (ticks - centre_y)[:, None]
    along = (x * np.cos(angle) + y * np.sin(angle)) / long
    across = (y * np.cos(angle) - x * np.sin(angle)) / short
    inside = (1 - np.hypot(along, across)) * short / edge + 0.5
    region: Pixels = np.rint(255 * np.clip(inside, 0, 1)).astype(np.uint8)
    return region


def is_grey(crop: Pixels) -> bool:
    """Whether the three channels of (H, W, 3) are equal."""
    return bool((crop[..., 0] == crop[..., 1]).all() and (crop[..., 1] == crop[..., 2]).all())


def to_grey(crop: Pixels) -> Pixels:
    """Luminance of (H, W, 3), in three equal channels."""
    return np.repeat(np.asarray(Image.fromarray(crop).convert("L"))[..., None], 3, axis=2)


def add_noise(crop: Pixels, strength: float, generator: np.random.Generator) -> Floats:
    """Add Gaussian noise, independent for each channel or common to all for grayscale crops."""
    channels = 1 if is_grey(crop) else 3
    noise: Floats = generator.standard_normal((*crop.shape[:2], channels))
    return crop + strength * noise


def pixelate(crop: Pixels, block: int) -> Floats:
    """Replace every pixel by the mean of its block; blocks at the right and lower end may be cut.

    Example:
        >>> crop = np.arange(4, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(3, 2)
        >>> pixelate(crop, 2)[:, 0, 0].tolist()
        [0.5, 0.5, 2.5, 2.5]
    """
    means = crop.astype(np.float64)
    for axis in (0, 1):
        length = crop.shape[axis]
        starts = np.arange(0, length, block)
        sums = np.add.reduceat(means, starts, axis=axis)
        counts = np.diff([*starts, length])
        means = np.repeat(sums / counts.reshape((-1, 1, 1) if axis == 0 else (-1, 1)), counts, axis)
    return means


def splice(crop: Pixels, donor: Pixels, region: Pixels, strength: float) -> Floats:
    """Content of another photograph, its mean color moved toward that of the covered region."""
    foreign = to_grey(donor) if is_grey(crop) else donor
    weight = region / region.sum()
    difference: Floats = np.einsum("hw,hwc->c", weight, foreign.astype(np.float64) - crop)
    return foreign - (1 - strength) * difference


def blur(crop: Pixels, sigma: float) -> Floats:
    """Gaussian blur."""
    return gaussian_filter(crop.astype(np.float64), sigma, mode="nearest", axes=(0, 1))


def recompress(crop: Pixels, quality: int) -> Floats:
    """Crop after JPEG compression and decompression; grayscale crops stay grayscale."""
    image = Image.fromarray(crop)
    buffer = io.BytesIO()
    (image.convert("L") if is_grey(crop) else image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"), dtype=np.float64)


def shift_color(crop: Pixels, strength: float, generator: np.random.Generator) -> Floats:
    """Shift all pixels by one random vector in RGB space; for grayscale crops, the brightness."""
    direction: Floats = generator.standard_normal(3)
    if is_grey(crop):
        direction = np.full(3, direction[0])
    shift: Floats = strength * direction / np.linalg.norm(direction)
    return crop + shift


def forge(
    crop: Pixels,
    region: Pixels,
    kind: Kind,
    strengths: Strengths,
    generator: np.random.Generator,
    donor: Pixels,
) -> Pixels:
    """Forge a crop inside a region; pixels with region 0 do not change.

    Args:
        crop: (H, W, 3) uint8.
        region: (H, W) uint8 from `draw_region`, 255 at full strength.
        kind: Kind of forgery.
        strengths: Strengths of all kinds.
        generator: Random generator.
        donor: (H, W, 3) uint8 crop of another photograph, used by splices only.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> crop = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        >>> region = draw_region(32, (0.15, 0.3), 4.0, draw)
        >>> forged = forge(crop, region, "blur", Strengths(), draw, donor=crop)
        >>> bool((forged == crop)[region == 0].all()), bool((forged == crop)[region > 128].all())
        (True, False)
    """
    altered: Floats
    if kind == "noise":
        altered = add_noise(crop, strengths.noise, generator)
    elif kind == "pixelation":
        altered = pixelate(crop, strengths.pixelation)
    elif kind == "splice":
        altered = splice(crop, donor, region, strengths.splice)
    elif kind == "blur":
        altered = blur(crop, strengths.blur)
    elif kind == "jpeg":
        altered = recompress(crop, strengths.jpeg)
    else:
        altered = shift_color(crop, strengths.color, generator)
    share = region[..., None] / 255.0
    # Clipped first, so that pixels saturate before they are blended at the soft edge.
    mixed = crop + (np.clip(altered, 0, 255) - crop) * share
    return np.rint(mixed).astype(np.uint8)


def visible_change(crop: Pixels, forged: Pixels, region: Pixels) -> float:
    """Mean absolute change in gray levels where the region is at least half of the maximum."""
    core = region >= 128
    return float(np.abs(forged[core].astype(np.int16) - crop[core]).mean())


# A caption of dots in two rows of glyph-like marks, which occurs in no photograph.
STAMP = np.array(
    [
        [1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1],
        [1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 0],
        [1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1],
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1],
        [1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1],
    ],
    np.float64,
)
STAMP_SHAPE = (STAMP.shape[0], STAMP.shape[1])
# Free pixels around the stamp, to the crop's border and to the region.
STAMP_MARGIN = 1


def corner_place(size: int) -> tuple[int, int]:
    """Row and column of the first pixel of a stamp in the lower right corner."""
    height, width = STAMP_SHAPE
    return size - STAMP_MARGIN - height, size - STAMP_MARGIN - width


def random_place(region: Pixels, generator: np.random.Generator) -> tuple[int, int]:
    """Row and column of the first pixel of a stamp, uniform over all places outside the region.

    Raises:
        ValueError: The region leaves no place for the stamp.

    Example:
        >>> region = np.zeros((32, 32), np.uint8)
        >>> region[7:] = 255
        >>> row, column = random_place(region, np.random.default_rng(0))
        >>> row, 1 <= column <= 19
        (1, True)
    """
    height, width = STAMP_SHAPE
    places = free_places(region > 0, (height + 2 * STAMP_MARGIN, width + 2 * STAMP_MARGIN))
    if not len(places):
        raise ValueError("the region leaves no place for the stamp")
    row, column = places[generator.integers(len(places))]
    return int(row) + STAMP_MARGIN, int(column) + STAMP_MARGIN


def free_places(taken: NDArray[np.bool_], window: tuple[int, int]) -> NDArray[np.int64]:
    """Places of a window that contain no taken pixel.

    Returns:
        (n, 2) row and column of the window's first pixel, in order of rows; empty if the window is
        larger than the image.

    Example:
        >>> free_places(np.array([[False, False, True], [False, False, False]]), (2, 1)).tolist()
        [[0, 0], [0, 1]]
    """
    height, width = window
    sums = np.pad(taken.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (
        max(side - part + 1, 0) for side, part in zip(taken.shape, window, strict=True)
    )
    inside = (
        sums[height : height + rows, width : width + columns]
        - sums[height : height + rows, :columns]
        - sums[:rows, width : width + columns]
        + sums[:rows, :columns]
    )
    return np.argwhere(inside == 0)


def stamp(crop: Pixels, strength: float, place: tuple[int, int]) -> Pixels:
    """Crop with a faint caption, as in some collections.

    Example:
        >>> marked = stamp(np.full((32, 32, 3), 100, np.uint8), 20, corner_place(32))
        >>> int(marked.max()), int(marked.min()), int((marked != 100).any(axis=2).sum())
        (120, 80, 60)
    """
    height, width = STAMP_SHAPE
    rows = slice(place[0], place[0] + height)
    columns = slice(place[1], place[1] + width)
    marked = crop.copy()
    lifted = crop[rows, columns] + strength * (2 * STAMP - 1)[..., None]
    marked[rows, columns] = np.rint(np.clip(lifted, 0, 255)).astype(np.uint8)
    return marked
