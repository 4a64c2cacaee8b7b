"""Teacher of the page, beside its server: a mapper taught the marks so far, or a given model.

The labels of the images are not used: an image is positive if it has a mark. A proposal is the set
of pixels with a probability of a mark above a threshold: the one with the highest mean overlap with
people's marks, on images that the mapper was not taught.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from preceptor.config.files import load_config
from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.settings import Count, Settings, Weights
from preceptor.config.training import Training
from preceptor.data.images import ImageError, image_size
from preceptor.errors import InputError, PreceptorError
from preceptor.label.db import Connection, connect, read_settings, told_errors
from preceptor.label.images import find_problem, look_again, write_problem
from preceptor.label.marks import Bits, Patch, bounding_runs, marked_by_half, masks_of, union
from preceptor.label.queue import Proposal, add_teacher, write_proposals
from preceptor.label.sources import root_of
from preceptor.metrics.split_names import kind_or_none
from preceptor.utils.files import failed_write, named_errors
from preceptor.utils.process import call_in_child

if TYPE_CHECKING:  # torch is imported in the processes of Teachers alone
    from preceptor.models.guided_model import GuidedModel

MARKED, NOTHING = "marked", "nothing"
"""Classes of the mapper: images with marks, and examined images without."""


class TeacherConfig(Settings):
    """Settings of the Teacher of the marking page.

    Args:
        every: Number of new answers after which a new Teacher is trained.
        backbone: Name of a timm backbone.
        weights: Initial weights: hub, none or a .safetensors file.
        backbone_args: Further arguments of the backbone.
        training: Training settings; by default 400 steps of 16 images with AdamW, and a one-cycle
            schedule up to a learning rate of 0.001.
        seed: Random seed.
    """

    every: Count = 20
    backbone: str = "resnet18"
    weights: Weights = "hub"
    backbone_args: Mapping[str, Any] = {}
    training: Training = Training(
        length="steps",
        epochs=4,
        steps=400,
        batch_size=16,
        optimizer="adamw",
        lr=1e-3,
        schedule="one_cycle",
        checkpoint="last",
    )
    seed: Annotated[int, Field(ge=0)] = 0

    def run(self, manifest: Path) -> RunConfig:
        """Config of the training of the mapper."""
        return RunConfig(
            manifest=manifest,
            backbone=self.backbone,
            weights=self.weights,
            backbone_args=self.backbone_args,
            positive=MARKED,
            rows="annotated",
            labels="marks",
            alpha=0.0,
            maps=MapSource(kind="human"),
            training=self.training.of_mapper(),
            seed=self.seed,
        )


_INTERVAL = 2.0  # seconds between two counts of the answers
_COUNT = "SELECT count(*) FROM answers WHERE state IN ('marked', 'nothing')"


def start_teacher(
    database: Path, teacher: str | None, config: Path | None, method: Literal["cells", "cam"]
) -> Callable[[], None]:
    """Start what proposes marks beside a server; returns the function that ends it.

    Args:
        teacher: auto, a model folder, or None.
        method: Maps of a model folder, see `LabelTeacher`.
    """
    folder = database.with_name(f"{database.name.removesuffix('.label.sqlite')}.teachers")
    if teacher is None:
        return lambda: None
    if teacher != "auto":
        if not (Path(teacher) / "model.json").is_file():
            raise InputError(f"--teacher {teacher}: it has no model; name a model folder, or auto")
        child = start_child("propose_in_child", str(database), str(folder), teacher, method)
        return child.terminate
    every = (TeacherConfig() if config is None else load_config(config, TeacherConfig)).every
    auto = AutoTeacher(database, folder, config, every)
    auto.start()
    return auto.close


class AutoTeacher:
    """Thread that starts a training process at low priority after every so many answers.

    One Teacher is trained at a time. A training that fails, for instance since there are too few
    marks, is tried again after as many further answers.
    """

    def __init__(
        self,
        database: Path,
        folder: Path,
        config: Path | None,
        every: int,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._work = (str(database), str(folder), None if config is None else str(config))
        self._database, self._every, self._tell = database, every, tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="auto-teacher", daemon=True)

    def start(self) -> None:
        """Begin to count answers."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and a training that runs."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with closing(connect(self._database, readonly=True)) as connection:
            of_newest = f"{_COUNT} AND event <= (SELECT max(event) FROM teachers)"
            (tried,) = connection.execute(of_newest).fetchone()
            training: BaseProcess | None = None
            while not self._stop.wait(_INTERVAL):
                if training is not None and not training.is_alive():
                    if training.exitcode:
                        self._tell(f"no new Teacher (exit code {training.exitcode}); see above")
                    training = None
                (answers,) = connection.execute(_COUNT).fetchone()
                if training is None and answers - tried >= self._every:
                    tried = answers
                    training = start_child("teach_in_child", *self._work)
            if training is not None:
                training.terminate()
                training.join()


