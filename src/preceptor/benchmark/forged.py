"""Built-in benchmark: crops of photographs, half of them forged in one region.

`write_forged` writes a folder with images, maps and a manifest. The forged region is the human map;
authentic crops have no map. The seed determines the assignment of photographs to training and test,
the crops, regions and forgeries.

| split | photographs | kinds | stamp |
| --- | --- | --- | --- |
| train | training, one part of each | `kinds` | goes with the label |
| val | training, the other part of each | `kinds` | goes with the label |
| val-noshort | development | `kinds` | none |
| test-seen | test | `kinds` | none |
| test-unseen | test | `unseen_kinds` | none |

**Groups.** Train and val are from the same photographs, as in a random split of one collection, but
share no pixels: each training photograph is cut in two along its longer side, and crops stay within
one part. `group` is the name of the photograph, with `/a` (train) or `/b` (val) for the parts, so
that no group is in two kinds of split.

**Independence of content and label.** A crop is accepted only if its forgery would be visible; its
label then determines whether the forged or the authentic pixels are written. Therefore both classes
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
    STAMP_MARGIN,
    STAMP_SHAPE,
    Kind,
    Pixels,
    StampPlace,
    Strengths,
    corner_place,
    draw_region,
    forge,
    is_grey,
    random_place,
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

# Increased if the same settings and seed give other pixels than before.
GENERATOR = 2

Split = Literal["train", "val", "val-noshort", "test-seen", "test-unseen"]
# The order is part of the random streams.
SPLITS: tuple[Split, ...] = ("train", "val", "val-noshort", "test-seen", "test-unseen")
COLUMNS = ("path", "label", "split", "saliency", "annotated", "source", "group")

# Share of a training photograph's longer side that belongs to val.
_VAL_SHARE = 0.25
# Crops drawn for one row before the settings are rejected; usually 1 to 20 are needed.
_MOST_DRAWS = 1000


class ForgedSettings(BaseModel):
    """Settings of the benchmark, except for the seed.

    Args:
        size: Side of the crops in pixels.
        train: Number of crops in train, half of them forged. Row i of a split does not depend on
            the number of rows: a larger split begins with the smaller one.
        val: Number of crops in val.
        val_noshort: Number of crops in val-noshort.
        test_seen: Number of crops in test-seen.
        test_unseen: Number of crops in test-unseen.
        kinds: Kinds of forgery in all splits except test-unseen, equally often.
        unseen_kinds: Kinds of forgery in test-unseen.
        strengths: Strength of each kind.
        radius: Smallest and largest semi-axis of the region, in units of `size`.
        edge: Width of the region's soft edge in pixels.
        least_change: Smallest mean absolute change of a forgery in its region, in gray levels;
            crops with a smaller change (blur on a clear sky) are not used in either class.
        stamp_rate: Share of the forged crops in train and val with the stamp; the share of the
            authentic ones is one minus this. With 0.5 the stamp is uninformative.
        stamp_strength: Contrast of the stamp in gray levels; 0 = no stamp.
        stamp_place: corner (lower right) or moving (uniform over all places outside the region; in
            authentic crops, outside the region that a forgery would have had).

    Raises:
        pydantic.ValidationError: A value is out of range, or a kind is in both lists.

    Example:
        >>> ForgedSettings(train=500).model_copy(update={"stamp_strength": 0.0}).train
        500
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Each part of the narrowest photograph (384 px) must be larger than a crop.
    size: int = Field(default=64, ge=32, le=128)
    train: int = Field(default=1000, ge=4)
    val: int = Field(default=200, ge=4)
    val_noshort: int = Field(default=200, ge=4)
    test_seen: int = Field(default=300, ge=4)
    test_unseen: int = Field(default=300, ge=4)
    kinds: tuple[Kind, ...] = Field(default=("noise", "pixelation", "splice"), min_length=1)
    unseen_kinds: tuple[Kind, ...] = Field(default=("blur", "jpeg", "color"), min_length=1)
    strengths: Strengths = Strengths()
    radius: tuple[float, float] = (0.15, 0.3)
    edge: float = Field(default=4.0, gt=0, le=16)
    least_change: float = Field(default=2.0, ge=0, le=64)
    stamp_rate: float = Field(default=0.95, ge=0.5, le=1)
    stamp_strength: float = Field(default=16.0, ge=0, le=128)
    stamp_place: StampPlace = "corner"

    @model_validator(mode="after")
    def _check(self) -> Self:
        every = self.kinds + self.unseen_kinds
        twice = sorted({kind for kind in every if every.count(kind) > 1})
        if twice:
            raise ValueError(
                f"kinds both seen and unseen: {', '.join(twice)}; remove them from one"
            )
        smallest, largest = self.radius
        if not 0.05 <= smallest <= largest <= 0.4:
            raise ValueError(f"radius {self.radius}: needs 0.05 <= smallest <= largest <= 0.4")
        if self.edge > 2 * smallest * self.size:
            raise ValueError(
                f"edge {self.edge}: no forgery would reach its full strength; "
                f"write at most twice the smallest semi-axis, {2 * smallest * self.size:g} pixels"
            )
        # Above or below the largest region there must be room for the stamp and its margins.
        reach = largest * (self.size + self.edge / (2 * smallest)) + 0.5
        room = self.size / 2 - STAMP_SHAPE[0] - 2 * STAMP_MARGIN
        if self.stamp_place == "moving" and reach > room:
            raise ValueError(
                f"stamp_place moving: regions that extend {reach:.1f} pixels from their center "
                f"leave no place for the stamp; at most {room:g} pixels are possible: lower radius "
                "or edge, or increase size"
            )
        return self

    def count(self, split: Split) -> int:
        """Number of crops in a split."""
        return int(getattr(self, split.replace("-", "_")))


