"""Simulated marking: people who mark from known maps, through the server, with a Teacher's help.

Everything but the people is real: the server is the command `preceptor label` in a process of its
own, strokes and answers go through HTTP into the database, and Teachers are trained on what is
there. Time is not waited for, but counted by the stated costs. A Teacher is trained after every so
many answers and used from then on, so that the result does not depend on the speed of the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from preceptor.data.images import decode_map, image_size
from preceptor.data.locations.location import is_local
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError, RunFailedError
from preceptor.label.annotator_config import AnnotatorConfig
from preceptor.label.client import ClientError, LabelClient
from preceptor.label.database import connect
from preceptor.label.runs import decode_runs, from_text
from preceptor.label.settings import Order, ProposalsMode
from preceptor.label.simulated_annotator import (
    Stroke,
    intended_mark,
    mark,
    mark_after,
)
from preceptor.label.simulation_log import SimulatedAnswer, SimulationLog
from preceptor.label.strokes import Patch
from preceptor.label.teach import teach_database
from preceptor.label.teacher import Mask, overlap
from preceptor.label.teacher_config import TeacherConfig
from preceptor.runtime.failed_writes import named_errors
from preceptor.runtime.new_folder import clear, new_folder
from preceptor.runtime.relative_paths import RelativePaths
from preceptor.runtime.result_folder import digest
from preceptor.runtime.tied_command import start_tied
from preceptor.version import __version__

CLASS = "evidence"
_KNOWN = ("path", "label", "saliency")


class _Known(NamedTuple):
    label: str
    saliency: str


class _Row(NamedTuple):
    """The fields of `SimulatedAnswer` from seconds to overlap."""

    seconds: float
    strokes: int
    proposed: bool
    adopted: bool
    proposal_overlap: float
    overlap: float


class _Work(NamedTuple):
    row: _Row
    has_marks: bool
    proposal: int | None


@dataclass(frozen=True)
class Simulation:
    """Settings of simulated marking.

    Args:
        images: Number of answers in all.
        people: Names of the people, who take turns.
        order: Order of the images.
        proposals: When a proposal is shown.
        teacher: Settings of the Teachers; None = no Teacher is trained.
        least_overlap: Overlap with people's marks from which a Teacher's proposals are shown.
        annotator: Costs of the work, and deviation of the marks from the known ones.
        seed: Random seed of the order and of the deviations. The deviation of an image does not
            depend on the order, so that two simulations can be compared image by image.
    """

    images: int = 40
    people: tuple[str, ...] = ("simulated",)
    order: Order = "random"
    proposals: ProposalsMode = "never"
    teacher: TeacherConfig | None = None
    least_overlap: float = 0.6
    annotator: AnnotatorConfig = field(default_factory=AnnotatorConfig)
    seed: int = 0


def simulate(
    manifest: Path,
    folder: Path,
    settings: Simulation,
    *,
    tell: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Mark images of a manifest by simulated people.

    Training images that a person examined are marked, since the marks of others are not known; the
    manifest of the database has the images of the other splits as well.

    Args:
        manifest: Manifest with human maps.
        folder: New folder: manifest without maps, database, Teachers, simulation.csv; or that of
            the same simulation that was interrupted, which is resumed at its last answer.
        settings: Settings.
        tell: Function that receives lines of progress.

    Returns:
        The rows of simulation.csv, see `SimulatedAnswer`.

    Raises:
        InputError: The manifest has no examined training images, or the folder is not empty.
        OSError, RunFailedError: The folder cannot be written. It is then removed, as after any
            error; an interruption leaves it.
    """
    table = Manifest.read(manifest, verify=False, need=()).table
    of_training = table["split"].isin(["", "train"])
    table = table[table["annotated"] | ~of_training]
    if not of_training[table.index].any():
        raise InputError(f"{manifest}: no training image was examined by a person; none is known")
    if remote := [path for path in table["path"] if not is_local(path)]:
        raise InputError(f"{remote[0]}: is no local file; copy the images to a folder first")
    content = digest([__version__, repr(settings), table.to_csv(index=False)])
    with new_folder(folder, content) as is_kept, named_errors(folder):
        database = folder / "marks.sqlite"
        log = SimulationLog.reopened(folder, database) if is_kept else None
        if log is None:
            clear(folder)
            log = SimulationLog(folder, database)
        else:
            tell(f"{folder}: resumed after {len(log.answers):,} answers")
        _simulate(table, folder, settings, log, tell)
        names = [one.name for one in fields(SimulatedAnswer)]
        result = pd.DataFrame(log.answers, columns=names)
        result.to_csv(folder / "simulation.csv", index=False)
        log.remove()
    return result


