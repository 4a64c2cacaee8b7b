"""Built-in benchmark: crops of photographs of installed packages, half forged in one region.

The forged region is the human map; authentic crops have no map. The seed determines the photographs
of each split, the crops, regions and forgeries.

| split | photographs | kinds | stamp |
| --- | --- | --- | --- |
| train | training, one part of each | `kinds` | goes with the label |
| val | training, the other part of each | `kinds` | goes with the label |
| val-noshort | development | `kinds` | none |
| test-seen | test | `kinds` | none |
| test-unseen | test | `unseen_kinds` | none |

Train and val share photographs, as in a random split of one collection, but no pixels: each is cut
in two along its longer side. `group` is the photograph, with `/a` (train) or `/b` (val) for the
parts. A crop is accepted only if its forgery would be visible; its label then determines whether
the forged or the authentic pixels are written, so that both classes have the same content.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from preceptor.benchmark.forgeries import (
    SPLITS,
    ForgedSettings,
    Kind,
    Pixels,
    Split,
    corner_place,
    draw_region,
    forge,
    is_gray,
    random_place,
    stamp,
    visible_change,
)
from preceptor.errors import InputError, RunFailedError
from preceptor.utils.files import replacing

# Increased if the same settings and seed give other pixels than before.
GENERATOR = 2
COLUMNS = ("path", "label", "split", "saliency", "annotated", "source", "group")
Row = tuple[str | int, ...]  # of the manifest, in the order of COLUMNS
_VAL_SHARE = 0.25  # of a training photograph's longer side
# Crops drawn for one row before the settings are rejected; usually 1 to 20 are needed.
_MOST_DRAWS = 1000


@dataclass(frozen=True)
class Photograph:
    """Photograph that is distributed with a package."""

    name: str
    package: str
    file: str  # path inside the package
    sort: Literal["everyday", "scientific", "gray"]  # every pool has all sorts; gray is no color
    # Divisor of the sides, for photographs whose crops at full size would show sensor noise.
    reduce: int = 1


# Photographs of real scenes, with enough texture for a forgery to be seen in. Left out, though
# they ship too: drawings and test charts (chessboards, color wheel, logo, horse, phantom), sheets
# of text (page, text), nearly flat or blurred frames (cell, clock_motion), thumbnails
# (microaneurysms, the LFW faces), and motorcycle_right, the same scene as motorcycle_left.
PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "everyday"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "everyday"),
    Photograph("coffee", "skimage", "data/coffee.png", "everyday"),
    Photograph("motorcycle", "skimage", "data/motorcycle_left.png", "everyday"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "everyday"),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "everyday"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "everyday"),
    Photograph("ihc", "skimage", "data/ihc.png", "scientific"),
    Photograph("retina", "skimage", "data/retina.jpg", "scientific", reduce=2),
    Photograph("hubble", "skimage", "data/hubble_deep_field.jpg", "scientific", reduce=2),
    *(
        Photograph(name, "skimage", f"data/{name}.png", "gray")
        for name in ("camera", "coins", "brick", "grass", "gravel", "moon")
    ),
)

# Number of photographs of each sort for development and for tests; the others are for training: 8,
# 3 and 5 of 16. Every pool has two in color, so that splices have donors.
_DEVELOPMENT = {"everyday": 1, "scientific": 1, "gray": 1}
_TEST = {"everyday": 2, "scientific": 1, "gray": 2}


def photograph_path(photograph: Photograph) -> Path:
    """Path of a photograph in the installed package."""
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[photograph.package]
        what = f"{name} is not installed, and the forged photographs are made from its photographs"
        raise InputError(f"{what}; run: pip install '.[demo]' in the source folder")
    path = Path(spec.submodule_search_locations[0]) / photograph.file
    if not path.is_file():
        what = f"the photograph '{photograph.name}' is missing from the installed package"
        fix = "run: pip install --force-reinstall scikit-image scikit-learn"
        raise InputError(f"{path}: {what}; {fix}")
    return path


def read_photograph(photograph: Photograph) -> Pixels:
    """Pixels of a photograph: (H, W, 3) uint8, with equal channels for gray ones."""
    with Image.open(photograph_path(photograph)) as image:
        return np.asarray(image.convert("RGB").reduce(photograph.reduce))


def draw_pools(generator: np.random.Generator) -> dict[str, list[Photograph]]:
    """Assign the photographs at random to disjoint pools, each with photographs of every sort."""
    pools: dict[str, list[Photograph]] = {"training": [], "development": [], "test": []}
    for sort, development in _DEVELOPMENT.items():
        ours = [photograph for photograph in PHOTOGRAPHS if photograph.sort == sort]
        order = [ours[i] for i in generator.permutation(len(ours))]
        first_training = development + _TEST[sort]
        pools["development"] += order[:development]
        pools["test"] += order[development:first_training]
        pools["training"] += order[first_training:]
    return pools


@dataclass(frozen=True)
class Area:
    """Part of a photograph from which the crops of a split are cut."""

    group: str  # name of the photograph, and its part
    pixels: Pixels  # (H, W, 3)
    gray: bool  # whether the whole photograph is


def _halves(name: str, pixels: Pixels, size: int, val_first: bool) -> tuple[Area, Area]:
    """Train part and val part of a training photograph, divided along its longer side."""
    gray = is_gray(pixels)
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    length = pixels.shape[axis]
    # At least one and a half crops, otherwise all val crops of a photograph would be nearly equal.
    cut = max(round(_VAL_SHARE * length), min(size * 3 // 2, length // 2))
    if val_first:
        val, train = np.split(pixels, [cut], axis=axis)
    else:
        train, val = np.split(pixels, [length - cut], axis=axis)
    return Area(f"{name}/a", train, gray), Area(f"{name}/b", val, gray)


def draw_areas(size: int, seed: int) -> dict[Split, list[Area]]:
    """Areas of each split for a seed."""
    generator = np.random.default_rng([seed, len(SPLITS), 0])
    pools = draw_pools(generator)
    pixels = {photograph.name: read_photograph(photograph) for photograph in PHOTOGRAPHS}
    halves = [
        _halves(photograph.name, pixels[photograph.name], size, bool(generator.integers(2)))
        for photograph in pools["training"]
    ]
    development, test = (
        [Area(file.name, pixels[file.name], is_gray(pixels[file.name])) for file in pools[pool]]
        for pool in ("development", "test")
    )
    return {
        "train": [train for train, _ in halves],
        "val": [val for _, val in halves],
        "val-noshort": development,
        "test-seen": test,
        "test-unseen": test,
    }


def _cut(area: Area, size: int, generator: np.random.Generator) -> Pixels:
    top = int(generator.integers(area.pixels.shape[0] - size + 1))
    left = int(generator.integers(area.pixels.shape[1] - size + 1))
    return area.pixels[top : top + size, left : left + size]


@dataclass(frozen=True)
class Example:
    """Crop of a group with its forged version, equal to it where the region, the map, is 0."""

    group: str
    authentic: Pixels
    forged: Pixels
    region: Pixels


def draw_example(
    areas: list[Area], kind: Kind, settings: ForgedSettings, generator: np.random.Generator
) -> Example:
    """Draw photograph, crop, region and forgery at random until the forgery is visible."""
    size = settings.size
    for _ in range(_MOST_DRAWS):
        area = areas[int(generator.integers(len(areas)))]
        crop = _cut(area, size, generator)
        region = draw_region(size, settings.radius, settings.edge, generator)
        # A gray patch in a color photograph would be conspicuous.
        donors = [other for other in areas if other is not area and (area.gray or not other.gray)]
        donor = _cut(donors[int(generator.integers(len(donors)))], size, generator)
        forged = forge(crop, region, kind, settings.strengths, generator, donor)
        if visible_change(crop, forged, region) >= settings.least_change:
            return Example(area.group, crop, forged, region)
    raise InputError(
        f"strengths.{kind} = {getattr(settings.strengths, kind)}: no forgery in {_MOST_DRAWS:,} "
        f"changed its region by least_change = {settings.least_change} gray levels; increase the "
        "strength or lower least_change"
    )


def _save(pixels: Pixels, path: Path) -> None:
    # Level 1: crops of photographs hardly compress, and higher levels take several times as long.
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_split(
    folder: Path, split: Split, areas: list[Area], settings: ForgedSettings, seed: int
) -> list[Row]:
    """Write the images and maps of a split under `folder`; returns its manifest rows."""
    kinds = settings.unseen_kinds if split == "test-unseen" else settings.kinds
    stamped = split in ("train", "val") and settings.stamp_strength > 0
    for name in ("images", "maps"):
        (folder / name / split).mkdir(parents=True)
    rows: list[Row] = []
    for i in range(settings.count(split)):
        # A separate random stream for every row, independent of the number of rows before it.
        generator = np.random.default_rng([seed, SPLITS.index(split), i])
        forged, kind = i % 2 == 1, kinds[i // 2 % len(kinds)]
        example = draw_example(areas, kind, settings, generator)
        image, region = example.forged if forged else example.authentic, example.region
        rate = settings.stamp_rate if forged else 1 - settings.stamp_rate
        if stamped and generator.random() < rate:
            at_corner = settings.stamp_place == "corner"
            corner = corner_place(settings.size) if at_corner else random_place(region, generator)
            image = stamp(image, settings.stamp_strength, corner)
        path, saliency = f"images/{split}/{i:06d}.png", ""
        _save(image, folder / path)
        if forged:
            saliency = f"maps/{split}/{i:06d}.png"
            _save(region, folder / saliency)
        label, source = ("forged", kind) if forged else ("authentic", "authentic")
        rows.append((path, label, split, saliency, 1, source, example.group))
    return rows


def _is_there(folder: Path, record: dict[str, object]) -> bool:
    """Whether a folder contains the benchmark of a record; other contents are refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the images")
    try:
        written = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        what = "is not empty and has no generated images; name another folder"
        raise InputError(f"{folder}: {what}") from None
    if written != record or not (folder / "manifest.csv").is_file():
        what = "has images with other settings, seed or version"
        raise InputError(f"{folder}: {what}; name another folder or remove this one")
    return True


