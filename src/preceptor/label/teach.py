"""Training of a Teacher on the marks of a database, its proposals."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from preceptor.config.yaml_file import load_config
from preceptor.data.decode_pass import DecodePass
from preceptor.data.images import ImageError, image_size
from preceptor.errors import PreceptorError
from preceptor.label.database import Connection, connect, told_errors
from preceptor.label.events import newest_event
from preceptor.label.image_files import look_again, write_problem
from preceptor.label.intake import root_of
from preceptor.label.pictures import find_problem
from preceptor.label.proposals import Proposal, add_teacher, write_proposals
from preceptor.label.runs import bounding_runs
from preceptor.label.settings import read_settings
from preceptor.label.strokes import Patch, masks_of, union
from preceptor.label.teacher import (
    LabelTeacher,
    MarkedImage,
    given_teacher,
    propose,
    teach,
)
from preceptor.label.teacher_config import TeacherConfig
from preceptor.runtime.failed_writes import failed_write, named_errors

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
    """Train a Teacher on the marks so far, and store its proposals for images without an answer.

    Only images of training and validation splits are used. Proposals are made for training images,
    and for those of other splits if the settings of the database say so. A server may use the
    database at the same time.

    Args:
        database: SQLite file.
        folder: Folder of the Teachers, in which one is made.
        config: Settings of the Teacher.
        most: Largest number of images that receive proposals, the first ones of the queue.
        tell: Function that receives lines of progress.

    Raises:
        InputError: There are too few marks, or the settings are invalid.
        OSError, RunFailedError: The folder or the database cannot be written.
    """
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
    """Train a Teacher in a process of its own, see `start_child` in `label.auto_teacher`.

    Args:
        database, folder: Arguments of `teach_database`.
        config: Settings of the Teacher (YAML); None = defaults.
    """
    with _as_child():
        settings = TeacherConfig() if config is None else load_config(Path(config), TeacherConfig)
        teach_database(Path(database), Path(folder), settings)


def propose_in_child(
    database: str, folder: str, model: str, method: Literal["cells", "cam"]
) -> None:
    """Store proposals of a given model in a process of low priority, as `teach_in_child`.

    Args:
        database, folder, model, method: Arguments of `propose_with`.
    """
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
    """Store proposals of a model that was trained elsewhere.

    Args:
        database: SQLite file.
        folder: Folder of caches.
        model: Model folder.
        method: Maps: cells, of a mapper, or cam, of a classifier.
        most, tell: Arguments of `teach_database`.

    Raises:
        InputError: The folder has no model that can propose.
        OSError, RunFailedError: The folder or the database cannot be written.
    """
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
    """Images that people have marked or found to have nothing to mark, of training and validation.

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
        mark = marked_by_half(connection, row["id"], people)
        yield MarkedImage(path, mark, image_size(path), row["split"] or "train")


def _answered_now(connection: Connection, root: Path) -> list[MarkedImage]:
    """Answered images, without those whose file was replaced or damaged since."""
    connection.execute("BEGIN IMMEDIATE")
    look_again(connection, root)
    connection.execute("COMMIT")
    return list(answered_images(connection, root))


def marked_by_half(connection: Connection, image: int, people: list[int]) -> Patch:
    """Pixels that at least half of some people marked, in any class.

    Args:
        connection: Connection.
        image: Number of the image.
        people: Numbers of the people.
    """
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
    """Store a Teacher and its proposals, the first of the queue first.

    `event` is the latest one before its answers were read.
    """
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
    with DecodePass() as decoding:
        found = decoding.decode(paths, [""] * len(paths), progress=lambda done, total: None)
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