def _simulate(
    table: pd.DataFrame,
    folder: Path,
    settings: Simulation,
    log: SimulationLog,
    tell: Callable[[str], None],
) -> None:
    """Add the answers that are left, for the images of a manifest that are known or not asked."""
    # The export of a simulation names the images as its manifest does: relative to the folder.
    table = table.assign(path=table["path"].map(RelativePaths(folder).of))
    known = {
        path: _Known(label, saliency)
        for path, label, saliency in zip(*(table[c] for c in _KNOWN), strict=True)
    }
    plain = folder / "images.csv"
    columns = ["path", "label", "split", "source", "group"]
    if not plain.exists():
        table[columns].to_csv(plain, index=False)
    found, config = log.answers, settings.teacher
    with (
        _named_refusals(folder),
        _server(plain, log.database, settings) as link,
        contextlib.closing(connect(log.database, readonly=True)) as reading,
    ):
        clients = {name: LabelClient(link, name) for name in settings.people}
        while len(found) < settings.images:
            count = len(found)
            if config is not None and count % config.every == 0 and log.taught_after < count:
                log.copy_database()
                log.add_teacher(_teach(log.database, folder, config, log.taught, tell))
            name = settings.people[count % len(settings.people)]
            client = clients[name]
            image = client.next_image()
            if image is None:
                tell(f"{name}: no image is left")
                break
            (named,) = reading.execute("SELECT path FROM images WHERE id = ?", (image,)).fetchone()
            path = folder.absolute() / named
            work = _mark_image(client, image, path, known[named], settings, name)
            log.add(named, SimulatedAnswer(count, name, path.name, *work.row, log.taught))
            client.answer(
                image,
                "marked" if work.has_marks else "nothing",
                label=known[named].label,
                seconds=work.row.seconds,
                proposal=work.proposal,
            )
        for client in clients.values():
            client.close()


def summary(answers: pd.DataFrame) -> str:
    """Sentences about a simulation: time, proposals, overlap with the known marks.

    Args:
        answers: Result of `simulate`.
    """
    minutes = answers["seconds"].sum() / 60
    lines = [
        f"{len(answers):,} images in {minutes:.1f} simulated minutes "
        f"({answers['seconds'].mean():.1f} s an image); overlap with the known marks "
        f"{answers['overlap'].mean():.3f}"
    ]
    shown = answers[answers["proposed"]]
    if len(shown):
        lines.append(
            f"{len(shown):,} proposals, overlap {shown['proposal_overlap'].mean():.3f}; "
            f"{shown['adopted'].mean():.0%} adopted; {shown['seconds'].mean():.1f} s an image"
        )
    return "\n".join(lines)


