"""Maps of single annotators in a folder: annotators/NAME/… beside manifest.csv."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import ImageError, decode_map
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, Problem, ProblemsError, one_line
from preceptor.evaluation.annotators import Agreement, AgreementCounter
from preceptor.runtime.progress import Progress

FOLDER, MANIFEST, RECORD, MAPS = "annotators", "manifest.csv", "import.json", "maps"
# Longer side of the grid on which displacements are looked for.
_SIDE = 256


@dataclass(frozen=True)
class AnnotatorMaps:
    """Maps of all annotators of a folder.

    Args:
        folder: Folder with manifest.csv and annotators/.
        people: Folder of each person's maps, by name.
        files: Persons by map file, the path of the file from the folder of each.
        table: Row of the manifest of each map file; files without a row are left out.
        annotated: Number of annotated images of the manifest.
    """

    folder: Path
    people: dict[str, Path]
    files: dict[str, tuple[str, ...]]
    table: pd.DataFrame
    annotated: int

    def maps(self, file: str) -> dict[str, NDArray[np.uint8]]:
        """Map of each person who looked at an image.

        Raises:
            ImageError: A map cannot be read, or two have different sizes.
        """
        found: dict[str, NDArray[np.uint8]] = {}
        for person in self.files[file]:
            path = self.people[person] / file
            pixels = np.rint(decode_map(path) * 255).astype(np.uint8)
            first = next(iter(found.values()), pixels)
            if first.shape != pixels.shape:
                (height, width), (high, wide) = first.shape, pixels.shape
                raise ImageError(
                    path, f"the map is {wide}×{high}, that of {next(iter(found))} {width}×{height}"
                )
            found[person] = pixels
        return found

    def manifest_of(self, person: str) -> Manifest:
        """Manifest of the images that a person looked at, with the maps of this person.

        Raises:
            InputError: There is no such person, or no map of this person.
        """
        files = [file for file, people in self.files.items() if person in people]
        if not files:
            known = ", ".join(self.people)
            raise InputError(f"no image has a map of the annotator {person!r}; known: {known}")
        table = self.table.loc[files].reset_index(drop=True)
        table["saliency"] = [str((self.people[person] / file).absolute()) for file in files]
        table["annotated"] = True
        return Manifest(table, self.folder.absolute(), self.folder / MANIFEST)


def read_annotators(folder: Path) -> AnnotatorMaps:
    """Find the maps of the annotators of a folder that `data import` has written.

    Args:
        folder: Folder with manifest.csv and annotators/NAME/….

    Raises:
        InputError: There is no manifest, or fewer than two annotators.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: there is no {MANIFEST} in it; name a folder of data import")
    people = people_of(folder)
    if len(people) < 2:
        raise InputError(
            f"{folder / FOLDER}: maps of {len(people)} annotator{'s' if len(people) != 1 else ''}; "
            "agreement needs two: one folder of maps for each, with the same file names"
        )
    manifest = Manifest.read(path, verify=False, need=())
    by_file: dict[str, list[str]] = {}
    for name, own in people.items():
        for file in sorted(own.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                by_file.setdefault(file.relative_to(own).as_posix(), []).append(name)
    rows = _rows(manifest, folder, set(by_file))
    files = {file: tuple(by_file[file]) for file in sorted(rows)}
    if not files:
        raise InputError(f"{folder / FOLDER}: no map has the name of an image of {path}")
    table = manifest.table.loc[[rows[file] for file in files]].set_index(pd.Index(list(files)))
    return AnnotatorMaps(folder, people, files, table, int(manifest.annotated_mask.sum()))


def people_of(folder: Path) -> dict[str, Path]:
    """Folder of each annotator's maps, by name; import.json has names that are no file names."""
    base = folder / FOLDER
    if not base.is_dir():
        return {}
    named: dict[str, str] = {}
    record = folder / RECORD
    if record.is_file():
        try:
            stated = json.loads(record.read_text(encoding="utf-8"))["annotators"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{record}: damaged; import the annotations again") from error
        named = stated if isinstance(stated, dict) else {}
    by_folder = {str(own): str(name) for name, own in named.items()}
    found = {
        by_folder.get(own.name, one_line(own.name)): own  # it need not be UTF-8
        for own in sorted(base.iterdir())
        if own.is_dir() and not own.name.startswith(".")
    }
    return dict(sorted(found.items()))


def _rows(manifest: Manifest, folder: Path, files: set[str]) -> dict[str, int]:
    """Row of the manifest of each map file."""
    base = f"{(folder / MAPS).absolute().as_posix()}/"
    rows: dict[str, int] = {}
    others: list[tuple[int, str]] = []
    table = manifest.table
    for row, (saliency, name) in enumerate(zip(table["saliency"], table["name"], strict=True)):
        own = Path(saliency).as_posix().removeprefix(base) if saliency else ""
        if own in files:
            rows.setdefault(own, row)
        elif not own:  # the merged map is empty: the name is that of the image
            others.append((row, str(name)))
    for row, name in others:
        for own in (PurePosixPath(name).with_suffix(".png").as_posix(), f"{name}.png"):
            if own in files and own not in rows:
                rows[own] = row
                break
    return rows


def agreement_of(maps: AnnotatorMaps, progress: Progress | None = None) -> tuple[Agreement, int]:
    """Agreement of all annotators.

    Args:
        maps: Result of `read_annotators`.
        progress: Function called with (done, total).

    Returns:
        Agreement, and the size in pixels of the cells in which displacements are measured.

    Raises:
        ProblemsError: Maps cannot be read or have different sizes; lists all.
    """
    counter = AgreementCounter()
    factor = 0
    problems: list[Problem] = []
    for done, (file, people) in enumerate(maps.files.items(), 1):
        try:
            found = maps.maps(file)
        except ImageError as error:
            problems.append(Problem(error.path, error.reason, "export the maps again"))
            continue
        if not factor and len(people) > 1:
            factor = max(1, round(max(next(iter(found.values())).shape) / _SIDE))
        counter.add(
            file, found, {name: _coarse(one, max(factor, 1)) for name, one in found.items()}
        )
        if progress is not None:
            progress(done, len(maps.files))
    if problems:
        raise ProblemsError(str(maps.folder / FOLDER), problems)
    return counter.result(), max(factor, 1)


def _coarse(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float64]:
    """Means of squares of factor × factor pixels."""
    if factor == 1:
        return pixels.astype(np.float64)
    return np.asarray(Image.fromarray(pixels).reduce(factor), np.float64)
