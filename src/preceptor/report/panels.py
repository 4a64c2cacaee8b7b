"""Image panels: an image with the maps of people, Teacher, Student and baseline.

Images with correct and with wrong predictions are sampled by a hash of the name. Maps are of the
label's class, or decision maps of the label if the Student was trained with these, and min-max
normalized, over the part of the image that is the model's input. Each map is a small picture
whose opacity increases with saliency, so that the page can show it over the image.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.run import Method
from preceptor.config.settings import Fit
from preceptor.data.geometry import fit_box, render
from preceptor.data.images import decode_image, decode_map, image_size
from preceptor.data.resampling import resample
from preceptor.data.workspace import Workspace
from preceptor.errors import without_secrets
from preceptor.inference.annotate import rise_rows
from preceptor.inference.predict import predict
from preceptor.maps.store import largest_error
from preceptor.metrics.scores import labels_of, probabilities
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.report.palette import colored, data_uri, opacities
from preceptor.results.domain import Results
from preceptor.saliency.maps import correlation, normalize
from preceptor.study.config import Setting
from preceptor.study.plan import Plan
from preceptor.study.protocol import training_of
from preceptor.study.steps import Role
from preceptor.utils.results import is_finished

COUNT = 16  # of a whole report
LAYERS = ("Human", "Teacher", "Student", "Baseline 2")
# Maps are made again for every report: on a CPU, 8,000 masks of 16 images may take hours.
MOST_MASKS = 1000
_TILE = 320  # pixels of the longest side: sharp at the 300 points that a panel is shown at
_FINE, _COARSE = 112, 56  # of human maps, and of models' maps, which are 10 × 10 cells at most
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)

Shown = Literal["label", "decision"]
"""Maps of classifiers: of the label's class, or decision maps (of the label's log-odds)."""


@dataclass(frozen=True)
class ModelMaps:
    """Maps of a model."""

    maps: dict[int, NDArray[np.float32]]  # min-max normalized (h, w) maps by manifest row
    fit: Fit
    unsettled: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Layer:
    """Map of a panel, or None and the reason in `note`."""

    heading: str
    uri: str | None  # picture as a data URI
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Image with its maps."""

    name: str
    label: str
    source: str
    scored: str  # class of the shown score: the positive class, or the label if there is none
    score: float  # the Student's score of that class
    hit: bool  # whether the Student's most probable class is the label
    agreement: float
    image: str  # as a data URI
    ratio: float  # width ÷ height of the image
    layers: list[Layer]  # human map, Teacher, Student, Baseline 2


@dataclass(frozen=True)
class Panels:
    """Panels with the names of their models, a block of the page."""

    form: ClassVar[str] = "panels"
    backbone: str
    seed: int
    teacher: str
    panels: list[Panel]
    maps: Shown = "label"


# Which images, and their maps


