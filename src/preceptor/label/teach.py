"""Teacher of the marking page: a mapper taught the marks so far, or a given model.

The labels of the images are not used: an image is positive if it has a mark. A proposal is the set
of pixels with a probability of a mark above a threshold: the one with the highest mean overlap with
people's marks, on images that the mapper was not taught.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from preceptor.annotations.export import map_over_image
from preceptor.config.files import load_config
from preceptor.data.examine import examine
from preceptor.data.images import ImageError, image_size
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, PreceptorError
from preceptor.inference.annotate import compute_maps
from preceptor.label.db import Connection, connect, read_settings, told_errors
from preceptor.label.images import find_problem, look_again, write_problem
from preceptor.label.marks import Patch, bounding_runs, masks_of, newest_event, union
from preceptor.label.queue import Proposal, add_teacher, write_proposals
from preceptor.label.sources import root_of
from preceptor.label.teacher import MARKED, NOTHING, TeacherConfig
from preceptor.metrics.split_names import kind_or_none
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model
from preceptor.training.run import train
from preceptor.utils.files import failed_write, named_errors

Mask = NDArray[np.bool_]
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_HELD_OUT = 5  # every fifth image chooses the threshold, of those with marks and of the others


@dataclass(frozen=True)
class MarkedImage:
    """An image that people have answered."""

    path: Path
    mark: Patch  # mark; empty if there is nothing to mark
    size: tuple[int, int]  # width and height of the image
    split: str = "train"  # split of the manifest

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
    """A trained model with its threshold."""

    model: Path  # model folder
    threshold: float  # probability above which a pixel is proposed
    agreement: float | None
    images: int  # number of images that it was taught; 0 = not known
    method: Literal["cells", "cam"] = "cells"


@dataclass(frozen=True)
class Proposed:
    """Proposed mark of an image."""

    path: Path
    mask: Mask
    score: float  # probability of a mark, the model's score of the image


def teach(
    images: Sequence[MarkedImage],
    folder: Path,
    config: TeacherConfig,
    *,
    tell: Callable[[str], None] | None = None,
) -> LabelTeacher:
    """Train a mapper on people's marks."""
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
    """A model that was trained elsewhere, with a threshold chosen on people's marks so far."""
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
    """Proposals of a Teacher."""
    model = load_model(teacher.model)
    maps = _maps(model, paths, cache, teacher.method)
    for path, (over, score) in zip(paths, maps, strict=True):
        yield Proposed(path, over >= teacher.threshold, score)


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
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


_NICE = 15  # of a training beside the page, which must not slow it
_AT_ONCE = 200  # images of a commit, so that the first proposals are there early


def teach_database(
    database: Path,
    folder: Path,
    config: TeacherConfig,
    *,
    most: int = 5000,
    tell: Callable[[str], None] = print,
) -> LabelTeacher:
    """Train a Teacher on the marks so far, and store its proposals for images without an answer."""
    with (
        closing(connect(database)) as connection,
        told_errors(database),
        named_errors(folder),
    ):
        root = root_of(connection, database)
        event = newest_event(connection)
        images = _answered_now(connection, root)
        work = folder / f"teacher-{len(images)}"
        shutil.rmtree(work, ignore_errors=True)
        tell(f"training a Teacher on {len(images):,} images")
        teacher = teach(images, work, config, tell=tell)
        _publish(connection, root, teacher, event, work, most, tell)
    return teacher


def teach_in_child(database: str, folder: str, config: str | None) -> None:
    """Train a Teacher in a process of its own, see `start_child` in `label.teacher`."""
    with _as_child():
        settings = TeacherConfig() if config is None else load_config(Path(config), TeacherConfig)
        teach_database(Path(database), Path(folder), settings)


def propose_in_child(
    database: str, folder: str, model: str, method: Literal["cells", "cam"]
) -> None:
    """Store proposals of a given model in a process of low priority, as `teach_in_child`."""
    with _as_child():
        propose_with(Path(database), Path(folder), Path(model), method)


