"""Image panels: an image with the maps of human, Teacher, Student and baseline.

Each map is a small picture that is transparent where saliency is low, so that the page can show it
over the image, side by side with others or one after the other.

Images with correct and with wrong predictions are sampled by a hash of the name. Maps are of the
label's class, or decision maps of the label if the Student was trained with these, and min-max
normalized, over the part of the image that is the model's input.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.settings import Fit
from preceptor.data.geometry import fit_box, render
from preceptor.data.images import decode_image, decode_map, image_size
from preceptor.data.resampling import resample
from preceptor.errors import without_secrets
from preceptor.evaluation.scores import labels_of, probabilities
from preceptor.models.model_folder import load_model
from preceptor.report.overlay import colored, opacities
from preceptor.report.panel_maps import ModelMaps, Shown, model_maps, run_of, teacher_maps
from preceptor.results.best import Best
from preceptor.results.domain import Results
from preceptor.saliency.agreement import correlation
from preceptor.saliency.normalise import normalise
from preceptor.study.plan import Plan
from preceptor.study.protocol import training_of

COUNT = 40  # of a whole report
TILE = 320  # pixels of the longest side: sharp at the 300 points that a panel is shown at
FINE, COARSE = 112, 56  # of human maps, and of models' maps, which are 10 × 10 cells at most
QUALITY = 80
LAYERS = ("Human", "Teacher", "Student", "Baseline 2")
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class Picture:
    """Encoded image: file format and content."""

    format: Literal["JPEG", "PNG"]
    data: bytes

    @property
    def uri(self) -> str:
        """Image as a data URI."""
        encoded = base64.b64encode(self.data).decode("ascii")
        return f"data:image/{self.format.lower()};base64,{encoded}"

    def decoded(self) -> Image.Image:
        """Pixels."""
        return Image.open(io.BytesIO(self.data))


@dataclass(frozen=True)
class Layer:
    """Map of a panel, or None and the reason in `note`."""

    heading: str
    picture: Picture | None
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Image with its maps.

    Args:
        name, label, source: Name, label and source of the image as in the manifest; the name
            without credentials.
        scored: Class of the shown score: the positive class, or the label if there is none.
        score: The Student's score of that class.
        hit: Whether the Student's most probable class is the label.
        agreement: Correlation of the Student's map with the human map on the Student's grid; NaN
            without a human map.
        image: Image.
        ratio: Width ÷ height of the image.
        layers: Human map, Teacher, Student, Baseline 2.
    """

    name: str
    label: str
    source: str
    scored: str
    score: float
    hit: bool
    agreement: float
    image: Picture
    ratio: float
    layers: list[Layer]


@dataclass(frozen=True)
class Panels:
    """Panels with the names of their models.

    Args:
        backbone, seed: Backbone and seed of the Student and of Baseline 2.
        teacher: Teacher, or "".
        panels: Panels.
        maps: Maps of the models.
    """

    backbone: str
    seed: int
    teacher: str
    panels: list[Panel]
    maps: Shown = "label"


