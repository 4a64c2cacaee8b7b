"""Summary of a manifest, and notes on valid content that is probably a mistake."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.cache import ImageSource, contents_of
from preceptor.data.images import (
    ImageError,
    decode_map,
    image_size,
    load_image,
    open_image,
    read_file,
)
from preceptor.data.manifest import Manifest
from preceptor.data.store import written
from preceptor.metrics.split_names import KINDS, kind_of
from preceptor.utils.process import core_count

EXAMINED = 64
"""Number of images, and of maps, whose values are examined at most."""
# Values of 14 bits in files of 16 bits are decoded as 64 of 256 gray levels.
_FEW_BITS = 2**14
# Difference of the channels of a pixel, and share of such pixels, from which on a map is in color:
# the lossy colors of JPEG files of gray images differ less.
_COLOR, _COLORED = 32, 0.01
# Maps that `small_marks` looks at, or up to twice as many: more would change the share by less than
# two percentage points.
_SAMPLE = 500
_COUNTS = ("images", "annotated", "with map", "sources", "groups", "sizes")

_Value = TypeVar("_Value")


def missing_classes(manifest: Manifest, negatives: str | None = None) -> dict[str, list[str]]:
    """Classes missing in each validation and test set, for which its AUC is undefined."""
    labels = manifest.table.groupby("split", sort=False)["label"].agg(set)
    validation = manifest.eval_splits("val")
    missing = {}
    for name in [*validation, *manifest.eval_splits("test")]:
        present = labels[name]
        if negatives is not None and name in validation:
            present = present | labels[negatives]
        missing[name] = [label for label in manifest.classes if label not in present]
    return {name: classes for name, classes in missing.items() if classes}


def _advice(manifest: Manifest, name: str, missing: list[str]) -> str:
    """Consequence of missing classes for an evaluation set, and the remedy."""
    classes = ", ".join(missing)
    line = (
        f"{name}: there is no image of class {classes}, so it has no AUC; move images of {classes} "
        "into it, correct its labels, or make it with `preceptor data split --hold-out`"
    )
    sets, lacking = manifest.eval_splits("val"), missing_classes(manifest)
    if name in sets and (complete := [one for one in sets if one not in lacking]):
        line += (
            f", or set `validation_negatives: {complete[0]}` in the study file, which scores it "
            f"against the images of {classes} in {complete[0]}"
        )
    return line


def missing_class_notes(manifest: Manifest) -> list[str]:
    """Note for each validation and test set that lacks a class, with consequence and remedy."""
    return [_advice(manifest, *one) for one in missing_classes(manifest).items()]


def selection_problems(manifest: Manifest, negatives: str | None) -> list[str]:
    """Problems of the validation sets for model selection, one line each."""
    sets = manifest.eval_splits("val")
    if negatives is not None and negatives not in sets:
        return [
            f"validation_negatives: {negatives!r} is not one of the validation sets {sets}; "
            "name one of them"
        ]
    lacking = missing_classes(manifest, negatives).items()
    return [_advice(manifest, name, missing) for name, missing in lacking if name in sets]


def primary_problems(manifest: Manifest, primary: str) -> list[str]:
    """Problem of a test set as the primary one, or an empty list."""
    missing = missing_classes(manifest).get(primary)
    return [f"primary: {_advice(manifest, primary, missing)}"] if missing else []


def notes(manifest: Manifest, cache_dir: Path | None = None) -> list[str]:
    """Notes on a manifest, one line each."""
    table = manifest.table[["name", "label"]].assign(
        kind=kind_of(manifest.table["split"]),
        content=written(contents_of(manifest, cache_dir).images),
    )
    return [
        *missing_class_notes(manifest),
        *_repeated_images(table),
        *_contradictory_labels(table),
        *_divided_objects(manifest.table),
    ]


def _repeated_images(table: pd.DataFrame) -> list[str]:
    """Note for each pair of kinds of split with byte-identical images."""
    lines = []
    for first, second in combinations(KINDS, 2):
        known = table[table["kind"] == first].drop_duplicates("content")
        pairs = known.merge(table[table["kind"] == second], on="content", suffixes=("", "_2"))
        if count := len(pairs):
            pair = pairs.iloc[0]
            lines.append(
                f"{count:,} image{'s' if count > 1 else ''} of {second} "
                f"{'are' if count > 1 else 'is'} byte for byte in {first} too ({pair['name_2']} = "
                f"{pair['name']}): {second} results are better than they would be on new images; "
                "remove them, or give each pair a `group` of its own and split again"
            )
    return lines


def _contradictory_labels(table: pd.DataFrame) -> list[str]:
    """Note on images that are byte-identical to an earlier image with another label."""
    first = table.drop_duplicates("content")
    pairs = table.merge(first, on="content", suffixes=("", "_1"))
    pairs = pairs[pairs["label"] != pairs["label_1"]]
    if not len(pairs):
        return []
    pair = pairs.iloc[0]
    what = "image is" if len(pairs) == 1 else "images are"
    return [
        f"{len(pairs):,} {what} byte for byte the same as an image with another label "
        f"({pair['name']} is {pair['label']!r}, {pair['name_1']} is {pair['label_1']!r}); "
        "correct the labels, or remove the images"
    ]


def _divided_objects(table: pd.DataFrame) -> list[str]:
    """Note on names such as p003_1 and p003_2 in two kinds of split, where no image has a group."""
    objects = table["name"].str.extract(r"(?:.*/)?(.*\d.*?)[-_. ][^-_. ]*\.\w+$")[0].dropna()
    sizes = objects.value_counts()
    several = objects[objects.map(sizes) > 1]
    # A patient has a few images; hundreds of images with one beginning are of a kind.
    usual = len(several) < 0.5 * len(table) or len(set(several)) < max(5, len(several) / 20)
    if usual or (table["group"] != "").any():
        return []
    of_kind = pd.Series(kind_of(table["split"]), table.index)
    kinds = of_kind[several.index].groupby(several).nunique()
    if not (count := int((kinds > 1).sum())):
        return []
    pair = table.loc[several[several == kinds.idxmax()].index[:2], "name"]
    return [
        f"names such as {' and '.join(pair)} look like several images of one patient or object, "
        f"and {count:,} of them are in two kinds of split: results are better than they would be "
        "on new ones; fill the column `group` (data import: --group-by) and split again"
    ]


def value_notes(manifest: Manifest) -> list[str]:
    """Notes on 16-bit images of few bits and on maps in color, one line each."""
    images = _examined(manifest.table["path"], _largest)
    maps = manifest.table["saliency"]
    colored = _examined(maps[maps != ""], _is_colored)
    deep = [largest for largest in images if largest]

    def of(count: int, examined: int, what: str) -> str:
        return f"{count:,} of {examined:,} examined {what}s {'has' if count == 1 else 'have'}"

    lines = []
    if deep and max(deep) < _FEW_BITS:
        levels = round(max(deep) / 65535 * 255) + 1
        lines.append(
            f"{of(len(deep), len(images), 'image')} 16 bits and no value above {max(deep):,}: 16 "
            f"bits are decoded by their full range, so that {levels} gray levels are left; scale "
            "the images to the full range"
        )
    if any(colored):
        lines.append(
            f"{of(sum(colored), len(colored), 'human map')} colors: a map is read by its "
            "luminance, which does not increase with the value in heat maps (the red of jet is "
            "darker than its yellow); save maps as grayscale, bright in the relevant regions"
        )
    return lines


def _examined(paths: pd.Series, look: Callable[[str], _Value]) -> list[_Value]:
    """Values of at most `EXAMINED` files at equal distances; files gone meanwhile are left out."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), EXAMINED)).round())
    chosen = [str(paths.iloc[int(at)]) for at in places]

    def value(path: str) -> _Value | None:
        with contextlib.suppress(ImageError):
            return look(path)
        return None

    with ThreadPoolExecutor(core_count()) as pool:
        return [one for one in pool.map(value, chosen) if one is not None]


