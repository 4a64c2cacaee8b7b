"""Teacher of the marking page: a mapper taught the marks so far, or a given model; its proposals.

The labels of the images are not used: an image is positive if it has a mark. A proposal is the set
of pixels with a probability of a mark above a threshold. The threshold is the one with the highest
mean overlap with people's marks, on images that the mapper was not taught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.data.images import image_size
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.evaluation.split_names import kind_or_none
from preceptor.inference.annotate import compute_maps
from preceptor.label.strokes import Patch
from preceptor.label.teacher_config import MARKED, NOTHING, TeacherConfig
from preceptor.maps.export import map_over_image
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model
from preceptor.training.run import train

Mask = NDArray[np.bool_]
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_HELD_OUT = 5  # every fifth image chooses the threshold, of those with marks and of the others


@dataclass(frozen=True)
class MarkedImage:
    """An image that people have answered.

    Args:
        path: Image file.
        mark: Mark; empty if there is nothing to mark.
        size: Width and height of the image.
        split: Split of the manifest.
    """

    path: Path
    mark: Patch
    size: tuple[int, int]
    split: str = "train"

    @property
    def is_marked(self) -> bool:
        """Whether there is a mark."""
        return bool(self.mark.bits.any())

    @property
    def mask(self) -> Mask:
        """(h, w) mark, made anew: the masks of all images are larger than the memory."""
        return self.mark.whole(*self.size)


@dataclass(frozen=True)
class LabelTeacher:
    """A trained model with its threshold.

    Args:
        model: Model folder.
        threshold: Probability above which a pixel is proposed.
        agreement: Mean overlap (intersection ÷ union) with people's marks at this threshold, on
            images that the mapper was not taught; None if none of them is marked.
        images: Number of images that it was taught; 0 = not known.
        method: Maps: cells (probability of a mark, of a mapper) or cam (of a classifier; nothing is
            proposed where it does not predict its positive class).
    """

    model: Path
    threshold: float
    agreement: float | None
    images: int
    method: Literal["cells", "cam"] = "cells"


@dataclass(frozen=True)
class Proposed:
    """Proposed mark of an image.

    Args:
        path: Image file.
        mask: (h, w) proposed mark.
        score: Probability of a mark, the model's score of the image.
    """

    path: Path
    mask: Mask
    score: float


def teach(
    images: Sequence[MarkedImage],
    folder: Path,
    config: TeacherConfig,
    *,
    tell: Callable[[str], None] | None = None,
) -> LabelTeacher:
    """Train a mapper on people's marks.

    Images of validation splits are never taught; they choose the threshold. Without any, every
    fifth image of the training split does, and is not taught either.

    Args:
        images: Answered images of training and validation splits.
        folder: Working folder: manifest, maps, runs.
        config: Settings.
        tell: Function that receives lines of progress.

    Raises:
        InputError: There are fewer than two images with marks and two without, or the settings are
            invalid.
    """
    taught, held = _parts(images)
    counts = [sum(one.is_marked for one in part) for part in (taught, held)]
    if counts[0] < 2 or len(taught) - counts[0] < 2:
        raise InputError(
            f"a Teacher needs 2 training images with marks and 2 with nothing to mark; there are "
            f"{counts[0]} and {len(taught) - counts[0]}; mark more images"
        )
    manifest = _write_manifest(taught, held, folder)
    workspace = Workspace(Manifest.read(manifest, verify=False, need=("train", "val")), folder)
    found = train(config.run(manifest), folder / "runs", workspace=workspace, tell=tell)
    model = load_model(found.folder / "model")
    threshold, agreement = _chosen_threshold(model, held, folder, "cells")
    return LabelTeacher(found.folder / "model", threshold, agreement, len(taught))


def given_teacher(
    folder: Path, images: Sequence[MarkedImage], cache: Path, method: Literal["cells", "cam"]
) -> LabelTeacher:
    """A model that was trained elsewhere, with a threshold chosen on people's marks so far.

    Args:
        folder: Model folder.
        images: Answered images; without any mark, the threshold is 0.5.
        cache: Folder of the image cache.
        method: Maps, see `LabelTeacher`.

    Raises:
        InputError: The folder has no model, or the model has no positive class.
    """
    model = load_model(folder)
    if model.spec.positive is None:
        raise InputError(f"{folder}: the model has no positive class, whose maps could be proposed")
    threshold, agreement = _chosen_threshold(model, images, cache, method)
    return LabelTeacher(folder, threshold, agreement, 0, method)


def _chosen_threshold(
    model: GuidedModel,
    images: Sequence[MarkedImage],
    cache: Path,
    method: Literal["cells", "cam"],
) -> tuple[float, float | None]:
    """Threshold with the highest mean overlap on marked images, and that overlap."""
    marked = [one for one in images if one.is_marked]
    if not marked:
        return THRESHOLDS[len(THRESHOLDS) // 2], None
    overlaps = np.zeros(len(THRESHOLDS))
    maps = _maps(model, [one.path for one in marked], cache, method)
    for one, (over, _) in zip(marked, maps, strict=True):
        mask = one.mask
        overlaps += [overlap(mask, over >= level) for level in THRESHOLDS]
    return THRESHOLDS[int(overlaps.argmax())], float(overlaps.max()) / len(marked)


def propose(teacher: LabelTeacher, paths: Sequence[Path], cache: Path) -> Iterator[Proposed]:
    """Proposals of a Teacher.

    Args:
        teacher: Teacher.
        paths: Image files.
        cache: Folder of the image cache.
    """
    model = load_model(teacher.model)
    maps = _maps(model, paths, cache, teacher.method)
    for path, (over, score) in zip(paths, maps, strict=True):
        yield Proposed(path, over >= teacher.threshold, score)


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks; 1 if both are empty.

    Example:
        >>> overlap(np.array([True, True, False]), np.array([True, False, False]))
        0.5
    """
    union = int((one | other).sum())
    return 1.0 if not union else int((one & other).sum()) / union