def start_child(function: str, *arguments: str | None) -> BaseProcess:
    """Start a function of this module in a process that ends with this one."""
    child = multiprocessing.get_context("spawn").Process(
        target=call_in_child, args=(__name__, function, *arguments), daemon=True
    )
    child.start()
    return child


def teach_in_child(database: str, folder: str, config: str | None) -> None:
    """Train a Teacher in a process of its own."""
    with _as_child():
        settings = TeacherConfig() if config is None else load_config(Path(config), TeacherConfig)
        teach_database(Path(database), Path(folder), settings)


def propose_in_child(
    database: str, folder: str, model: str, method: Literal["cells", "cam"]
) -> None:
    """Store proposals of a given model in a process of its own."""
    with _as_child():
        propose_with(Path(database), Path(folder), Path(model), method)


@contextmanager
def _as_child() -> Iterator[None]:
    """Low priority; a user's error is one line, with exit code 1."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(15)
    try:
        yield
    except (PreceptorError, OSError) as error:
        reason = failed_write(error, Path()) if isinstance(error, OSError) else error
        print(f"Teacher: {reason}", flush=True)
        raise SystemExit(1) from None


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
    def mask(self) -> Bits:
        """(h, w) mark, made anew: the masks of all images are larger than the memory."""
        return self.mark.whole(*self.size)


@dataclass(frozen=True)
class LabelTeacher:
    """A trained model with its threshold."""

    model: Path  # model folder
    threshold: float  # probability above which a pixel is proposed
    agreement: float | None  # mean IoU with people's marks of images that it was not taught
    images: int  # number of images that it was taught; 0 = not known
    # Probabilities of a mark, of a mapper, or maps of a classifier where it predicts its class.
    method: Literal["cells", "cam"] = "cells"


def teach(
    images: Sequence[MarkedImage],
    folder: Path,
    config: TeacherConfig,
    *,
    tell: Callable[[str], None] | None = None,
) -> LabelTeacher:
    """Train a mapper on people's marks.

    Images of validation splits choose the threshold. Without any, every fifth image of the training
    split does, and is not taught either.
    """
    from preceptor.data.manifest import Manifest
    from preceptor.data.workspace import Workspace
    from preceptor.models.build import load_model
    from preceptor.training.run import train

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
    from preceptor.models.build import load_model

    model = load_model(folder)
    if model.spec.positive is None:
        raise InputError(f"{folder}: the model has no positive class, whose maps could be proposed")
    threshold, agreement = _chosen_threshold(model, images, cache, method)
    return LabelTeacher(folder, threshold, agreement, 0, method)


def _chosen_threshold(
    model: GuidedModel, images: Sequence[MarkedImage], cache: Path, method: Literal["cells", "cam"]
) -> tuple[float, float | None]:
    """Threshold with the highest mean overlap on marked images, and that overlap."""
    marked = [one for one in images if one.is_marked]
    if not marked:
        return THRESHOLDS[len(THRESHOLDS) // 2], None
    overlaps = np.zeros(len(THRESHOLDS))
    maps = _maps(model, [one.path for one in marked], cache, method)
    for mask, (over, _) in zip((one.mask for one in marked), maps, strict=True):
        overlaps += [overlap(mask, over >= level) for level in THRESHOLDS]
    return THRESHOLDS[int(overlaps.argmax())], float(overlaps.max()) / len(marked)


def propose(
    teacher: LabelTeacher, paths: Sequence[Path], cache: Path
) -> Iterator[tuple[Bits, float]]:
    """Proposed mask of each image, (h, w), and the model's score of it."""
    from preceptor.models.build import load_model

    for over, score in _maps(load_model(teacher.model), paths, cache, teacher.method):
        yield over >= teacher.threshold, score


