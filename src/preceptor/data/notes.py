"""Summary of a manifest, and notes on valid content that is probably a mistake."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.data.cache import ImageSource
from preceptor.data.file_contents import written
from preceptor.data.fingerprints import fingerprints
from preceptor.data.images import (
    ImageError,
    decode_map,
    image_size,
    load_image,
    open_image,
    read_file,
)
from preceptor.data.locations.read import reading_threads
from preceptor.data.manifest import Manifest
from preceptor.evaluation.split_names import KINDS, kind_of
from preceptor.runtime.cores import core_count


def missing_classes(manifest: Manifest, negatives: str | None = None) -> dict[str, list[str]]:
    """Classes missing in each validation and test set; complete sets are omitted.

    Without images of a class, its AUC is undefined. The usual case is a held-out attack type, whose
    images are all positive.

    Args:
        manifest: Manifest.
        negatives: Validation set whose images are used for the classes that other validation sets
            lack; None = no set.

    Example:
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> splits, labels = ["train", "train", "val-noise"], ["real", "fake", "fake"]
        >>> table = pd.DataFrame({"split": splits, "label": labels})
        >>> missing_classes(Manifest(table, Path()))
        {'val-noise': ['real']}
    """
    there = manifest.table.groupby("split", sort=False)["label"].agg(set)
    validation = manifest.eval_splits("val")
    found = {}
    for name in [*validation, *manifest.eval_splits("test")]:
        present = there[name]
        if negatives is not None and name in validation:
            present = present | there[negatives]
        missing = [one for one in manifest.classes if one not in present]
        if missing:
            found[name] = missing
    return found


def missing_class_notes(manifest: Manifest) -> list[str]:
    """Note for each validation and test set that lacks a class, with consequence and remedy."""
    tests, notes = manifest.eval_splits("test"), []
    lacking = missing_classes(manifest)
    complete = [name for name in manifest.eval_splits("val") if name not in lacking]
    auc = "no AUC" if len(manifest.classes) == 2 else "no AUC of it"
    for name, missing in lacking.items():
        classes = ", ".join(missing)
        lack = auc if name in tests else f"{auc} and cannot select"
        note = (
            f"{name}: there is no image of class {classes}, so it has {lack}; move images of "
            f"{classes} into it, or make it with `preceptor data split --hold-out`"
        )
        if name not in tests and complete:
            note += (
                f", or set `validation_negatives: {complete[0]}` in the study file, which scores "
                f"it against the images of {classes} in {complete[0]}"
            )
        notes.append(note)
    return notes


def selection_problems(manifest: Manifest, negatives: str | None) -> list[str]:
    """Problems of the validation sets for model selection, one line each.

    Args:
        manifest: Manifest.
        negatives: Validation set with the missing classes, see `missing_classes`; a name that is
            not a validation set is a problem as well.
    """
    sets = manifest.eval_splits("val")
    if negatives is not None and negatives not in sets:
        return [
            f"validation_negatives: {negatives!r} is not one of the validation sets {sets}; "
            "name one of them"
        ]
    lacking = missing_classes(manifest, negatives)
    whole = missing_classes(manifest)
    found = []
    for name in sets:
        if name not in lacking:
            continue
        classes = ", ".join(lacking[name])
        line = (
            f"{name}: there is no image of class {classes}, so it has no AUC to select by; move "
            f"images of {classes} into it"
        )
        others = [other for other in sets if other not in whole]
        if others:
            line += (
                f", or set validation_negatives: {others[0]}, which scores it against the images "
                f"of {classes} in {others[0]}"
            )
        found.append(line)
    return found


def primary_problems(manifest: Manifest, primary: str) -> list[str]:
    """Problem of a test set as the primary one, or an empty list."""
    missing = missing_classes(manifest).get(primary)
    if not missing:
        return []
    return [
        f"primary: {primary} has no image of class {', '.join(missing)}, so it has no AUC to test; "
        "add such images, or name another test set"
    ]


def notes(manifest: Manifest, cache: Path | None = None) -> list[str]:
    """Notes on a manifest, one line each.

    Args:
        manifest: Manifest whose files all exist.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        Notes on sets that lack a class, byte-identical images in two kinds of split or with
        different labels, and similar labels.
    """
    content = _contents(manifest, cache)
    return [
        *missing_class_notes(manifest),
        *repeated_image_notes(_repeated(manifest, content)),
        *contradiction_notes(_contradictions(manifest, content)),
        *similar_label_notes(manifest),
    ]


def repeated_images(manifest: Manifest, cache: Path | None = None) -> pd.DataFrame:
    """Images that are byte-identical to an image of another kind of split.

    Args:
        manifest: Manifest.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        One row per image of the later kind, with columns `kinds` ("train, test") and the names
        `first` and `second` of the two images.
    """
    return _repeated(manifest, _contents(manifest, cache))


def _contents(manifest: Manifest, cache: Path | None) -> pd.Series:
    """Content hashes of the images: those the manifest was read with, or those of its files."""
    if manifest.contents is not None:
        return pd.Series(written(manifest.contents.images), dtype="str")
    return fingerprints(manifest, ["path"], cache)["path"]


def _repeated(manifest: Manifest, content: pd.Series) -> pd.DataFrame:
    frame = pd.DataFrame({"content": content, "name": manifest.table["name"]})
    frame["kind"] = kind_of(manifest.table["split"])
    parts = []
    for one, other in combinations(KINDS, 2):
        known = frame[frame["kind"] == one].drop_duplicates("content")
        both = known.merge(frame[frame["kind"] == other], on="content", suffixes=("", "_second"))
        found = pd.DataFrame({"first": both["name"], "second": both["name_second"]})
        parts.append(found.assign(kinds=f"{one}, {other}"))
    return pd.concat(parts, ignore_index=True)


def contradictory_labels(manifest: Manifest, cache: Path | None = None) -> pd.DataFrame:
    """Images that are byte-identical to an earlier image with another label.

    Args:
        manifest: Manifest.
        cache: Folder with cached content hashes, see `fingerprints`.

    Returns:
        One row per image, with the names `first` and `second` of the two images and their labels
        `first_label` and `second_label`.
    """
    return _contradictions(manifest, _contents(manifest, cache))


def _contradictions(manifest: Manifest, content: pd.Series) -> pd.DataFrame:
    frame = manifest.table[["name", "label"]].assign(content=content)
    first = frame.drop_duplicates("content").rename(columns={"name": "first"})
    both = frame.merge(first, on="content", suffixes=("", "_first"))
    both = both.rename(columns={"name": "second", "label": "second_label"})
    both = both.rename(columns={"label_first": "first_label"})
    other = both[both["first_label"] != both["second_label"]]
    return other[["first", "second", "first_label", "second_label"]].reset_index(drop=True)


def contradiction_notes(found: pd.DataFrame) -> list[str]:
    """Note on `contradictory_labels`, with their number and the first pair."""
    if not len(found):
        return []
    one = found.iloc[0]
    what = "image is" if len(found) == 1 else "images are"
    return [
        f"{len(found):,} {what} byte for byte the same as an image with another label "
        f"({one['second']} is {one['second_label']!r}, {one['first']} is {one['first_label']!r}); "
        "correct the labels, or remove the images"
    ]


def repeated_image_notes(repeated: pd.DataFrame) -> list[str]:
    """Note for each pair of kinds of split with byte-identical images, with their number."""
    found = []
    for kinds, part in repeated.groupby("kinds", sort=False):
        one, other = str(kinds).split(", ")
        images = f"{len(part):,} image{'s' if len(part) > 1 else ''}"
        found.append(
            f"{images} of {other} {'are' if len(part) > 1 else 'is'} byte for byte in {one} too "
            f"({part['second'].iloc[0]} = {part['first'].iloc[0]}): {other} results are better "
            "than they would be on new images; remove them, or give each pair a `group` of its own "
            "and split again"
        )
    return found


def similar_labels(manifest: Manifest) -> list[list[str]]:
    """Labels that differ only in case, in blanks, or in how a number is written (1 and 1.0)."""
    alike: dict[str, list[str]] = {}
    for label in manifest.classes:
        alike.setdefault(_plain(label), []).append(label)
    return [labels for labels in alike.values() if len(labels) > 1]


def similar_label_notes(manifest: Manifest) -> list[str]:
    """Note for each group of similar labels, with the number of images of each."""
    counts = manifest.table["label"].value_counts()
    return [
        "the labels "
        + " and ".join(f"{label!r} ({counts[label]:,} images)" for label in labels)
        + " are different classes; write them in one way if they are not meant to be"
        for labels in similar_labels(manifest)
    ]


def _plain(label: str) -> str:
    """Normalized label, without differences that may be typing errors."""
    text = "".join(label.split()).casefold()
    try:
        return repr(float(text))
    except ValueError:
        return text


EXAMINED = 64
"""Number of images, and of maps, that are examined at most: a file format is that of many files."""
# Values of 14 bits in files of 16 bits are decoded as 64 of 256 gray levels.
_FEW_BITS = 2**14
# Difference of the channels of a pixel, and share of such pixels, from which on a map is in color:
# the lossy colors of JPEG files of gray images differ less.
_COLOR, _COLORED = 32, 0.01

_Found = TypeVar("_Found")


def value_notes(manifest: Manifest) -> list[str]:
    """Notes on 16-bit images of few bits, invisible images and maps in color, one line each.

    Args:
        manifest: Manifest whose files are valid; at most `EXAMINED` images and maps are read.
    """
    images = _examined(manifest.table["path"], _image_values)
    return [*_deep_notes(images), *_invisible_notes(images), *_color_notes(manifest)]


@dataclass(frozen=True)
class _ImageValues:
    """Values of an image.

    Args:
        largest: Largest value of an image of 16 bits; None for others.
        is_invisible: Whether all pixels are transparent.
    """

    largest: int | None
    is_invisible: bool


def _deep_notes(found: Sequence[_ImageValues]) -> list[str]:
    deep = [one.largest for one in found if one.largest is not None]
    if not deep or (largest := max(deep)) >= _FEW_BITS:
        return []
    levels = round(largest / 65535 * 255) + 1
    return [
        f"{_of(len(deep), len(found), 'image')} 16 bits and no value above {largest:,}: 16 bits "
        f"are decoded by their full range, so that {levels} gray levels are left; scale the images "
        "to the full range"
    ]


def _invisible_notes(found: Sequence[_ImageValues]) -> list[str]:
    count = sum(one.is_invisible for one in found)
    if not count:
        return []
    return [
        f"{_of(count, len(found), 'image')} no pixel that is visible, so that pure white is "
        "decoded: some programs write an alpha channel of zeros; save the images without it"
    ]


def _color_notes(manifest: Manifest) -> list[str]:
    maps = manifest.table["saliency"]
    found = _examined(maps[maps != ""], _is_colored)
    if not any(found):
        return []
    return [
        f"{_of(sum(found), len(found), 'human map')} colors: a map is read by its luminance, which "
        "does not increase with the value in heat maps (the red of jet is darker than its yellow); "
        "save maps as grayscale, bright in the relevant regions"
    ]


def _of(count: int, examined: int, what: str) -> str:
    """Beginning of a note: the number of files, and of which."""
    return f"{count:,} of {examined:,} examined {what}s {'has' if count == 1 else 'have'}"


def _examined(paths: pd.Series, look: Callable[[str], _Found]) -> list[_Found]:
    """What is found of files at equal distances; files that are gone meanwhile are left out."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), EXAMINED)).round())
    chosen = [str(paths.iloc[int(at)]) for at in places]

    def found(path: str) -> list[_Found]:
        try:
            return [look(path)]
        except ImageError:
            return []

    with ThreadPoolExecutor(reading_threads(chosen, core_count())) as pool:
        return [one for several in pool.map(found, chosen) for one in several]