_STRONG = Strengths(noise=40, pixelation=8, splice=1.0, blur=4, jpeg=3, color=100)

PRESETS: dict[str, ForgedSettings] = {
    # For tests: all splits and kinds, written in a fraction of a second.
    "tiny": ForgedSettings(size=32, train=48, val=24, val_noshort=24, test_seen=24, test_unseen=24),
    # For small studies: fewer crops of the kind of `full`.
    "small": ForgedSettings(
        size=48,
        train=800,
        val=60,
        val_noshort=120,
        test_seen=300,
        test_unseen=300,
        strengths=_STRONG,
        radius=(0.25, 0.4),
        stamp_rate=1.0,
        stamp_strength=32,
    ),
    # For `preceptor demo`. Small regions and a moving stamp: only maps at the right place help.
    # Chosen on draws 100 and above; see benchmarks/RESULTS.md.
    "demo": ForgedSettings(
        size=48,
        train=1500,
        val=60,
        val_noshort=120,
        test_seen=600,
        test_unseen=300,
        strengths=_STRONG,
        radius=(0.14, 0.22),
        edge=3.0,
        stamp_rate=1.0,
        stamp_strength=32,
        stamp_place="moving",
    ),
    # Few annotations, many images, small regions: the stamp moves, or with stamp_place corner is
    # always at the same place. Chosen on draws 100 and above from the baselines and the ceiling
    # only; see benchmarks/RESULTS.md.
    "spots": ForgedSettings(
        size=64,
        train=6000,
        val=100,
        val_noshort=200,
        test_seen=1000,
        test_unseen=1000,
        strengths=_STRONG,
        radius=(0.12, 0.2),
        stamp_rate=1.0,
        stamp_strength=32,
        stamp_place="moving",
    ),
    # For reported results. Chosen on draws 100 and above from the baselines and the ceiling only,
    # without any Student; see benchmarks/RESULTS.md.
    "full": ForgedSettings(
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
    ),
}


@dataclass(frozen=True)
class Area:
    """Part of a photograph from which the crops of a split are cut.

    Args:
        group: Group in the manifest: name of the photograph, and its part.
        pixels: (H, W, 3) uint8.
        grey: Whether the photograph is grayscale.
    """

    group: str
    pixels: Pixels
    grey: bool


