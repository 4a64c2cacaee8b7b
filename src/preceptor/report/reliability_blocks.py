"""Section on the reliability of scores: reliability diagrams and expected calibration errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.evaluation.delong import unit_codes
from preceptor.evaluation.reliability import (
    Bins,
    CalibrationError,
    calibration_error,
    reliability_bins,
)
from preceptor.evaluation.scores import labels_of, probabilities
from preceptor.report.blocks import Block, FigureBlock, TableBlock, Text, slug
from preceptor.report.cells import Cell, Line, Table, color, short
from preceptor.report.figures import ROC_KEYS
from preceptor.report.reliability_figure import reliability_plot
from preceptor.results.domain import Results
from preceptor.runtime.text import between, number
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm


def reliability_blocks(plan: Plan, results: Results) -> list[Block]:
    """Reliability diagram and table of each backbone of the Students on the primary set."""
    blocks: list[Block] = []
    for backbone in plan.protocol.study.students:
        curves: dict[str, tuple[str, Bins]] = {}
        lines: list[Line] = []
        for row in results.rows:
            if row.key not in ROC_KEYS or backbone not in row.arms:
                continue
            found = _reliability(plan, results, row.arms[backbone])
            if found is None:
                continue
            error, bins = found
            curves[color(row.key)] = (short(row.key), bins)
            cells = [
                Cell(number(error.value), between(error.low, error.high)),
                Cell(number(error.expected)),
            ]
            lines.append(Line(short(row.key), cells, row.key == "student"))
        if not lines:
            continue
        up = f"share of {results.positive}"
        if results.positive is None:
            up = "share of correct decisions"
        drawing = reliability_plot(
            curves, f"{backbone}: reliability on {results.primary}", "mean score", up
        )
        legend = [(key, name) for key, (name, _) in curves.items()]
        table = Table(
            f"{backbone}: expected calibration error (ECE) on {results.primary}, with its 95 % "
            "interval over images, and the mean ECE of a calibrated model on as many images.",
            "",
            ["ECE", "Calibrated model"],
            lines,
        )
        blocks.append(FigureBlock(f"curves-{slug(backbone)}", [(backbone, drawing)], legend))
        blocks.append(TableBlock(f"error-{slug(backbone)}", table))
    if not blocks:
        return [Text(f"No model has been scored on {results.primary} yet.", "none")]
    what = "The score" if results.positive is not None else "The highest probability"
    text = (
        f"{what} against the observed frequency on {results.primary}, in bins with equal numbers "
        "of images, for the scores of all seeds together. The scores are not calibrated; preceptor "
        "calibrate calibrates them on validation images."
    )
    return [Text(text), *blocks]


def _reliability(plan: Plan, results: Results, arm: Arm) -> tuple[CalibrationError, Bins] | None:
    frames = results.tests_of(arm)
    parts = [frames[seed][frames[seed]["split"] == results.primary] for seed in sorted(frames)]
    if not any(map(len, parts)):
        return None
    draws = plan.protocol.study.draws
    return reliability_of_seeds(parts, results.classes, results.positive, draws=draws)


def reliability_of_seeds(
    parts: Sequence[pd.DataFrame], classes: Sequence[str], positive: str | None, *, draws: bool
) -> tuple[CalibrationError, Bins]:
    """ECE and bins of the scores of all seeds; images are resampled with the scores of all seeds.

    Args:
        parts: Score table of each seed on one evaluation set.
        classes: Class names.
        positive: Positive class; None = the most probable class of each image.
        draws: Whether every seed has its own images; else all have the same, in the same order.
    """
    scored = [_scored(part, list(classes), positive) for part in parts]
    hits, values = (np.concatenate(side) for side in zip(*scored, strict=True))
    codes = [unit_codes(part["group"].to_numpy(object), len(part)) for part in parts]
    if draws:
        starts = np.cumsum([0, *(int(own.max(initial=-1)) + 1 for own in codes[:-1])])
        codes = [own + start for own, start in zip(codes, starts, strict=True)]
    found = calibration_error(hits, values, np.concatenate(codes))
    return found, reliability_bins(hits, values)


def _scored(
    part: pd.DataFrame, classes: list[str], positive: str | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Hits and scores of one seed: of the positive class, or of the most probable one."""
    labels, chances = labels_of(part, classes), probabilities(part, classes)
    if positive is None:
        return chances.argmax(1) == labels, chances.max(1).clip(0, 1)
    place = classes.index(positive)
    return labels == place, chances[:, place].clip(0, 1)
