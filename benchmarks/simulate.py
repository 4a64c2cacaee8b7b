"""Simulated people who mark images from known maps, or correct given ones, on the real server.

    python benchmarks/simulate.py MANIFEST --to FOLDER [--images 40] [--start-from MAPS] [--seed 0]
    python benchmarks/simulate.py MANIFEST [--images 40] [--seed 0]    # time by overlap, no server

Everything but the people is real: the server is `preceptor label` in a process of its own, strokes
and answers go through HTTP into the database. Time is not waited for, but counted by stated costs,
which are assumptions and not measurements of people.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from preceptor.data.images import decode_map, image_size
from preceptor.data.manifest import Manifest
from preceptor.label.db import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.label.serving import Client, Told, command, proposed

Mask = NDArray[np.bool_]
CLASS = "evidence"
LEVELS = (50, 20, 35, 65, 80)  # percent of a map at which it is cut; the first is shown
_EIGHT = np.ones((3, 3), bool)  # components are connected over corners


@dataclass(frozen=True)
class Costs:
    """Seconds of an annotator.

    Args:
        open: Time to look at a new image and decide.
        answer: Time of a key press: an answer, or adopting a proposal.
        judge: Additional time to judge a proposal.
        slide: Time to choose another level of a proposal.
        stroke: Time of a stroke of no length: aim, press, release.
        steer: Time for each unit of length ÷ width, where width is how far the pointer may deviate
            (J. Accot, S. Zhai, "Beyond Fitts' Law", CHI 1997).
    """

    open: float = 2.0
    answer: float = 0.5
    judge: float = 0.7
    slide: float = 1.2
    stroke: float = 0.8
    steer: float = 0.1


@dataclass(frozen=True)
class Error:
    """Deviation of an annotator's marks from the known ones.

    Args:
        shift: Standard deviation of the displacement of a mark ÷ the square root of its area.
        scale: Standard deviation of the growth of a mark's radius, as the same share.
        tolerance: Accepted deviation of a border, as a share of the longer side of the image:
            borders are traced within twice this width, and thinner deviations of a proposal stay.
    """

    shift: float = 0.03
    scale: float = 0.03
    tolerance: float = 0.01


@dataclass(frozen=True)
class Simulation:
    """Settings of simulated marking.

    Args:
        images: Number of answers in all.
        people: Names of the people, who take turns.
        start_from: Maps that are proposed, as in `preceptor label --start-from`.
        costs, error: Costs of the work, and deviation of the marks from the known ones.
        seed: Random seed of the order and of the deviations. The deviation of an image does not
            depend on the order, so that two simulations can be compared image by image.
    """

    images: int = 40
    people: tuple[str, ...] = ("simulated",)
    start_from: Path | None = None
    costs: Costs = field(default_factory=Costs)
    error: Error = field(default_factory=Error)
    seed: int = 0


@dataclass(frozen=True)
class SimulatedAnswer:
    """What one person did on one image, a row of simulation.csv.

    `overlap` and `proposal_overlap` are the intersection ÷ union of the mark, and of the proposal
    (NaN without one), with the known mark.
    """

    number: int
    person: str
    image: str
    seconds: float
    strokes: int
    proposed: bool
    adopted: bool
    proposal_overlap: float
    overlap: float


class Stroke(NamedTuple):
    """A stroke: the pixels of the whole image that it changes, and its time."""

    erase: bool
    pixels: Mask
    seconds: float


class Marking(NamedTuple):
    """Strokes in order, whether the proposal was adopted before them, and the time of all work."""

    strokes: list[Stroke]
    adopted: bool
    seconds: float


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    size = int((one | other).sum())
    return int((one & other).sum()) / size if size else 1.0


def checked(told: Told) -> Any:
    """Content of an answer of the server; a refusal ends the program."""
    if told.status >= 400:
        raise SystemExit(f"the server refused a request ({told.status}): {told.content!r}")
    return told.json


def draw(client: Client, image: int, stroke: Stroke, proposal: int | None = None) -> None:
    """Save a stroke; `proposal` is the number of the proposal that it adopts."""
    changes = {
        "tool": "eraser" if stroke.erase else "brush" if proposal is None else "proposal",
        "class": CLASS,
        "erase": stroke.erase,
        "seconds": stroke.seconds,
        "proposal": proposal,
    }
    checked(client.stroke(image, stroke.pixels, **changes))


def intended_mark(truth: Mask, error: Error, rng: np.random.Generator) -> Mask:
    """(h, w) what an annotator means to mark: the known marks, each displaced and grown."""
    labels, _ = ndimage.label(truth, _EIGHT)
    intended = np.zeros_like(truth)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        pixels = labels[place] == number
        side = float(np.sqrt(pixels.sum()))
        margin = int(np.ceil(side * 3 * (error.shift + error.scale))) + 2
        padded = np.pad(pixels, margin)
        # Distance to the border, positive inside; pixel centers are half a pixel from it.
        inside, outside = (ndimage.distance_transform_edt(mask) for mask in (padded, ~padded))
        depth = np.where(padded, inside - 0.5, 0.5 - outside)
        grown = depth > -side * rng.normal(0, error.scale)
        moved = ndimage.shift(
            grown.astype(np.uint8), np.rint(side * rng.normal(0, error.shift, 2)), order=0
        )
        _add(intended, moved > 0, place[0].start - margin, place[1].start - margin)
    return intended


def _add(target: Mask, pixels: Mask, top: int, left: int) -> None:
    """Set pixels at a place that may lie partly outside of the target."""
    height, width = target.shape
    rows = slice(max(0, -top), min(pixels.shape[0], height - top))
    columns = slice(max(0, -left), min(pixels.shape[1], width - left))
    target[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop] |= (
        pixels[rows, columns]
    )


def mark(
    intended: Mask, proposal: Mask | None, costs: Costs | None = None, error: Error | None = None
) -> Marking:
    """Mark an image, in the cheaper of two ways: from nothing, or by correction of a proposal.

    A connected region is painted or erased by one stroke. It follows the border of the intended
    mark within twice the tolerance, and crosses the region with a brush of its greatest thickness,
    where it may deviate by as much: the time is that of the stroke and `Costs.steer` times (length
    of the border ÷ (2 · tolerance) + area ÷ thickness²). Deviations of a proposal that are thinner
    than the tolerance are left.

    Args:
        intended, proposal: (h, w); no proposal = None.
        costs, error: Costs and tolerance; None = defaults.
    """
    costs, error = costs or Costs(), error or Error()
    around = costs.open + costs.answer
    thin = error.tolerance * max(intended.shape)
    drawn = _strokes(np.zeros_like(intended), intended, costs, thin)
    if proposal is None:
        return Marking(drawn, False, around + _seconds(drawn))
    around += costs.judge
    corrected = _strokes(proposal, intended, costs, thin)
    adopting = costs.answer + _seconds(corrected)
    if adopting < _seconds(drawn):
        return Marking(corrected, True, around + adopting)
    return Marking(drawn, False, around + _seconds(drawn))


def _seconds(strokes: Sequence[Stroke]) -> float:
    return sum(stroke.seconds for stroke in strokes)


def _strokes(start: Mask, goal: Mask, costs: Costs, tolerance: float) -> list[Stroke]:
    """Strokes from a mask to another; the tolerance is in pixels."""
    strokes: list[Stroke] = []
    edge = goal & ~ndimage.binary_erosion(goal, border_value=1)
    outer = ~goal & ndimage.binary_dilation(goal)
    for erase, wrong in ((True, start & ~goal), (False, goal & ~start)):
        labels, _ = ndimage.label(wrong, _EIGHT)
        depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        whole, _ = ndimage.label(start if erase else goal, _EIGHT)
        sizes = np.bincount(whole.ravel())
        for number, place in enumerate(ndimage.find_objects(labels), start=1):
            pixels = labels[place] == number
            thickness = 2 * float(depth[place][pixels].max())
            area = int(pixels.sum())
            complete = area == sizes[whole[place][pixels][0]]  # a mark of its own, not a border
            if thickness <= 2 * tolerance and not complete:
                continue
            changed = np.zeros_like(goal)
            changed[place] = pixels
            border = int((pixels & (outer if erase else edge)[place]).sum())
            difficulty = border / (2 * tolerance) + area / thickness**2
            strokes.append(Stroke(erase, changed, costs.stroke + costs.steer * difficulty))
    return strokes


def simulate(manifest: Path, folder: Path, settings: Simulation) -> pd.DataFrame:
    """Mark the examined training images of a manifest by simulated people.

    Args:
        manifest: Manifest with human maps; the marks of other images are not known.
        folder: New folder: manifest without maps, database, simulation.csv.
        settings: Settings.

    Returns:
        The rows of simulation.csv, see `SimulatedAnswer`.
    """
    table = Manifest.read(manifest, verify=False, need=()).table
    table = table[table["annotated"] | ~table["split"].isin(["", "train"])]
    folder.mkdir(parents=True)
    # The export of a simulation names the images as its manifest does: relative to the folder.
    table = table.assign(path=[os.path.relpath(path, folder) for path in table["path"]])
    known = {row.path: (row.label, row.saliency) for row in table.itertuples()}
    plain, database = folder / "images.csv", folder / "marks.sqlite"
    table[["path", "label", "split", "source", "group", "name"]].to_csv(plain, index=False)
    answers: list[SimulatedAnswer] = []
    options = ["--database", database, "--classes", CLASS, "--seed", settings.seed]
    options += [] if settings.start_from is None else ["--start-from", settings.start_from]
    options += ["--splits", "train"] if "train" in set(table["split"]) else []
    with (
        command(plain, *options) as server,
        contextlib.closing(connect(database, readonly=True)) as reading,
    ):
        clients = {name: server.client(name, tab=name) for name in settings.people}
        for number in range(settings.images):
            name = settings.people[number % len(settings.people)]
            opened = checked(clients[name].get("/api/queue?count=1"))["images"]
            if not opened:
                print(f"{name}: no image is left")
                break
            image = opened[0]["id"]
            (path,) = reading.execute("SELECT path FROM images WHERE id = ?", (image,)).fetchone()
            label, saliency = known[path]
            truth = _known_mark(saliency, image_size(folder.absolute() / path))
            file = Path(path).name
            work, mask, shown, agreement = _mark_image(
                clients[name], image, truth, settings, _rng(settings.seed, name, file)
            )
            answers.append(
                SimulatedAnswer(
                    number,
                    name,
                    file,
                    work.seconds,
                    len(work.strokes),
                    agreement is not None,
                    work.adopted,
                    float("nan") if agreement is None else agreement,
                    overlap(mask, truth),
                )
            )
            state = "marked" if mask.any() else "nothing"
            told = {"label": label, "seconds": work.seconds, "proposal": shown}
            checked(clients[name].answer(image, state, **told))
        for client in clients.values():
            client.close()
    result = pd.DataFrame([asdict(answer) for answer in answers])
    result.to_csv(folder / "simulation.csv", index=False)
    return result


def _rng(seed: int, person: str, image: str) -> np.random.Generator:
    """The deviation of a person on an image is the same in every simulation with this seed."""
    digest = hashlib.blake2b(f"{seed} {person} {image}".encode(), digest_size=8)
    return np.random.default_rng(int.from_bytes(digest.digest(), "big"))


def _mark_image(
    client: Client, image: int, truth: Mask, settings: Simulation, rng: np.random.Generator
) -> tuple[Marking, Mask, int | None, float | None]:
    """Mark one image: the work, the mark, the proposal's number, and its overlap at level 50."""
    costs, error = settings.costs, settings.error
    intended = intended_mark(truth, error, rng)
    work = mark(intended, None, costs, error)
    mask, adopted, shown, agreement = np.zeros_like(truth), None, None, None
    for level in LEVELS:  # the first is shown
        told = checked(client.get(f"/api/images/{image}?level={level}"))["proposal"]
        if told is None:
            break
        proposal = proposed(told, truth.shape[::-1])
        found = mark(intended, proposal, costs, error)
        if level == LEVELS[0]:
            work, agreement, shown = found, overlap(proposal, truth), told["id"]
        elif found.adopted and found.seconds + costs.slide < work.seconds:
            work = found._replace(seconds=found.seconds + costs.slide)
        else:
            continue
        if work.adopted:
            adopted, shown = proposal, told["id"]
    if adopted is not None:
        draw(client, image, Stroke(False, adopted, 0.0), shown)
        mask |= adopted
    for stroke in work.strokes:
        draw(client, image, stroke)
        mask = mask & ~stroke.pixels if stroke.erase else mask | stroke.pixels
    return work, mask, shown, agreement


