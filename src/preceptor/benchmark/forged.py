"""The built-in benchmark: crops of photographs, half of them forged in one region.

`write_forged` makes a folder with a manifest that the rest of the library reads like any other.
The region is the human map; authentic crops have nothing to point at. A seed redraws everything:
which photographs are for training and which for tests, crops, regions, forgeries.

| split | photographs | kinds | stamp |
| --- | --- | --- | --- |
| train | training, one part of each | `kinds` | goes with the label |
| val | training, the other part of each | `kinds` | goes with the label |
| val-noshort | development | `kinds` | none |
| test-seen | test | `kinds` | none |
| test-unseen | test | `unseen_kinds` | none |

**Groups.** Train and val come from the same photographs, as a random split of one collection
would, yet no pixel is in both: each training photograph is cut in two along its longer side, and
crops stay within their part. `group` is the photograph's name, with `/a` (train) or `/b` (val) for
the parts, so that no group is in two kinds of split.

**Content tells nothing.** A crop is accepted only where its forgery would be visible, and only
then does its label decide whether the forged or the authentic pixels are written: both classes
have the same photographs, texture and brightness.
"""

from __future__ import annotations

import csv
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.benchmark.forgeries import (
    Kind,
    Pixels,
    Strengths,
    draw_region,
    forge,
    is_grey,
    stamp,
    visible_change,
)
from preceptor.benchmark.photographs import (
    PHOTOGRAPHS,
    Pool,
    draw_pools,
    photograph_checksums,
    read_photograph,
)
from preceptor.errors import InputError, RunFailedError

# Raised when the same settings and seed would give other pixels.
GENERATOR = 2

Split = Literal["train", "val", "val-noshort", "test-seen", "test-unseen"]
# The order is part of the random streams.
SPLITS: tuple[Split, ...] = ("train", "val", "val-noshort", "test-seen", "test-unseen")
COLUMNS = ("path", "label", "split", "saliency", "annotated", "source", "group")

# Share of a training photograph's longer side that is cut off for val.
_VAL_SHARE = 0.25
# Crops drawn for one row before the settings are refused; a fit takes 1 to 20 or so.
_MOST_DRAWS = 1000