def overlap(one: Bits, other: Bits) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    size = int((one | other).sum())
    return int((one & other).sum()) / size if size else 1.0


def _parts(images: Sequence[MarkedImage]) -> tuple[list[MarkedImage], list[MarkedImage]]:
    """Images that are taught, and images that choose the threshold."""
    train_images = [one for one in images if one.split == "train"]
    held = [one for one in images if kind_or_none(one.split) == "val"]
    if any(one.is_marked for one in held) and not all(one.is_marked for one in held):
        return train_images, held
    kinds = [[one for one in train_images if one.is_marked == marked] for marked in (True, False)]
    chosen = [one for images in kinds for one in images[_HELD_OUT - 1 :: _HELD_OUT]]
    taught = [one for images in kinds for at, one in enumerate(images, 1) if at % _HELD_OUT]
    return taught, chosen


def _write_manifest(
    taught: Sequence[MarkedImage], held: Sequence[MarkedImage], folder: Path
) -> Path:
    """Manifest of the marks, whose maps are PNG files at image size."""
    import pandas as pd

    (folder / "maps").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str, str, bool]] = []
    for split, images in (("train", taught), ("val", held)):
        for one in images:
            file = f"maps/{len(rows):06}.png" if one.is_marked else ""
            if file:
                Image.fromarray(one.mask.astype(np.uint8) * 255).save(folder / file)
            rows.append((str(one.path), MARKED if file else NOTHING, split, file, True))
    columns = ["path", "label", "split", "saliency", "annotated"]
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows, columns=columns).to_csv(manifest, index=False)
    return manifest