def choose_rows(frame: pd.DataFrame, hit: NDArray[np.bool_], count: int = COUNT) -> list[int]:
    """Sample of rows: half hits, half misses, those with human maps first, balanced by source.

    Args:
        frame: Columns name, label, source, mapped.
        hit: (n,) whether the Student's prediction is correct.
        count: Number of rows; if there are fewer misses than half, more hits are taken, and vice
            versa.
    """
    lottery = [hashlib.blake2b(name.encode()).hexdigest() for name in frame["name"]]
    order = frame.assign(hit=hit, draw=lottery).reset_index(drop=True).sort_values("draw")
    turn = order.groupby(["hit", "mapped", "label", "source"]).cumcount()
    order = order.assign(turn=turn).sort_values(
        ["mapped", "turn", "source", "draw"], ascending=[False, True, True, True]
    )
    hits = [int(place) for place in order.index[order["hit"].to_numpy(bool)]]
    misses = [int(place) for place in order.index[~order["hit"].to_numpy(bool)]]
    wrong = min(len(misses), max(count // 2, count - len(hits)))
    return hits[: count - wrong] + misses[:wrong]


def make_panels(plan: Plan, results: Results, count: int = COUNT) -> Panels | None:
    """Panels of the selected Student (the one in `best/`); None if it is not scored yet.

    Args:
        plan: Plan of the domain.
        results: Results of the domain.
        count: Number of images.

    Raises:
        PreceptorError: A model or an image cannot be read.
    """
    best = results.best
    if best is None:
        return None
    scored = results.tests_of(best.arm)
    if best.seed not in scored:
        return None
    return _make(plan, results, best, scored[best.seed], count)


def _make(
    plan: Plan, results: Results, best: Best, scores: pd.DataFrame, count: int
) -> Panels | None:
    workspace = plan.protocol.workspaces.of(best.seed)
    table = workspace.manifest.table
    scores = scores[scores["split"] == results.primary].reset_index(drop=True)
    if scores.empty:
        return None
    tests = table[table["split"] == results.primary]
    place = dict(zip(tests["name"], tests.index, strict=True))
    chances = probabilities(scores, results.classes)
    hit = chances.argmax(1) == labels_of(scores, results.classes)
    mapped = scores["path"].map(lambda name: table.loc[place[name], "saliency"] != "")
    frame = scores.assign(name=scores["path"], mapped=mapped)
    chosen = choose_rows(frame, hit, count)
    rows = np.array([place[scores.loc[position, "path"]] for position in chosen], np.int64)

    student = load_model(plan.protocol.run_folder(best.run) / "model")
    # Those that the Student's guidance compares, for all models alike.
    training = training_of(plan.study, best.arm.guidance)
    shown: Shown = "decision" if training.cam_class == "decision" else "label"
    looks: dict[str, ModelMaps] = {}
    teacher_name, teacher = teacher_maps(plan, best.seed, rows, shown)
    if teacher is not None:
        looks["Teacher"] = teacher
    looks["Student"] = model_maps(plan, workspace, student, rows, shown)
    plain = plan.setting_of("baseline2", best.arm.backbone)
    other = (
        None if plain is None else run_of(plan, "baseline2", best.arm.backbone, plain, best.seed)
    )
    if other is not None:
        model = load_model(plan.protocol.run_folder(other) / "model")
        looks["Baseline 2"] = model_maps(plan, workspace, model, rows, shown)
    panels = []
    for position, manifest_row in zip(chosen, rows, strict=True):
        entry = table.loc[manifest_row]
        scored = results.positive if results.positive is not None else str(entry["label"])
        score = float(chances[position, results.classes.index(scored)])
        image, ratio, layers = _layers(entry, int(manifest_row), looks, student.spec.fit)
        panels.append(
            Panel(
                without_secrets(str(entry["name"])),
                str(entry["label"]),
                str(entry["source"]),
                scored,
                score,
                bool(hit[position]),
                _agreement(entry, looks["Student"], int(manifest_row)),
                image,
                ratio,
                layers,
            )
        )
    return Panels(best.arm.backbone, best.seed, teacher_name, panels, shown)


def _agreement(entry: pd.Series, look: ModelMaps, row: int) -> float:
    """Correlation of a model's map with the human map, on the model's grid."""
    if not entry["saliency"] or row not in look.maps:
        return math.nan
    own = torch.from_numpy(look.maps[row])[None]
    human = _human(entry, look.fit, own.shape[1:])
    value, valid = correlation(own, human)
    return float(value[0]) if bool(valid[0]) else math.nan


def _human(entry: pd.Series, fit: Fit, size: tuple[int, ...]) -> torch.Tensor:
    """(1, h, w) human map on a grid over the part of the image that is the model's input."""
    human = torch.from_numpy(decode_map(str(entry["saliency"])))[None]
    width, height = image_size(str(entry["path"]))
    box = torch.tensor([fit_box(width, height, fit, TILE).as_tuple()], dtype=torch.float64)
    return resample(human, _UNIT, box, (size[0], size[1]))


def _layers(
    entry: pd.Series, row: int, looks: dict[str, ModelMaps], fit: Fit
) -> tuple[Picture, float, list[Layer]]:
    """Image as in the model's input, its aspect ratio, and the maps over the same part of it."""
    image = decode_image(str(entry["path"]), 3)
    height, width = image.shape[:2]
    if fit == "squash":  # the model saw all of it: shown in its own proportions
        scale = min(1.0, TILE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    else:
        size = TILE, TILE
        picture = render(image, fit, TILE)
    layers = [Layer("Human", None, "no human map")]
    if entry["saliency"]:
        human = normalise(_human(entry, fit, _within(size, FINE)[::-1]))[0].numpy()
        layers = [Layer("Human", _overlay(human))]
    for heading in LAYERS[1:]:
        look = looks.get(heading, ModelMaps({}, fit))
        if row in look.maps and look.fit == fit:
            smooth = _smooth(look.maps[row], _within(size, COARSE))
            layers.append(Layer(heading, _overlay(smooth)))
        else:
            note = "not settled" if row in look.unsettled else "not there"
            layers.append(Layer(heading, None, note))
    return _encoded(Image.fromarray(picture), "JPEG", quality=QUALITY), size[0] / size[1], layers


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Size (width, height) with the same aspect ratio and a limited longer side."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _smooth(grid: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Map on a feature grid, smoothly interpolated to a size (width, height)."""
    large = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(large, np.float32).clip(0, 1)


def _overlay(saliency: NDArray[np.float32]) -> Picture:
    """Map in [0, 1] as a picture whose brightness and opacity increase with saliency.

    A palette of 64 colors with opacity needs a tenth of the size of four channels.
    """
    return _encoded(colored(saliency), "PNG", transparency=opacities())


def _encoded(picture: Image.Image, form: Literal["JPEG", "PNG"], **how: Any) -> Picture:
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True, **how)
    return Picture(form, buffer.getvalue())
