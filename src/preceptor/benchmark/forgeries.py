"""Six kinds of forgery in a soft-edged ellipse, the stamp, and the settings of the benchmark.

A forged crop is `crop + (altered - crop) · region / 255`: it equals the authentic crop wherever the
region, which is the human map, is 0. Crops are (H, W, 3) uint8, regions (H, W) uint8.
"""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from scipy.ndimage import gaussian_filter

StampPlace = Literal["corner", "moving"]
Kind = Literal["noise", "pixelation", "splice", "blur", "jpeg", "color"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Split = Literal["train", "val", "val-noshort", "test-seen", "test-unseen"]
# The order is part of the random streams.
SPLITS: tuple[Split, ...] = get_args(Split)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Strengths(BaseModel):
    """Strength of each kind of forgery, in its own unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: float = 12.0  # standard deviation in gray levels
    pixelation: int = 2  # side of the averaged blocks in pixels
    # Share of the donor's difference in mean color that is kept: 0 = matched to the region.
    splice: float = 0.5
    blur: float = 1.0  # standard deviation in pixels
    jpeg: int = 20  # quality; lower is stronger
    color: float = 30.0  # shift in RGB space, or of the brightness


def draw_region(
    size: int, radius: tuple[float, float], edge: float, generator: np.random.Generator
) -> Pixels:
    """Random ellipse inside a (size, size) crop: 255 inside, decreasing to 0 over a soft edge."""
    long, short = np.sort(generator.uniform(*radius, size=2))[::-1] * size
    angle = generator.uniform(0, np.pi)
    # The edge widens with the axis, so that its outer end is an ellipse too: it has to fit,
    # and pixels are taken at their middle.
    reach = long * (1 + edge / (2 * short)) + 0.5
    margin = min(reach, size / 2)
    center_x, center_y = generator.uniform(margin, size - margin, size=2)
    ticks = np.arange(size) + 0.5
    x, y = (ticks - center_x)[None, :], (ticks - center_y)[:, None]
    along = (x * np.cos(angle) + y * np.sin(angle)) / long
    across = (y * np.cos(angle) - x * np.sin(angle)) / short
    inside = (1 - np.hypot(along, across)) * short / edge + 0.5
    region: Pixels = np.rint(255 * np.clip(inside, 0, 1)).astype(np.uint8)
    return region


def is_gray(crop: Pixels) -> bool:
    """Whether the three channels are equal."""
    return bool((crop == crop[..., :1]).all())


def add_noise(crop: Pixels, strength: float, generator: np.random.Generator) -> Floats:
    """Add Gaussian noise, independent for each channel or common to all for gray crops."""
    channels = 1 if is_gray(crop) else 3
    noise: Floats = generator.standard_normal((*crop.shape[:2], channels))
    return crop + strength * noise


def pixelate(crop: Pixels, block: int) -> Floats:
    """Replace every pixel by the mean of its block; blocks at the right and lower end are cut."""
    means = crop.astype(np.float64)
    for axis in (0, 1):
        length = crop.shape[axis]
        starts = np.arange(0, length, block)
        sums = np.add.reduceat(means, starts, axis=axis)
        counts = np.diff([*starts, length])
        means = np.repeat(sums / counts.reshape((-1, 1, 1) if axis == 0 else (-1, 1)), counts, axis)
    return means


def splice(crop: Pixels, donor: Pixels, region: Pixels, strength: float) -> Floats:
    """Content of another photograph, its mean color moved toward the covered region."""
    foreign = donor
    if is_gray(crop):
        foreign = np.asarray(Image.fromarray(donor).convert("L").convert("RGB"))
    weight = region / region.sum()
    difference: Floats = np.einsum("hw,hwc->c", weight, foreign.astype(np.float64) - crop)
    return foreign - (1 - strength) * difference


def recompress(crop: Pixels, quality: int) -> Floats:
    """Crop after JPEG compression and decompression; gray crops stay gray."""
    image = Image.fromarray(crop)
    buffer = io.BytesIO()
    (image.convert("L") if is_gray(crop) else image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"), dtype=np.float64)


def shift_color(crop: Pixels, strength: float, generator: np.random.Generator) -> Floats:
    """Shift all pixels by one random vector in RGB space; for gray crops, the brightness."""
    direction: Floats = generator.standard_normal(3)
    if is_gray(crop):
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
    """Forge a crop inside a region; splices paste the donor, a crop of another photograph."""
    altered: Floats
    if kind == "noise":
        altered = add_noise(crop, strengths.noise, generator)
    elif kind == "pixelation":
        altered = pixelate(crop, strengths.pixelation)
    elif kind == "splice":
        altered = splice(crop, donor, region, strengths.splice)
    elif kind == "blur":
        sigma = strengths.blur
        altered = gaussian_filter(crop.astype(np.float64), sigma, mode="nearest", axes=(0, 1))
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
    """Row and column of the first pixel of a stamp, uniform over all places outside the region."""
    height, width = STAMP_SHAPE
    places = free_places(region > 0, (height + 2 * STAMP_MARGIN, width + 2 * STAMP_MARGIN))
    if not len(places):
        raise ValueError("the region leaves no place for the stamp")
    row, column = places[generator.integers(len(places))]
    return int(row) + STAMP_MARGIN, int(column) + STAMP_MARGIN


def free_places(taken: NDArray[np.bool_], window: tuple[int, int]) -> NDArray[np.int64]:
    """(n, 2) rows and columns of the first pixel of windows that contain no taken pixel."""
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


def stamp(crop: Pixels, strength: float, corner: tuple[int, int]) -> Pixels:
    """Crop with a faint caption, as in some collections."""
    height, width = STAMP_SHAPE
    rows = slice(corner[0], corner[0] + height)
    columns = slice(corner[1], corner[1] + width)
    marked = crop.copy()
    lifted = crop[rows, columns] + strength * (2 * STAMP - 1)[..., None]
    marked[rows, columns] = np.rint(np.clip(lifted, 0, 255)).astype(np.uint8)
    return marked


class ForgedSettings(BaseModel):
    """Settings of the benchmark, except for the seed.

    Row i of a split does not depend on the number of rows: a larger split begins with the smaller
    one. Half of the crops of a split are forged, by each of its kinds equally often.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Each part of the narrowest photograph (384 px) must be larger than a crop.
    size: int = 64
    train: int = 1000
    val: int = 200
    val_noshort: int = 200
    test_seen: int = 300
    test_unseen: int = 300
    # Of all splits but test-unseen.
    kinds: tuple[Kind, ...] = ("noise", "pixelation", "splice")
    unseen_kinds: tuple[Kind, ...] = ("blur", "jpeg", "color")
    strengths: Strengths = Strengths()
    radius: tuple[float, float] = (0.15, 0.3)  # semi-axes of the region, in units of `size`
    edge: float = 4.0  # width of its soft edge in pixels
    # Smallest mean absolute change in the region in gray levels; crops with a smaller one (blur on
    # a clear sky) are used in neither class.
    least_change: float = 2.0
    # Share of the forged crops of train and val with the stamp; the share of authentic ones is one
    # minus this, so that it is uninformative with 0.5.
    stamp_rate: float = 0.95
    stamp_strength: float = 16.0  # contrast in gray levels
    # In the lower right corner, or uniform over all places outside the region; in authentic crops,
    # outside the region that a forgery would have had.
    stamp_place: StampPlace = "corner"

    def count(self, split: Split) -> int:
        """Number of crops in a split."""
        return int(getattr(self, split.replace("-", "_")))


_STRONG = Strengths(noise=40, pixelation=8, splice=1.0, blur=4, jpeg=3, color=100)
# Large regions and a stamp that always goes with the label.
_FULL = ForgedSettings(
    size=48,
    train=1500,
    val=100,
    val_noshort=200,
    test_seen=600,
    test_unseen=600,
    strengths=_STRONG,
    radius=(0.25, 0.4),
    stamp_rate=1.0,
    stamp_strength=32,
)

PRESETS: dict[str, ForgedSettings] = {
    # For tests: all splits and kinds, written in a fraction of a second.
    "tiny": ForgedSettings(size=32, train=48, val=24, val_noshort=24, test_seen=24, test_unseen=24),
    # For studies of minutes. Small regions and a moving stamp: only maps at the right place help.
    # Chosen on draws 100 and above; see benchmarks/RESULTS.md.
    "demo": _FULL.model_copy(
        update={"val": 60, "val_noshort": 120, "test_unseen": 300}
        | {"radius": (0.14, 0.22), "edge": 3.0, "stamp_place": "moving"}
    ),
    # Few annotations, many images, small regions: the stamp moves, or with stamp_place corner is
    # always at the same place. Chosen as `full` was.
    "spots": _FULL.model_copy(
        update={"size": 64, "train": 6000, "test_seen": 1000, "test_unseen": 1000}
        | {"radius": (0.12, 0.2), "stamp_place": "moving"}
    ),
    # For reported results. Chosen on draws 100 and above from the baselines and the ceiling only,
    # without any Student; see benchmarks/RESULTS.md.
    "full": _FULL,
}