def _largest(path: str) -> int:
    """Largest value of an image of 16 bits, 0 for others."""
    content = read_file(path)
    with open_image(io.BytesIO(content)) as image:
        if not image.mode.startswith("I"):
            return 0
    return round(float(decode_map(path, content).max()) * 65535)


def _is_colored(path: str) -> bool:
    """Whether a map has more colors than a compressed gray image."""
    pixels = np.asarray(load_image(path)).astype(np.int16)
    return bool((np.ptp(pixels, axis=2) > _COLOR).mean() > _COLORED)


def summary_table(manifest: Manifest) -> pd.DataFrame:
    """Summary of each split: numbers of images, classes, sources and groups, and image sizes."""
    table, contents = manifest.table, manifest.contents
    if contents is not None:
        sizes = list(map(tuple, contents.sizes.tolist()))
    else:
        paths = table["path"].tolist()
        with ThreadPoolExecutor(core_count()) as pool:
            sizes = list(pool.map(image_size, paths))
    by_row = pd.Series(sizes, dtype=object)
    rows = {}
    for split, part in table.groupby("split", sort=False):
        labels = part["label"].value_counts()
        row: dict[str, int | str] = {"images": len(part)}
        for label in manifest.classes:
            row[f"class {label}" if label in _COUNTS else label] = int(labels.get(label, 0))
        row["annotated"] = int(part["annotated"].sum())
        row["with map"] = int((part["saliency"] != "").sum())
        for column in ("source", "group"):
            row[f"{column}s"] = part.loc[part[column] != "", column].nunique()
        ordered = sorted(set(by_row[part.index]), key=lambda size: (size[0] * size[1], size))
        ends = dict.fromkeys((ordered[0], ordered[-1]))
        row["sizes"] = " – ".join(f"{width}×{height}" for width, height in ends)
        rows[str(split)] = row
    summary = pd.DataFrame.from_dict(rows, orient="index")
    summary.index.name = "split"
    return summary


def small_marks(
    images: ImageSource, rows: NDArray[np.int64], grid: tuple[int, int]
) -> tuple[int, int]:
    """Number of human maps that mark less than half a cell of a grid, and number looked at."""
    if not len(rows):
        return 0, 0
    maps = images.human_maps(rows[:: max(1, len(rows) // _SAMPLE)])
    peaks = maps.max((1, 2), initial=0)
    areas = (maps >= np.maximum(peaks, 1)[:, None, None] / 2).mean((1, 2))
    areas = areas[areas > 0]
    return int((areas * grid[0] * grid[1] < 0.5).sum()), len(areas)