def _image_values(path: str) -> _ImageValues:
    content = read_file(path)
    with open_image(io.BytesIO(content)) as image:
        is_deep = image.mode.startswith("I")
        is_invisible = False
        if image.has_transparency_data:
            is_invisible = image.convert("RGBA").getchannel("A").getextrema()[1] == 0
    largest = round(float(decode_map(path, content).max()) * 65535) if is_deep else None
    return _ImageValues(largest, is_invisible)


def _is_colored(path: str) -> bool:
    """Whether a map has more colors than those of a compressed gray image."""
    pixels = np.asarray(load_image(path)).astype(np.int16)
    return bool((np.ptp(pixels, axis=2) > _COLOR).mean() > _COLORED)


_COUNTS = ("images", "annotated", "with map", "sources", "groups", "sizes")


def summary_table(manifest: Manifest, sizes: NDArray[np.int32] | None = None) -> pd.DataFrame:
    """Summary of each split: numbers of images, classes, sources and groups, and image sizes.

    Args:
        manifest: Manifest.
        sizes: (n, 2) width and height of its images; None = they are read from the headers.

    Returns:
        One row per split, in order of appearance. Columns: `images`, one for each class,
        `annotated`, `with map`, `sources`, `groups` (numbers of distinct values) and `sizes`
        (smallest to largest by area, "224×224 – 640×480").

    Raises:
        ImageError: The header of an image cannot be read.
    """
    table = manifest.table
    by_row = _read_sizes(manifest) if sizes is None else list(map(tuple, sizes.tolist()))
    all_sizes = pd.Series(by_row, dtype=object)
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
        row["sizes"] = _span(all_sizes[part.index])
        rows[str(split)] = row
    summary = pd.DataFrame.from_dict(rows, orient="index")
    summary.index.name = "split"
    return summary