def _halve(name: str, pixels: Pixels, size: int, val_first: bool) -> tuple[Area, Area]:
    """Divide a training photograph along its longer side into a train part and a val part."""
    grey = is_grey(pixels)
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    length = pixels.shape[axis]
    # At least one and a half crops, otherwise all val crops of a photograph would be nearly equal.
    cut = max(round(_VAL_SHARE * length), min(size * 3 // 2, length // 2))
    if val_first:
        val, train = np.split(pixels, [cut], axis=axis)
    else:
        train, val = np.split(pixels, [length - cut], axis=axis)
    return Area(f"{name}/a", train, grey), Area(f"{name}/b", val, grey)


def draw_areas(size: int, seed: int) -> dict[Split, list[Area]]:
    """Areas of each split for a seed."""
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
    """Crop with its forged version.

    Args:
        group: Group in the manifest.
        authentic: (size, size, 3) uint8, without stamp.
        forged: (size, size, 3) uint8, without stamp; equal to `authentic` where region is 0.
        region: (size, size) uint8 human map.
    """

    group: str
    authentic: Pixels
    forged: Pixels
    region: Pixels


def draw_example(
    areas: list[Area], kind: Kind, settings: ForgedSettings, generator: np.random.Generator
) -> Example:
    """Draw photograph, crop, region and forgery at random until the forgery is visible.

    Args:
        areas: Areas from which crops and donors of splices are drawn, with equal probability.
        kind: Kind of forgery.
        settings: Sizes and strengths.
        generator: Random generator.

    Raises:
        InputError: No visible forgery was found: the strength is too low for `least_change`.
    """
    for _ in range(_MOST_DRAWS):
        area = areas[int(generator.integers(len(areas)))]
        crop = _cut(area, settings.size, generator)
        region = draw_region(settings.size, settings.radius, settings.edge, generator)
        # A gray patch in a color photograph would be conspicuous.
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
        "increase the strength or lower least_change"
    )


def _save(pixels: Pixels, path: Path) -> None:
    # Level 1: crops of photographs hardly compress, and higher levels take several times as long.
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_split(
    folder: Path, split: Split, areas: list[Area], settings: ForgedSettings, seed: int
) -> list[tuple[str | int, ...]]:
    """Write the images and maps of a split under `folder`; returns its manifest rows."""
    kinds = settings.unseen_kinds if split == "test-unseen" else settings.kinds
    stamped = split in ("train", "val") and settings.stamp_strength > 0
    for name in ("images", "maps"):
        (folder / name / split).mkdir(parents=True)
    rows: list[tuple[str | int, ...]] = []
    for i in range(settings.count(split)):
        # A separate random stream for every row, independent of the number of rows before it.
        generator = np.random.default_rng([seed, SPLITS.index(split), i])
        forged, kind = i % 2 == 1, kinds[i // 2 % len(kinds)]
        example = draw_example(areas, kind, settings, generator)
        image = example.forged if forged else example.authentic
        rate = settings.stamp_rate if forged else 1 - settings.stamp_rate
        if stamped and generator.random() < rate:
            if settings.stamp_place == "corner":
                place = corner_place(settings.size)
            else:
                place = random_place(example.region, generator)
            image = stamp(image, settings.stamp_strength, place)
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
    """Whether `folder` already contains the benchmark described by `record`.

    Raises:
        InputError: The folder is a file, or has other contents.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the forged photographs")
    try:
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{folder}: is not empty and has no forged photographs; name another folder"
        ) from None
    if found != record or not (folder / "manifest.csv").is_file():
        raise InputError(
            f"{folder}: has forged photographs with other settings, seed or version; "
            "name another folder or remove this one"
        )
    return True


def write_forged(folder: Path, settings: ForgedSettings, seed: int) -> Path:
    """Write the benchmark (images, human maps, manifest), unless it exists already.

    The same settings and seed give the same bytes. The folder is written atomically: it is filled
    under a temporary name and then renamed.

    Args:
        folder: Output folder; it must not exist, be empty, or contain the same benchmark.
        settings: Settings, such as `PRESETS["full"]` or `PRESETS["tiny"]`.
        seed: Random seed, 0 or more, of photographs, crops, regions and forgeries.

    Returns:
        Path of `manifest.csv`.

    Raises:
        InputError: scikit-image is not installed, the folder has other contents, or no visible
            forgery exists with these settings.
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
        folder: Output folder; existing draws are kept.
        settings: Settings of all draws.
        seeds: Seeds, 0 or more each.

    Returns:
        Pattern of the manifests for a study: `folder/{seed}/manifest.csv`.

    Raises:
        InputError, RunFailedError: See `write_forged`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the draws")
    for seed in seeds:
        write_forged(folder / str(seed), settings, seed)
    return folder / "{seed}" / "manifest.csv"
