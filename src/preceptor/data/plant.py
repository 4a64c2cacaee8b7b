"""Planted shortcuts: a copy of a manifest whose training images of one class carry a mark.

The mark goes with the label in the splits `train` and `val` and occurs in no other split, so that a
classifier that relies on it fails on the test sets. The question is then whether guidance prevents
this on the user's own images.

    manifest.csv  plant.json  (images and maps at their paths below the manifest's folder)
"""

# os.path.abspath and not Path.resolve(): the folder is made where it is named, links included.
# ruff: noqa: PTH100

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from preceptor.benchmark.forgeries import StampPlace
from preceptor.config.settings import Fraction, Settings
from preceptor.data.manifest import Manifest
from preceptor.data.planted_files import Mark, write_files
from preceptor.data.shortcut_marks import MarkKind
from preceptor.errors import InputError, RunFailedError
from preceptor.runtime.cores import core_count
from preceptor.runtime.progress import Progress
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.strict_json import strict_json
from preceptor.version import __version__

RECORD = "plant.json"
# The order is part of the random streams.
PLANTED_SPLITS = ("train", "val")
# A stamp of two pixels a cell, with its margin, is 28 pixels wide.
_LEAST_INPUT = 32


class PlantSettings(Settings):
    """Settings of a planted shortcut.

    Args:
        kind: stamp (a caption of a few glyphs), border (two lines around the image) or tint (more
            red and less blue; brighter in grayscale images).
        place: Place of a stamp: moving (uniform over all places that do not touch the human map) or
            corner (lower right, over the human map if it is there); None = moving. Other kinds have
            no place.
        rate: Share of the images of the class with the mark, in train and in val each.
        label: Class with the mark; None = the only class with human maps.
        strength: Contrast of the mark in gray levels of 255.
        input_size: Side in pixels of the model's input for which a stamp is drawn: its strokes have
            at least two pixels of the input, and their contrast in the squashed input is the
            strength; None = the stamp has this contrast in the file.
        seed: Random seed of the marked images and the places.
    """

    kind: MarkKind = "stamp"
    place: StampPlace | None = None
    rate: Fraction = 1.0
    label: str | None = None
    strength: Annotated[float, Field(gt=0, le=255)] = 32.0
    input_size: Annotated[int, Field(ge=_LEAST_INPUT, le=8192)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _options_of_a_stamp(self) -> PlantSettings:
        for name, what in (("place", "has a place"), ("input_size", "is drawn for an input size")):
            value = getattr(self, name)
            if value is not None and self.kind != "stamp":
                raise ValueError(
                    f"{name} is {value}, and kind is {self.kind}; only a stamp {what}: remove "
                    f"{name}, or set kind to stamp"
                )
        return self


@dataclass(frozen=True)
class SplitCounts:
    """Images of the class in a split.

    Args:
        split: Name of the split.
        images: Number of images.
        marked: Number of marked images.
        no_place: Number of images without a mark because their human map leaves no place.
        touch_map: Number of stamps that lie on the human map.
    """

    split: str
    images: int
    marked: int
    no_place: int
    touch_map: int


@dataclass(frozen=True)
class Planted:
    """Written copy of a manifest.

    Args:
        manifest: Path of the written manifest.
        images: Number of images of all classes and splits.
        settings: Settings, with the label.
        splits: Counts of train and val.
        marks: Marked images by name, in the order of the manifest.
        no_place: Names of images without a mark because their human map leaves no place.
        clean_validation: Whether the manifest has a validation set in which nothing is marked.
    """

    manifest: Path
    images: int
    settings: PlantSettings
    splits: tuple[SplitCounts, ...]
    marks: dict[str, Mark]
    no_place: tuple[str, ...]
    clean_validation: bool


def plant(
    manifest: Manifest,
    to: str | Path,
    settings: PlantSettings | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Planted:
    """Write a copy of a manifest and its files in which a shortcut is planted.

    Marked images are written as PNG in gray or color, as the library decodes them: 8 bits stay 8
    bits and deeper grayscale is written with 16 bits. All other files are the same bytes (hard
    links where possible). Images keep their names in outputs. The folder is written atomically and
    can be moved.

    Args:
        manifest: Manifest of the images.
        to: Output folder; it must not exist, or be empty.
        settings: Settings of the shortcut; None = defaults.
        workers: Number of threads; None = one per core.
        progress: Function called with (done, total) while images are written.

    Returns:
        The written manifest with the marked images.

    Raises:
        InputError: The folder has other contents or cannot be created, the label is not a class or
            cannot be told, or the manifest has no image of it in train.
        ProblemsError: Images cannot be decoded or are smaller than the mark.
        RunFailedError: The files cannot be written.
    """
    to = Path(to)
    settings = settings or PlantSettings()
    resolved: dict[str, str] = {"label": _label(manifest, settings.label)}
    if settings.kind == "stamp" and settings.place is None:
        resolved["place"] = "moving"
    settings = settings.model_copy(update=resolved)
    chosen = _chosen_rows(manifest, settings)
    _check_folder(to)
    parquet = manifest.source is not None and manifest.source.suffix.lower() in (".parquet", ".pq")
    name = "manifest.parquet" if parquet else "manifest.csv"
    with replacing(Path(os.path.abspath(to)), flush=False) as partial:
        try:
            partial.mkdir()
        except OSError as error:
            raise InputError(
                f"{to}: the folder cannot be created ({error.strerror}); choose another one"
            ) from error
        try:
            table, marks = write_files(
                manifest,
                partial,
                chosen,
                kind=settings.kind,
                place=settings.place,
                strength=settings.strength,
                input_size=settings.input_size,
                seed=settings.seed,
                reserved=(name, RECORD),
                workers=workers or core_count(),
                progress=progress,
            )
            Manifest(table, partial).write(partial / name)
            planted = _summary(manifest, to / name, settings, marks)
            (partial / RECORD).write_text(_record(planted), encoding="utf-8")
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise RunFailedError(
                f"{to}: the images cannot be written: {error.strerror or error}{where}"
            ) from error
    return planted


def _summary(
    manifest: Manifest, path: Path, settings: PlantSettings, marks: dict[int, Mark | None]
) -> Planted:
    """Result of `plant`, from the mark of each chosen row; None = no place."""
    table = manifest.table
    names = {row: str(table["name"].iloc[row]) for row in marks}
    splits = []
    for split in PLANTED_SPLITS:
        inside = (table["split"] == split).to_numpy(bool)
        here = [mark for row, mark in marks.items() if inside[row]]
        splits.append(
            SplitCounts(
                split=split,
                images=int((inside & (table["label"] == settings.label).to_numpy(bool)).sum()),
                marked=sum(mark is not None for mark in here),
                no_place=sum(mark is None for mark in here),
                touch_map=sum(mark is not None and mark.touches_map for mark in here),
            )
        )
    marked = {one.split for one in splits if one.marked}
    return Planted(
        path,
        len(manifest),
        settings,
        tuple(splits),
        {names[row]: mark for row, mark in marks.items() if mark is not None},
        tuple(names[row] for row, mark in marks.items() if mark is None),
        bool(set(manifest.eval_splits("val")) - marked),
    )


def _record(planted: Planted) -> str:
    """Content of `plant.json`, with one line for each marked image."""
    marks = [
        strict_json(
            {"name": name}
            | ({} if mark.box is None else mark.box._asdict() | {"touches_map": mark.touches_map}),
            indent=None,
        )
        for name, mark in planted.marks.items()
    ]
    settings = planted.settings
    unused = {"input_size"} if settings.input_size is None else set()
    head = {
        "version": __version__,
        "settings": settings.model_dump(mode="json", exclude=unused),
        "splits": [asdict(counts) for counts in planted.splits],
        "no_place": planted.no_place,
    }
    lines = ",\n".join(f"    {mark}" for mark in marks)
    return f'{strict_json(head).removesuffix("}").rstrip()},\n  "marks": [\n{lines}\n  ]\n}}\n'


def _label(manifest: Manifest, label: str | None) -> str:
    """Class with the mark."""
    classes = manifest.classes
    listed = ", ".join(classes)
    if label is None:
        with_map = sorted(set(manifest.table["label"][manifest.map_mask]))
        if len(with_map) != 1:
            what = "no class has" if not with_map else f"{len(with_map)} classes have"
            raise InputError(
                f"label: {what} human maps, so that the class to mark is not known; name one of "
                f"the classes: {listed}"
            )
        return str(with_map[0])
    if label not in classes:
        raise InputError(f"label {label!r}: there is no such class; name one of {listed}")
    return label


def _chosen_rows(manifest: Manifest, settings: PlantSettings) -> NDArray[np.int64]:
    """Rows to mark, sorted; a higher rate includes the rows of a lower one."""
    table = manifest.table
    is_label = (table["label"] == settings.label).to_numpy(bool)
    parts = []
    for position, split in enumerate(PLANTED_SPLITS):
        rows = np.flatnonzero(is_label & (table["split"] == split).to_numpy(bool))
        if split == "train" and not len(rows):
            raise InputError(
                f"label {settings.label!r}: no image of the split train is of this class; name "
                "another class, or assign some of its images to train"
            )
        # The last number is above 0: numpy takes [seed, 0] for seed, and annotated images are drawn
        # from that.
        order = np.random.default_rng([settings.seed, position, 7]).permutation(rows)
        parts.append(order[: round(settings.rate * len(rows))])
    return np.sort(np.concatenate(parts))


def _check_folder(to: Path) -> None:
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists() or to.is_symlink():
        what = "is not empty" if to.is_dir() else "is a file"
        raise InputError(f"{to}: {what}; name a folder that does not exist")
    if not Path(os.path.abspath(to)).parent.is_dir():
        raise InputError(f"{to}: folder {to.parent} does not exist; create it first")