def _maps(
    model: GuidedModel, paths: Sequence[Path], cache: Path, method: Literal["cells", "cam"]
) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Map over each image, and the score of the positive class."""
    import pandas as pd

    from preceptor.annotations.export import map_over_image
    from preceptor.data.manifest import Manifest
    from preceptor.data.workspace import Workspace
    from preceptor.inference.annotate import compute_maps

    table = pd.DataFrame({"path": [str(one) for one in paths], "split": "train"})
    table["label"] = model.spec.positive  # whose maps and scores are asked for
    workspace = Workspace(Manifest.from_frame(table, cache, need=()), cache)
    cam_class: Literal["decision", "label"] = "decision" if method == "cam" else "label"
    maps = compute_maps(model, workspace, np.arange(len(table)), method, cam_class=cam_class)
    for path, grid, score in zip(paths, maps.maps, maps.scores, strict=True):
        over = map_over_image(np.asarray(grid, np.float32), maps.info, image_size(path))
        if method == "cam" and score < 0.5:
            over = np.zeros_like(over)
        yield over, float(score)


_AT_ONCE = 200  # images of a commit, so that the first proposals are there early


def teach_database(
    database: Path,
    folder: Path,
    config: TeacherConfig,
    *,
    most: int = 5000,
    tell: Callable[[str], None] = print,
) -> LabelTeacher:
    """Train a Teacher on the marks so far, and store its proposals for images without an answer.

    Proposals are made for the first `most` images of the queue, of training splits unless the
    settings say otherwise. A server may use the database at the same time.
    """

    def train_on(images: list[MarkedImage]) -> LabelTeacher:
        work = folder / f"teacher-{len(images)}"
        shutil.rmtree(work, ignore_errors=True)
        tell(f"training a Teacher on {len(images):,} images")
        return teach(images, work, config, tell=tell)

    return _publish(database, folder, train_on, most, tell)


def propose_with(
    database: Path,
    folder: Path,
    model: Path,
    method: Literal["cells", "cam"],
    *,
    most: int = 5000,
    tell: Callable[[str], None] = print,
) -> LabelTeacher:
    """Store proposals of a model that was trained elsewhere, see `teach_database`."""
    return _publish(
        database, folder, lambda images: given_teacher(model, images, folder, method), most, tell
    )


def answered_images(connection: Connection, root: Path) -> Iterator[MarkedImage]:
    """Images of training and validation splits that people have judged.

    Of several people, a pixel is marked if at least half of them marked it.
    """
    rows = connection.execute(
        "SELECT id, path, split, group_concat(person) AS people FROM images JOIN answers "
        "ON answers.image = images.id WHERE state IN ('marked', 'nothing') "
        "AND listed = 1 AND problem IS NULL AND (split IN ('', 'train', 'val') "
        "OR split LIKE 'val-%') GROUP BY id ORDER BY id"
    ).fetchall()
    for row in rows:
        path = root / row["path"]
        people = [int(one) for one in row["people"].split(",")]
        marks = [union(masks_of(connection, row["id"], person).values()) for person in people]
        yield MarkedImage(path, marked_by_half(marks), image_size(path), row["split"] or "train")


def _publish(
    database: Path,
    folder: Path,
    make: Callable[[list[MarkedImage]], LabelTeacher],
    most: int,
    tell: Callable[[str], None],
) -> LabelTeacher:
    """Make a Teacher of the answers so far; store it and its proposals, in the order of the queue.

    Answers whose file was replaced or damaged since are left out.
    """
    with closing(connect(database)) as connection, told_errors(database), named_errors(folder):
        root, settings = root_of(connection, database), read_settings(connection)
        (event,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        with _transaction(connection):
            look_again(connection, root)
        teacher = make(list(answered_images(connection, root)))
        with _transaction(connection):
            number = add_teacher(
                connection, str(teacher.model), teacher.images, teacher.agreement, event=event
            )
        rows = connection.execute(
            "SELECT id, path FROM images WHERE listed = 1 AND problem IS NULL "
            "AND places > 0 AND (? OR split IN ('', 'train')) "
            "ORDER BY position LIMIT ?",
            (settings.proposals_on_evaluation, most),
        ).fetchall()
        images = [(row["id"], root / row["path"]) for row in rows]
        images = [one for one in images if one[1].is_file()]
        made = 0
        for start in range(0, len(images), _AT_ONCE):
            proposals = _proposals(connection, teacher, images[start : start + _AT_ONCE], folder)
            with _transaction(connection):
                write_proposals(connection, number, proposals)
            made += sum(one.w > 0 for one in proposals)
        words = "no mark was held out, so that its agreement with people is not known"
        if teacher.agreement is not None:
            words = f"overlap with held-out marks {teacher.agreement:.2f}"
            least = settings.least_overlap
            if teacher.agreement < least:
                words += f", below --least-overlap {least:.2f}: they are not shown"
        tell(f"Teacher {number}: {made:,} proposals; {words}")
    return teacher


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def _proposals(
    connection: Connection, teacher: LabelTeacher, images: list[tuple[int, Path]], cache: Path
) -> list[Proposal]:
    """Proposals for some images; why damaged ones among them cannot be shown is stored."""
    from preceptor.data.store import examine

    def proposed() -> list[Proposal]:
        marks = propose(teacher, [path for _, path in images], cache)
        return [
            Proposal(image, *(bounding_runs(mask) or (0, 0, 0, 0, b"")), score)
            for (image, _), (mask, score) in zip(images, marks, strict=True)
        ]

    try:
        return proposed()
    except ImageError:  # of one image: the others have proposals nevertheless
        paths = [str(path) for _, path in images]
        wrong = examine(paths, [""] * len(paths)).wrong_images
        with _transaction(connection):
            for image, path in (images[at] for at in wrong):
                if problem := find_problem(path):  # else it could be read this time
                    write_problem(connection, image, path, problem)
        images = [one for at, one in enumerate(images) if at not in wrong]
        return proposed() if images else []