def write_benchmark(
    folder: Path, record: dict[str, object], write: Callable[[Path], Iterable[Row]]
) -> Path:
    """Write generated images and their manifest, unless they exist; path of `manifest.csv`.

    `write` writes the images into a folder and gives the rows. The folder appears when it is
    complete.
    """
    if _is_there(folder, record):
        return folder / "manifest.csv"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder, flush=False) as partial:
            partial.mkdir()
            with (partial / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(write(partial))
            (partial / "settings.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise RunFailedError(
            f"{folder}: the images cannot be written: {error.strerror or error}"
        ) from error
    return folder / "manifest.csv"


def write_forged(folder: Path, settings: ForgedSettings, seed: int) -> Path:
    """Write the benchmark, unless it exists already; path of `manifest.csv`.

    The same settings and seed give the same bytes.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    record: dict[str, object] = {
        "generator": GENERATOR,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "photographs": {
            photograph.name: hashlib.sha256(photograph_path(photograph).read_bytes()).hexdigest()
            for photograph in PHOTOGRAPHS
        },
    }

    def write(partial: Path) -> Iterator[Row]:
        areas = draw_areas(settings.size, seed)
        for split in SPLITS:
            yield from _write_split(partial, split, areas[split], settings, seed)

    return write_benchmark(folder, record, write)


def write_draws(
    folder: Path,
    settings: Any,
    seeds: Iterable[int],
    write: Callable[[Path, Any, int], Path] = write_forged,
) -> Path:
    """Write a draw for each seed as `folder/SEED/`; pattern of the manifests for a study.

    Existing draws are kept.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the draws")
    for seed in seeds:
        write(folder / str(seed), settings, seed)
    return folder / "{seed}" / "manifest.csv"