def _known_mark(saliency: str, size: tuple[int, int]) -> Mask:
    """(h, w) pixels of at least half of the largest value of the human map."""
    if not saliency:
        return np.zeros((size[1], size[0]), bool)
    values = decode_map(saliency)
    if values.shape != (size[1], size[0]):
        values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    return np.asarray((values > 0) & (values >= values.max() / 2), bool)


def time_by_overlap(manifest: Path, images: int, seed: int) -> pd.DataFrame:
    """Time with a proposal ÷ time from nothing, by the overlap of the proposal with the mark.

    Proposals are the marks with borders that are displaced by smooth noise.
    """
    table = Manifest.read(manifest, verify=False, need=()).table
    table = table[(table["saliency"] != "") & table["split"].isin(["", "train"])]
    rng, rows = np.random.default_rng(seed), []
    for row in table.sample(min(images, len(table)), random_state=seed).itertuples():
        truth = _known_mark(row.saliency, image_size(row.path))
        side = float(np.sqrt(truth.sum()))
        intended = intended_mark(truth, Error(), _rng(seed, "simulated", row.path))
        plain = mark(intended, None).seconds
        inside, outside = (ndimage.distance_transform_edt(mask) for mask in (truth, ~truth))
        for strength in (0.0, 0.025, 0.05, 0.1, 0.15, 0.225, 0.3):
            noise = ndimage.gaussian_filter(rng.normal(size=truth.shape), side / 4)
            proposal = (inside - outside) / side + strength * noise / noise.std() > 0
            work = mark(intended, proposal)
            rows.append((overlap(proposal, truth), work.seconds / plain, work.adopted))
    found = pd.DataFrame(rows, columns=["overlap", "time", "adopted"])
    steps = pd.cut(found["overlap"], [0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.001])
    return found.groupby(steps, observed=True)[["time", "adopted"]].mean().round(3)


def main() -> None:
    """Simulate, and print the time and the overlap."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--start-from", type=Path, help="maps that are proposed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.to is None:
        print(time_by_overlap(given.manifest, given.images, given.seed).to_string())
        return
    settings = Simulation(given.images, start_from=given.start_from, seed=given.seed)
    answers = simulate(given.manifest, given.to, settings)
    print(answers.drop(columns=["number"]).mean(numeric_only=True).to_string())


if __name__ == "__main__":
    main()