def choose_rows(frame: pd.DataFrame, hit: NDArray[np.bool_], count: int = COUNT) -> list[int]:
    """Sample of rows: half hits, half misses, those with human maps first, balanced by source.

    `frame` has the columns name, label, source and mapped; `hit` is (n,). If one kind is rare,
    there are more of the other.
    """
    lottery = [hashlib.blake2b(name.encode()).hexdigest() for name in frame["name"]]
    order = frame.assign(hit=hit, draw=lottery).reset_index(drop=True).sort_values("draw")
    turn = order.groupby(["hit", "mapped", "label", "source"]).cumcount()
    order = order.assign(turn=turn).sort_values(
        ["mapped", "turn", "source", "draw"], ascending=[False, True, True, True]
    )
    hits = [int(row) for row in order.index[order["hit"].to_numpy(bool)]]
    misses = [int(row) for row in order.index[~order["hit"].to_numpy(bool)]]
    wrong = min(len(misses), max(count // 2, count - len(hits)))
    return hits[: count - wrong] + misses[:wrong]


def make_panels(plan: Plan, results: Results, count: int = COUNT) -> Panels | None:
    """Panels of the selected Student; None if it is not scored yet."""
    best = results.best.get("student")
    scored = {} if best is None else results.record.tests_of(best.arm)
    if best is None or best.seed not in scored:
        return None
    scores = scored[best.seed]
    scores = scores[scores["split"] == results.setup.primary].reset_index(drop=True)
    if scores.empty:
        return None
    workspace = plan.protocol.workspaces.of(best.seed)
    table = workspace.manifest.table
    tests = table[table["split"] == results.setup.primary]
    indices = dict(zip(tests["name"], tests.index, strict=True))
    chances = probabilities(scores, results.setup.classes)
    hit = chances.argmax(1) == labels_of(scores, results.setup.classes)
    mapped = scores["path"].map(lambda name: table.loc[indices[name], "saliency"] != "")
    chosen = choose_rows(scores.assign(name=scores["path"], mapped=mapped), hit, count)
    rows = np.array([indices[scores.loc[position, "path"]] for position in chosen], np.int64)

    backbone = best.arm.backbone
    student = load_model(plan.protocol.run_folder(best.run) / "model")
    # Those that the Student's guidance compares, for all models alike.
    training = training_of(plan.study, best.arm.guidance)
    shown: Shown = "decision" if training.cam_class == "decision" else "label"
    maps: dict[str, ModelMaps] = {}
    teacher_name, teacher = teacher_maps(plan, best.seed, rows, shown)
    if teacher is not None:
        maps["Teacher"] = teacher
    maps["Student"] = model_maps(plan, workspace, student, rows, shown)
    plain = plan.setting_of("baseline2", backbone)
    other = None if plain is None else run_of(plan, "baseline2", backbone, plain, best.seed)
    if other is not None:
        model = load_model(plan.protocol.run_folder(other) / "model")
        maps["Baseline 2"] = model_maps(plan, workspace, model, rows, shown)
    panels = []
    for position, row in zip(chosen, rows.tolist(), strict=True):
        entry = table.loc[row]
        scored_class = (
            str(entry["label"]) if results.setup.positive is None else results.setup.positive
        )
        image, ratio, layers = _layers(entry, row, maps, student.spec.fit)
        panel = Panel(
            name=without_secrets(str(entry["name"])),
            label=str(entry["label"]),
            source=str(entry["source"]),
            scored=scored_class,
            score=float(chances[position, results.setup.classes.index(scored_class)]),
            hit=bool(hit[position]),
            agreement=_agreement(entry, maps["Student"], row),
            image=image,
            ratio=ratio,
            layers=layers,
        )
        panels.append(panel)
    return Panels(backbone, best.seed, teacher_name, panels, shown)


def teacher_maps(
    plan: Plan, seed: int, rows: NDArray[np.int64], shown: Shown
) -> tuple[str, ModelMaps | None]:
    """Name of the selected Teacher and kind of its maps, and these; None of maps of a folder."""
    winner = plan.winner()
    if winner is None:
        return "", None
    if winner.kind == "given":  # maps of training images
        return str(winner), None
    role: Role = "mapper" if winner.kind == "mapper" else "teacher"
    run = run_of(plan, role, winner.name, Setting(winner.alpha), seed)
    if run is None:
        return str(winner), None
    model = load_model(plan.protocol.run_folder(run) / "model")
    workspace = plan.protocol.workspaces.of(seed)
    name = f"{winner}, generation 1" if plan.study.generations > 1 else str(winner)
    if winner.kind == "mapper":
        name += "; its maps are the probability of a mark"
    elif shown == "decision" and winner.method != "cam":
        name += "; its maps are of the label's class"
    return name, model_maps(plan, workspace, model, rows, shown, winner.method)


def run_of(plan: Plan, role: Role, backbone: str, setting: Setting, seed: int) -> str | None:
    """Finished run of a role and seed."""
    for member in plan.members_of(role, backbone):
        finished = is_finished(plan.protocol.run_folder(member.run))
        if (member.arm.setting, member.seed) == (setting, seed) and finished:
            return member.run
    return None


def model_maps(
    plan: Plan,
    workspace: Workspace,
    model: GuidedModel,
    rows: NDArray[np.int64],
    shown: Shown,
    method: Method = "cam",
) -> ModelMaps:
    """Maps of a model; those of rise are of the label's class."""
    study = plan.protocol.study
    data = workspace.rows(rows, model.spec.image_format, cache="memmap")
    settled = np.ones(len(rows), bool)
    if method == "rise":
        most = min(MOST_MASKS, study.rise.max_masks)
        settings = study.rise.model_copy(update={"max_masks": most})
        made = rise_rows(model, data, data.labels, settings)
        cams, settled = made.maps, made.error.numpy() <= largest_error(study.rise.tolerance)
    else:
        predicted = predict(model, data, cams="cells" if method == "cells" else shown).cams
        assert predicted is not None
        cams = predicted
    pairs = zip(rows.tolist(), normalize(cams).numpy(), settled, strict=True)
    maps = {row: cam for row, cam, good in pairs if good}
    return ModelMaps(maps, model.spec.fit, frozenset(rows[~settled].tolist()))


# Pictures


def _agreement(entry: pd.Series, maps: ModelMaps, row: int) -> float:
    """Correlation of a model's map with the human map, on the model's grid."""
    if not entry["saliency"] or row not in maps.maps:
        return math.nan
    own = torch.from_numpy(maps.maps[row])[None]
    value, valid = correlation(own, _human(entry, maps.fit, own.shape[1:]))
    return float(value[0]) if bool(valid[0]) else math.nan


def _human(entry: pd.Series, fit: Fit, size: tuple[int, ...]) -> torch.Tensor:
    """(1, h, w) human map on a grid over the part of the image that is the model's input."""
    human = torch.from_numpy(decode_map(str(entry["saliency"])))[None]
    width, height = image_size(str(entry["path"]))
    box = torch.tensor([fit_box(width, height, fit, _TILE)], dtype=torch.float64)
    return resample(human, _UNIT, box, (size[0], size[1]))


def _layers(
    entry: pd.Series, row: int, maps: dict[str, ModelMaps], fit: Fit
) -> tuple[str, float, list[Layer]]:
    """Image as in the model's input, its aspect ratio, and the maps over the same part of it."""
    image = decode_image(str(entry["path"]), 3)
    size = _TILE, _TILE
    if fit == "squash":  # the model saw all of it: shown in its own proportions
        size = _within((image.shape[1], image.shape[0]), _TILE)
        picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    else:
        picture = render(image, fit, _TILE)
    layers = [Layer("Human", None, "no human map")]
    if entry["saliency"]:
        human = normalize(_human(entry, fit, _within(size, _FINE)[::-1]))[0].numpy()
        layers = [Layer("Human", _overlay(human))]
    for heading in LAYERS[1:]:
        own = maps.get(heading, ModelMaps({}, fit))
        if row in own.maps and own.fit == fit:
            grid = Image.fromarray(own.maps[row].astype(np.float32))
            large = grid.resize(_within(size, _COARSE), Image.Resampling.BICUBIC)
            layers.append(Layer(heading, _overlay(np.asarray(large, np.float32).clip(0, 1))))
        else:
            note = "not settled" if row in own.unsettled else "not there"
            layers.append(Layer(heading, None, note))
    return data_uri(Image.fromarray(picture), "JPEG", quality=80), size[0] / size[1], layers


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Size (width, height) with the same aspect ratio and a limited longer side."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _overlay(saliency: NDArray[np.float32]) -> str:
    """Map in [0, 1] as a picture whose brightness and opacity increase with saliency."""
    return data_uri(colored(saliency), "PNG", transparency=opacities())