@contextmanager
def _as_child() -> Iterator[None]:
    """Low priority; a user's error is one line, with exit code 1."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICE)
    try:
        yield
    except PreceptorError as error:
        print(f"Teacher: {error}", flush=True)
        raise SystemExit(1) from None
    except OSError as error:
        print(f"Teacher: {failed_write(error, Path())}", flush=True)
        raise SystemExit(1) from None


def propose_with(
    database: Path,
    folder: Path,
    model: Path,
    method: Literal["cells", "cam"],
    *,
    most: int = 5000,
    tell: Callable[[str], None] = print,
) -> LabelTeacher:
    """Store proposals of a model that was trained elsewhere."""
    with (
        closing(connect(database)) as connection,
        told_errors(database),
        named_errors(folder),
    ):
        root = root_of(connection, database)
        event = newest_event(connection)
        teacher = given_teacher(model, _answered_now(connection, root), folder, method)
        _publish(connection, root, teacher, event, folder, most, tell)
    return teacher


def answered_images(connection: Connection, root: Path) -> Iterator[MarkedImage]:
    """Images of training and validation splits that people have judged."""
    rows = connection.execute(
        "SELECT id, path, split, group_concat(person) AS people FROM images JOIN answers "
        "ON answers.image = images.id WHERE state IN ('marked', 'nothing') "
        "AND listed = 1 AND problem IS NULL AND (split IN ('', 'train', 'val') "
        "OR split LIKE 'val-%') GROUP BY id ORDER BY id"
    ).fetchall()
    for row in rows:
        path = root / row["path"]
        people = [int(one) for one in row["people"].split(",")]
        mark = marked_by_half(connection, row["id"], people)
        yield MarkedImage(path, mark, image_size(path), row["split"] or "train")


def _answered_now(connection: Connection, root: Path) -> list[MarkedImage]:
    """Answered images, without those whose file was replaced or damaged since."""
    connection.execute("BEGIN IMMEDIATE")
    look_again(connection, root)
    connection.execute("COMMIT")
    return list(answered_images(connection, root))


def marked_by_half(connection: Connection, image: int, people: list[int]) -> Patch:
    """Pixels that at least half of some people marked, in any class."""
    marks = [union(masks_of(connection, image, person).values()) for person in people]
    whole = union(marks)
    votes = np.zeros(whole.bits.shape, np.uint16)
    for one in marks:
        y, x = one.y - whole.y, one.x - whole.x
        votes[y : y + one.bits.shape[0], x : x + one.bits.shape[1]] += one.bits
    found = 2 * votes.astype(np.int64) >= len(people)
    return Patch(whole.x, whole.y, found & (votes > 0))


def _publish(
    connection: Connection,
    root: Path,
    teacher: LabelTeacher,
    event: int,
    cache: Path,
    most: int,
    tell: Callable[[str], None],
) -> None:
    """Store a Teacher and its proposals, the first of the queue first."""
    number = _store(connection, teacher, event)
    made = 0
    opened = _open_images(connection, root, most)
    for start in range(0, len(opened), _AT_ONCE):
        made += _propose(connection, number, teacher, opened[start : start + _AT_ONCE], cache)
    least = read_settings(connection).least_overlap
    tell(f"Teacher {number}: {made:,} proposals; {_words(teacher.agreement, least)}")


def _open_images(connection: Connection, root: Path, most: int) -> list[tuple[int, Path]]:
    """Images that receive proposals: number and file."""
    settings = read_settings(connection)
    rows = connection.execute(
        "SELECT id, path FROM images WHERE listed = 1 AND problem IS NULL "
        "AND places > 0 AND (? OR split IN ('', 'train')) "
        "ORDER BY position LIMIT ?",
        (settings.proposals_on_evaluation, most),
    )
    images = ((row["id"], root / row["path"]) for row in rows)
    return [image for image in images if image[1].is_file()]


def _store(connection: Connection, teacher: LabelTeacher, event: int) -> int:
    model, images = str(teacher.model), teacher.images
    connection.execute("BEGIN IMMEDIATE")
    number = add_teacher(connection, model, images, teacher.agreement, event=event)
    connection.execute("COMMIT")
    return number


def _propose(
    connection: Connection,
    number: int,
    teacher: LabelTeacher,
    images: list[tuple[int, Path]],
    cache: Path,
) -> int:
    """Store the proposals for some images; returns their number."""
    try:
        proposals = _proposed(teacher, images, cache)
    except ImageError:  # of one image: the others have proposals nevertheless
        images = _without_damaged(connection, images)
        proposals = _proposed(teacher, images, cache) if images else []
    connection.execute("BEGIN IMMEDIATE")
    write_proposals(connection, number, proposals)
    connection.execute("COMMIT")
    return sum(proposal.w > 0 for proposal in proposals)


def _proposed(teacher: LabelTeacher, images: list[tuple[int, Path]], cache: Path) -> list[Proposal]:
    """Proposals for some images, encoded one by one."""
    proposed = propose(teacher, [path for _, path in images], cache)
    return [
        Proposal(image, *(bounding_runs(one.mask) or (0, 0, 0, 0, b"")), one.score)
        for (image, _), one in zip(images, proposed, strict=True)
    ]


def _without_damaged(
    connection: Connection, images: list[tuple[int, Path]]
) -> list[tuple[int, Path]]:
    """Images that can be decoded; why the others cannot be shown is stored."""
    paths = [str(path) for _, path in images]
    found = examine(paths, [""] * len(paths))
    connection.execute("BEGIN IMMEDIATE")
    for image, path in (images[at] for at in found.wrong_images):
        problem = find_problem(path)
        if problem is not None:  # it could be read this time
            write_problem(connection, image, path, problem)
    connection.execute("COMMIT")
    return [one for at, one in enumerate(images) if at not in found.wrong_images]


def _words(agreement: float | None, least: float) -> str:
    if agreement is None:
        return "no mark was held out, so that its agreement with people is not known"
    shown = f", below --least-overlap {least:.2f}: they are not shown" if agreement < least else ""
    return f"overlap with held-out marks {agreement:.2f}{shown}"