def _parts(images: Sequence[MarkedImage]) -> tuple[list[MarkedImage], list[MarkedImage]]:
    """Images that are taught, and images that choose the threshold."""
    train_images = [one for one in images if one.split == "train"]
    held = [one for one in images if kind_or_none(one.split) == "val"]
    if any(one.is_marked for one in held) and not all(one.is_marked for one in held):
        return train_images, held
    parts: dict[bool, list[MarkedImage]] = {False: [], True: []}
    for marked in (True, False):
        own = [one for one in train_images if one.is_marked == marked]
        for place, one in enumerate(own):
            parts[place % _HELD_OUT == _HELD_OUT - 1].append(one)
    return parts[False], parts[True]


def _write_manifest(
    taught: Sequence[MarkedImage], held: Sequence[MarkedImage], folder: Path
) -> Path:
    """Manifest of the marks, whose maps are PNG files at image size."""
    maps = folder / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str, str, bool]] = []
    parts: list[tuple[Literal["train", "val"], Sequence[MarkedImage]]] = [
        ("train", taught),
        ("val", held),
    ]
    for split, images in parts:
        for one in images:
            file = ""
            if one.is_marked:
                file = f"maps/{len(rows):06}.png"
                Image.fromarray(one.mask.astype(np.uint8) * 255).save(folder / file)
            label = MARKED if file else NOTHING
            rows.append((str(one.path), label, split, file, True))
    columns = ["path", "label", "split", "saliency", "annotated"]
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows, columns=columns).to_csv(manifest, index=False)
    return manifest


def _maps(
    model: GuidedModel, paths: Sequence[Path], cache: Path, method: Literal["cells", "cam"]
) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Map over each image, and the score of the positive class."""
    table = pd.DataFrame({"path": [str(one) for one in paths], "split": "train"})
    table["label"] = model.spec.positive  # whose maps and scores are asked for
    workspace = Workspace(Manifest.from_frame(table, cache, need=()), cache)
    found = compute_maps(
        model,
        workspace,
        np.arange(len(table)),
        method,
        cam_class="decision" if method == "cam" else "label",
    )
    for path, grid, score in zip(paths, found.maps, found.scores, strict=True):
        over = map_over_image(np.asarray(grid, np.float32), found.info, image_size(path))
        if method == "cam" and score < 0.5:
            over = np.zeros_like(over)
        yield over, float(score)