class ForgedSettings(BaseModel):
    """Everything about the benchmark but its seed.

    Args:
        size: Side of the crops in pixels.
        train: Number of crops in train; half of them forged. Row i of a split does not depend on
            how many there are: a larger split begins with the smaller one.
        val: Number of crops in val.
        val_noshort: Number of crops in val-noshort.
        test_seen: Number of crops in test-seen.
        test_unseen: Number of crops in test-unseen.
        kinds: Kinds of forgery in all splits but test-unseen, equally often.
        unseen_kinds: Kinds in test-unseen.
        strengths: How strong each kind is.
        radius: Smallest and largest semi-axis of the region, in units of `size`.
        edge: Width of the region's soft edge in pixels.
        least_change: Mean absolute change in grey levels that a forgery makes in its region; crops
            where it would be less (blur on a clear sky) are not used, in either class.
        stamp_rate: How often the corner stamp goes with the label in train and val: it is on this
            share of the forged crops and on one minus this share of the authentic ones. 0.5 is a
            stamp that tells nothing.
        stamp_strength: Contrast of the stamp in grey levels; 0 for none.

    Raises:
        pydantic.ValidationError: A value is out of range, or a kind is seen and unseen.

    Example:
        >>> ForgedSettings(train=500).model_copy(update={"stamp_strength": 0.0}).train
        500
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Two parts of the narrowest photograph (384 px) must each hold a crop, and leave it some room.
    size: int = Field(default=64, ge=32, le=128)
    train: int = Field(default=1000, ge=4)
    val: int = Field(default=200, ge=4)
    val_noshort: int = Field(default=200, ge=4)
    test_seen: int = Field(default=300, ge=4)
    test_unseen: int = Field(default=300, ge=4)
    kinds: tuple[Kind, ...] = Field(default=("noise", "pixelation", "splice"), min_length=1)
    unseen_kinds: tuple[Kind, ...] = Field(default=("blur", "jpeg", "colour"), min_length=1)
    strengths: Strengths = Strengths()
    radius: tuple[float, float] = (0.15, 0.3)
    edge: float = Field(default=4.0, gt=0, le=16)
    least_change: float = Field(default=2.0, ge=0, le=64)
    stamp_rate: float = Field(default=0.95, ge=0.5, le=1)
    stamp_strength: float = Field(default=16.0, ge=0, le=128)

    @model_validator(mode="after")
    def _check(self) -> Self:
        every = self.kinds + self.unseen_kinds
        twice = sorted({kind for kind in every if every.count(kind) > 1})
        if twice:
            raise ValueError(f"kinds named twice: {', '.join(twice)}; a kind is seen or unseen")
        smallest, largest = self.radius
        if not 0.05 <= smallest <= largest <= 0.4:
            raise ValueError(f"radius {self.radius}: needs 0.05 <= smallest <= largest <= 0.4")
        if self.edge > 2 * smallest * self.size:
            raise ValueError(
                f"edge {self.edge}: no forgery would be full anywhere; "
                f"needs at most twice the smallest semi-axis, {2 * smallest * self.size:g} pixels"
            )
        return self

    def count(self, split: Split) -> int:
        """Number of crops in a split."""
        return int(getattr(self, split.replace("-", "_")))


_STRONG = Strengths(noise=40, pixelation=8, splice=1.0, blur=4, jpeg=3, colour=100)

PRESETS: dict[str, ForgedSettings] = {
    # For tests: enough of everything, in a fraction of a second.
    "tiny": ForgedSettings(size=32, train=48, val=24, val_noshort=24, test_seen=24, test_unseen=24),
    # For `preceptor demo`: as below, and smaller all round.
    "demo": ForgedSettings(
        size=48, train=800, val=60, val_noshort=120, test_seen=300, test_unseen=300,
        strengths=_STRONG, radius=(0.25, 0.4), stamp_rate=1.0, stamp_strength=32,
    ),
    # For what is said of the method. Chosen on draws 100 and up by the baselines and the ceiling
    # alone, see benchmarks/RESULTS.md; no Student was looked at.
    "full": ForgedSettings(
        size=48, train=1500, val=100, val_noshort=200, test_seen=600, test_unseen=600,
        strengths=_STRONG, radius=(0.25, 0.4), stamp_rate=1.0, stamp_strength=32,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Area:
    """A part of a photograph that the crops of a split may be cut from.

    Args:
        group: The manifest's group: the photograph, and which part of it.
        pixels: (H, W, 3) uint8.
        grey: Whether the photograph is grey.
    """

    group: str
    pixels: Pixels
    grey: bool


def _halve(name: str, pixels: Pixels, size: int, val_first: bool) -> tuple[Area, Area]:
    """Cut a training photograph along its longer side into its train part and its val part."""
    grey = is_grey(pixels)
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    length = pixels.shape[axis]
    # One and a half crops at least, or all val crops of a photograph would nearly be one.
    cut = max(round(_VAL_SHARE * length), min(size * 3 // 2, length // 2))
    if val_first:
        val, train = np.split(pixels, [cut], axis=axis)
    else:
        train, val = np.split(pixels, [length - cut], axis=axis)
    return Area(f"{name}/a", train, grey), Area(f"{name}/b", val, grey)


def draw_areas(size: int, seed: int) -> dict[Split, list[Area]]:
    """Which parts of which photographs each split is cut from, under this seed."""
    generator = np.random.default_rng([seed, len(SPLITS), 0])
    pools = draw_pools(generator)
    pixels = {photograph.name: read_photograph(photograph) for photograph in PHOTOGRAPHS}
    halves = [
        _halve(photograph.name, pixels[photograph.name], size, bool(generator.integers(2)))
        for photograph in pools["training"]
    ]

    def whole(pool: Pool) -> list[Area]:
        return [
            Area(photograph.name, pixels[photograph.name], is_grey(pixels[photograph.name]))
            for photograph in pools[pool]
        ]

    return {
        "train": [train for train, _ in halves],
        "val": [val for _, val in halves],
        "val-noshort": whole("development"),
        "test-seen": whole("test"),
        "test-unseen": whole("test"),
    }


def _cut(area: Area, size: int, generator: np.random.Generator) -> Pixels:
    top = int(generator.integers(area.pixels.shape[0] - size + 1))
    left = int(generator.integers(area.pixels.shape[1] - size + 1))
    return area.pixels[top : top + size, left : left + size]


@dataclass(frozen=True)
class Example:
    """One crop both ways: as it is and as it would be forged.

    Args:
        group: As in `Area`.
        authentic: (size, size, 3) uint8, without stamp.
        forged: (size, size, 3) uint8, without stamp; equal to `authentic` where region is 0.
        region: (size, size) uint8, the human map.
    """

    group: str
    authentic: Pixels
    forged: Pixels
    region: Pixels


def draw_example(
    areas: list[Area], kind: Kind, settings: ForgedSettings, generator: np.random.Generator
) -> Example:
    """Draw photograph, crop, region and forgery until the forgery is visible.

    Args:
        areas: Where crops and the donors of splices come from, each area equally often.
        kind: The forgery.
        settings: Sizes and strengths.
        generator: The draw.

    Raises:
        InputError: No visible forgery was found: the strength is too low for `least_change`.
    """
    for _ in range(_MOST_DRAWS):
        area = areas[int(generator.integers(len(areas)))]
        crop = _cut(area, settings.size, generator)
        region = draw_region(settings.size, settings.radius, settings.edge, generator)
        # A grey patch in a colour photograph would give itself away.
        donors = [other for other in areas if other is not area and (area.grey or not other.grey)]
        donor = donors[int(generator.integers(len(donors)))]
        forged = forge(
            crop,
            region,
            kind,
            settings.strengths,
            generator,
            donor=_cut(donor, settings.size, generator),
        )
        if visible_change(crop, forged, region) >= settings.least_change:
            return Example(area.group, crop, forged, region)
    raise InputError(
        f"strengths.{kind} = {getattr(settings.strengths, kind)}: no forgery in {_MOST_DRAWS:,} "
        f"changed its region by least_change = {settings.least_change} grey levels; "
        "make it stronger or least_change smaller"
    )


def _save(pixels: Pixels, path: Path) -> None:
    # Level 1: crops of photographs hardly compress, and higher levels take several times as long.
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_split(
    folder: Path, split: Split, areas: list[Area], settings: ForgedSettings, seed: int
) -> list[tuple[str | int, ...]]:
    """Write a split's images and maps under `folder`; its manifest rows."""
    kinds = settings.unseen_kinds if split == "test-unseen" else settings.kinds
    stamped = split in ("train", "val") and settings.stamp_strength > 0
    for name in ("images", "maps"):
        (folder / name / split).mkdir(parents=True)
    rows: list[tuple[str | int, ...]] = []
    for i in range(settings.count(split)):
        # A stream of its own for every row: the rows before it may change in number.
        generator = np.random.default_rng([seed, SPLITS.index(split), i])
        forged, kind = i % 2 == 1, kinds[i // 2 % len(kinds)]
        example = draw_example(areas, kind, settings, generator)
        image = example.forged if forged else example.authentic
        rate = settings.stamp_rate if forged else 1 - settings.stamp_rate
        if stamped and generator.random() < rate:
            image = stamp(image, settings.stamp_strength)
        path, saliency = f"images/{split}/{i:06d}.png", ""
        _save(image, folder / path)
        if forged:
            saliency = f"maps/{split}/{i:06d}.png"
            _save(example.region, folder / saliency)
        label, source = ("forged", kind) if forged else ("authentic", "authentic")
        rows.append((path, label, split, saliency, 1, source, example.group))
    return rows


def _write_all(folder: Path, settings: ForgedSettings, seed: int) -> None:
    areas = draw_areas(settings.size, seed)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in SPLITS:
            writer.writerows(_write_split(folder, split, areas[split], settings, seed))


def _is_there(folder: Path, record: dict[str, object]) -> bool:
    """Whether `folder` holds exactly what `record` describes; refuses one that holds other things.

    Raises:
        InputError: The folder is a file, or has other contents.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the forged photographs")
    try:
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{folder}: is not empty and holds no forged photographs; give another folder"
        ) from None
    if found != record or not (folder / "manifest.csv").is_file():
        raise InputError(
            f"{folder}: holds forged photographs of other settings, seed or version; "
            "give another folder or remove this one"
        )
    return True


def write_forged(folder: Path, settings: ForgedSettings, seed: int) -> Path:
    """Write the benchmark: images, human maps, manifest; or find it already written.

    The same settings and seed give the same bytes. The folder appears whole or not at all: it is
    filled under another name beside it and renamed, `settings.json` last.

    Args:
        folder: Where to; it does not exist, is empty, or holds the same benchmark.
        settings: `PRESETS["demo"]`, `PRESETS["tiny"]` or your own.
        seed: 0 or more; redraws photographs, crops, regions and forgeries.

    Returns:
        The path of `manifest.csv`.

    Raises:
        InputError: scikit-image is not installed, the folder holds something else, or the settings
            leave no visible forgery.
        RunFailedError: The disk is full or cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     manifest = write_forged(Path(parent) / "forged", PRESETS["tiny"], seed=0)
        ...     print(manifest.read_text().splitlines()[0])
        path,label,split,saliency,annotated,source,group
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    record: dict[str, object] = {
        "generator": GENERATOR,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "photographs": photograph_checksums(),
    }
    target = folder.resolve()
    if _is_there(target, record):
        return folder / "manifest.csv"
    partial = target.parent / f".{target.name}-{uuid.uuid4().hex}.partial"
    try:
        partial.mkdir(parents=True)
        _write_all(partial, settings, seed)
        (partial / "settings.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        try:
            if target.exists():
                target.rmdir()  # empty, as checked; not every system renames over a folder
            partial.rename(target)
        except OSError:
            # Another process may have written the same benchmark meanwhile.
            if not _is_there(target, record):
                raise
    except OSError as error:
        raise RunFailedError(
            f"{folder}: the forged photographs cannot be written: {error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / "manifest.csv"


def write_draws(folder: Path, settings: ForgedSettings, seeds: Sequence[int]) -> Path:
    """Write a draw of the benchmark for each seed, as `folder/SEED/`.

    Args:
        folder: Where to; draws that are there already are kept.
        settings: Of every draw.
        seeds: 0 or more each.

    Returns:
        What a study takes as `manifest`: `folder/{seed}/manifest.csv`.

    Raises:
        InputError, RunFailedError: See `write_forged`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the draws")
    for seed in seeds:
        write_forged(folder / str(seed), settings, seed)
    return folder / "{seed}" / "manifest.csv"
