"""Agreement of annotators who marked the same images: annotators/NAME/… in a folder.

An image counts for a pair of annotators if both looked at it. Dice and IoU compare the regions with
a value of one half or more; where both are empty they are undefined, and it is counted apart.
Pearson's correlation compares the maps, and is undefined where one is constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.annotations.shapes import Pixels
from preceptor.annotations.write import ANNOTATORS
from preceptor.data.images import ImageError, decode_marks
from preceptor.errors import InputError, Problem, ProblemsError, one_line
from preceptor.utils.files import replacing
from preceptor.utils.text import Progress


@dataclass(frozen=True)
class AnnotatorMaps:
    """Maps of all annotators of a folder of `data import`."""

    folder: Path
    people: dict[str, Path]  # folder of each person's maps, by name
    files: dict[str, tuple[str, ...]]  # persons by map file

    def maps(self, file: str) -> dict[str, Pixels]:
        """Map of each person who looked at an image."""
        maps: dict[str, Pixels] = {}
        for person in self.files[file]:
            path = self.people[person] / file
            pixels = np.rint(decode_marks(path) * 255).astype(np.uint8)
            for other, first in maps.items():
                if first.shape != pixels.shape:
                    (height, width), (high, wide) = first.shape, pixels.shape
                    what = f"the map is {wide}×{high}, the map of {other} {width}×{height}"
                    raise ImageError(path, what)
            maps[person] = pixels
        return maps


def read_annotators(folder: Path) -> AnnotatorMaps:
    """Find the maps of two or more annotators: annotators/NAME/… in a folder."""
    folder = Path(folder)
    people = people_of(folder)
    if len(people) < 2:
        raise InputError(
            f"{folder / ANNOTATORS}: maps of {len(people)} annotator(s); agreement needs two: one "
            "folder of maps for each, with the same file names"
        )
    files: dict[str, tuple[str, ...]] = {}
    for name, own in people.items():
        for file in sorted(own.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                key = file.relative_to(own).as_posix()
                files[key] = (*files.get(key, ()), name)
    return AnnotatorMaps(folder, people, dict(sorted(files.items())))


def people_of(folder: Path) -> dict[str, Path]:
    """Folder of each annotator's maps, by its name."""
    base = folder / ANNOTATORS
    folders = [own for own in (base.iterdir() if base.is_dir() else ()) if own.is_dir()]
    # A name need not be UTF-8.
    return {one_line(own.name): own for own in sorted(folders) if not own.name.startswith(".")}


@dataclass(frozen=True)
class Agreement:
    """Agreement of all annotators, where it is defined.

    Columns of pairs: a, b, images, both_empty, dice, iou, correlation (means over images); of
    images: file, dice, iou, correlation (means over pairs), all_empty; the least agreement first.
    """

    pairs: pd.DataFrame
    images: pd.DataFrame


def agreement_of(annotators: AnnotatorMaps, progress: Progress | None = None) -> Agreement:
    """Agreement of all annotators of a folder; a ProblemsError lists all maps that are wrong."""
    problems: list[Problem] = []

    def read() -> Iterator[tuple[str, dict[str, Pixels]]]:
        for done, file in enumerate(annotators.files, 1):
            try:
                yield file, annotators.maps(file)
            except ImageError as error:
                problems.append(Problem(error.path, error.reason, "export the maps again"))
            if progress is not None:
                progress(done, len(annotators.files))

    agreement = compare(read())
    if problems:
        raise ProblemsError(str(annotators.folder / ANNOTATORS), problems)
    return agreement


def compare(images: Iterable[tuple[str, Mapping[str, Pixels]]]) -> Agreement:
    """Agreement on files, each with the map of each person who looked at it, all of one shape."""
    rows: list[tuple[object, ...]] = []
    for file, maps in images:
        marked = {person: pixels >= 128 for person, pixels in maps.items()}
        sizes = {person: int(mask.sum()) for person, mask in marked.items()}
        for a, b in combinations(sorted(maps), 2):
            both, total = int((marked[a] & marked[b]).sum()), sizes[a] + sizes[b]
            dice = 2 * both / total if total else math.nan
            iou = both / (total - both) if total else math.nan
            rows.append((file, a, b, dice, iou, pearson(maps[a], maps[b]), not total))
    names = ["file", "a", "b", "dice", "iou", "correlation", "empty"]
    table = pd.DataFrame(rows, columns=names)
    means = {name: (name, "mean") for name in ("dice", "iou", "correlation")}
    pairs = table.groupby(["a", "b"]).agg(
        images=("file", "size"), both_empty=("empty", "sum"), **means
    )
    by_file = table.groupby("file").agg(**means, all_empty=("empty", "all")).reset_index()
    by_file = by_file.sort_values(["dice", "correlation", "file"], ignore_index=True)
    by_file["all_empty"] = by_file["all_empty"].astype(int)
    return Agreement(pairs.reset_index(), by_file)


def pearson(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Pearson's correlation of two maps; NaN if one is constant."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x -= x.mean()
    y -= y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return min(1.0, max(-1.0, float(x @ y) / norm)) if norm > 1e-12 else math.nan


PAIRS, IMAGES = "pairs.csv", "images.csv"


def write_agreement(maps: AnnotatorMaps, agreement: Agreement, to: Path) -> None:
    """Write the tables to a folder, which appears when it is complete."""
    to = to.absolute()
    present = {one.name for one in to.iterdir()} if to.is_dir() else {""}
    if to.exists() and not present <= {PAIRS, IMAGES}:
        raise InputError(f"{to} exists already and is no result of data agreement; choose another")
    if not to.parent.is_dir():
        raise InputError(f"{to.parent}: there is no such folder; create it first")
    images = agreement.images.rename(columns={"file": "name"})
    people = [" | ".join(sorted(maps.files[file])) for file in images["name"]]
    images.insert(1, "annotators", people)
    with replacing(to) as partial:
        partial.mkdir()
        for name, frame in ((PAIRS, agreement.pairs), (IMAGES, images)):
            frame.to_csv(partial / name, index=False, float_format="%.6g")