def _read_sizes(manifest: Manifest) -> list[tuple[int, int]]:
    """Sizes of all images, from their headers."""
    paths = manifest.table["path"].tolist()
    with ThreadPoolExecutor(reading_threads(paths, core_count())) as pool:
        return list(pool.map(image_size, paths))


def _span(sizes: Iterable[tuple[int, int]]) -> str:
    ordered = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    return " – ".join(f"{width}×{height}" for width, height in ends)


# Maps that are looked at; more would change the share by less than two percentage points.
_SAMPLE = 500


@dataclass(frozen=True)
class MarkPlaces:
    """Size and places of the marks of a data set.

    Args:
        area: Median share of an image that its mark covers.
        overlap: Mean share of a mark that the mark of another image covers. Marks that may lie
            anywhere have an overlap of about their mean area, marks at one place of up to 1.
        count: Number of marks looked at.
    """

    area: float
    overlap: float
    count: int = 0


def mark_places(maps: NDArray[np.uint8]) -> MarkPlaces | None:
    """Size and places of human marks.

    The mark of a map is where it has at least half of its maximum.

    Args:
        maps: (n, H, W) human maps; those without a mark are left out.

    Returns:
        Size and places, or None for fewer than two marks.
    """
    marks = _marked(maps).reshape(len(maps), maps.shape[1] * maps.shape[2])
    marks = marks[marks.any(1)]
    count = len(marks)
    if count < 2:
        return None
    areas = marks.sum(1)
    at_each = marks.sum(0)
    # By mark, since a number for each position of all marks would take eight times their memory.
    shared = np.array([at_each[one].sum() for one in marks]) - areas
    overlaps = shared / (count - 1) / areas
    return MarkPlaces(float(np.median(areas)) / marks.shape[1], float(overlaps.mean()), count)


def small_marks(
    images: ImageSource, rows: NDArray[np.int64], grid: tuple[int, int]
) -> tuple[int, int]:
    """Number of human maps that mark less than half a cell of a grid, and number looked at.

    Args:
        images: Source of the human maps.
        rows: (n,) manifest rows with human maps, see `sampled`.
        grid: Rows and columns of the grid over the whole image.
    """
    if not len(rows):
        return 0, 0
    areas = _marked(images.human_maps(sampled(rows))).mean((1, 2))
    areas = areas[areas > 0]
    return int((areas * grid[0] * grid[1] < 0.5).sum()), len(areas)


def sampled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose maps are looked at: all, or at most 999, evenly spread."""
    return rows[:: max(1, len(rows) // _SAMPLE)]


def _marked(maps: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Positions of each map with at least half of its maximum."""
    peaks = maps.max((1, 2), initial=0)
    return np.asarray(maps >= np.maximum(peaks, 1)[:, None, None] / 2)