def _mark_image(
    client: LabelClient, image: int, path: Path, known: _Known, settings: Simulation, name: str
) -> _Work:
    """Mark one image."""
    truth = _known_mark(known, image_size(path))
    # The deviation of a person on an image is the same in every simulation with this seed.
    digest = hashlib.blake2b(f"{settings.seed} {name} {path.name}".encode(), digest_size=8)
    rng = np.random.default_rng(int.from_bytes(digest.digest(), "big"))
    intended = intended_mark(truth, settings.annotator.error, rng)
    costs, error = settings.annotator.costs, settings.annotator.error
    shown = client.image(image)["proposal"]
    own: list[Stroke] = []
    if settings.proposals == "after":
        work = mark(intended, None, costs, error)
        if work.strokes:
            own = work.strokes[:1]
            _send(client, image, own)
            shown = client.image(image)["proposal"]
    proposal = None if shown is None else _mask_of(shown, truth.shape)
    if proposal is None:
        work = mark(intended, None, costs, error)
    elif own:
        work = mark_after(intended, proposal, costs, error)
    else:
        work = mark(intended, proposal, costs, error)
    mask = np.zeros_like(truth)
    for stroke in own:
        mask |= stroke.pixels
    if work.adopted:
        assert shown is not None
        assert proposal is not None
        client.stroke(image, proposal, class_=CLASS, proposal=shown["id"])
        mask |= proposal
    rest = work.strokes[len(own) :]
    _send(client, image, rest)
    for stroke in rest:
        mask = mask & ~stroke.pixels if stroke.erase else mask | stroke.pixels
    agreement = float("nan") if proposal is None else overlap(proposal, truth)
    row = _Row(
        work.seconds,
        len(work.strokes),
        proposal is not None,
        work.adopted,
        agreement,
        overlap(mask, truth),
    )
    return _Work(row, bool(mask.any()), None if shown is None else shown["id"])


def _send(client: LabelClient, image: int, strokes: Sequence[Stroke]) -> None:
    for stroke in strokes:
        client.stroke(
            image, stroke.pixels, class_=CLASS, erase=stroke.erase, seconds=stroke.seconds
        )


def _mask_of(shown: dict[str, Any], shape: tuple[int, ...]) -> Mask:
    bits = decode_runs(from_text(shown["runs"]), shown["w"] * shown["h"])
    patch = Patch(shown["x"], shown["y"], bits.reshape(shown["h"], shown["w"]))
    return patch.whole(shape[1], shape[0])


def _known_mark(known: _Known, size: tuple[int, int]) -> Mask:
    """(h, w) pixels of at least half of the largest value of the human map."""
    if not known.saliency:
        return np.zeros((size[1], size[0]), bool)
    values = decode_map(known.saliency)
    if values.shape != (size[1], size[0]):
        values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    return np.asarray((values > 0) & (values >= values.max() / 2), bool)


def _teach(
    database: Path, folder: Path, config: TeacherConfig, taught: int, tell: Callable[[str], None]
) -> int:
    """Train a Teacher; images that it was taught. Without enough marks the last one stays."""
    try:
        return teach_database(database, folder / "teachers", config, tell=tell).images
    except InputError as error:
        tell(f"no new Teacher: {error}")
        return taught


@contextmanager
def _named_refusals(folder: Path) -> Iterator[None]:
    """Context in which a refusal of the server, for example on a full disk, names the folder."""
    try:
        yield
    except ClientError as error:
        raise RunFailedError(f"{folder}: the simulation has stopped: {error}") from error


@contextmanager
def _server(manifest: Path, database: Path, settings: Simulation) -> Iterator[str]:
    """`preceptor label` in a process of its own; yields the link."""
    splits = set(pd.read_csv(manifest, keep_default_na=False)["split"])
    only = ["--splits", "train"] if "train" in splits else []
    command = ["preceptor", "label", "run", str(manifest), "--no-open"]
    command += ["--database", str(database), *only, "--classes", CLASS]
    command += ["--order", settings.order, "--proposals", settings.proposals]
    command += ["--least-overlap", str(settings.least_overlap)]
    command += ["--seed", str(settings.seed)]
    server = start_tied(command)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("open "):
                yield line.split()[1]
                break
        else:
            raise RunFailedError(
                f"{database}: the server of preceptor label did not start; see its message above"
            )
    except BaseException:
        server.kill()  # without a message of its own
        raise
    finally:
        server.terminate()
        server.wait()
