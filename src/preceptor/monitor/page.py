"""Page on the drift of a model in use."""

from __future__ import annotations

import math

from preceptor.monitor.drift import Drift, Drifts
from preceptor.monitor.prediction_log import PredictionLog
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.reference import Reference
from preceptor.report.blocks import Block, FigureBlock, Section, TableBlock, Text, slug
from preceptor.report.cells import Cell, Line, Table
from preceptor.report.figures import Difference, differences
from preceptor.report.histogram_figure import histogram
from preceptor.report.plain_page import PlainPage, render_plain_page
from preceptor.report.sentences import names_of
from preceptor.runtime.formatting import DASH, number, told_apart

_KNOWN, _NEW = "baseline2", "student"
_LEGEND = [(_KNOWN, "validation"), (_NEW, "log")]


def headline(found: Drifts) -> str:
    """Result in a few words."""
    if found.found:
        return f"Drift of {names_of(found.found)}"
    if found.not_compared:
        return f"No drift was found, but not all was compared: {names_of(found.not_compared)}"
    return "No drift was found"


def monitor_page(
    name: str, log: PredictionLog, found: Drifts, info: ModelInfo, reference: Reference
) -> str:
    """Page as HTML.

    Args:
        name: Name of the log.
        log: Log.
        found: Its comparison with the reference.
        info: Description of the model.
        reference: Reference of the model.
    """
    sections = [
        Section("drift", "Drift", "Quantities", _table_blocks(found)),
        Section("values", "Values", "Distributions", _histograms(found, info)),
        Section("method", "Method", "Method", [Text(text) for text in _method(log, found)]),
    ]
    page = PlainPage(
        name=name,
        kind="monitor",
        facts=[
            f"{info.backbone}: {' or '.join(info.classes)}",
            f"{len(log):,} predictions",
            f"{log.bad:,} image{'s' if log.bad != 1 else ''} could not be read",
            f"{len(reference.labels):,} validation images",
        ],
        headline=headline(found),
        sentences=sentences_of(found),
        mood="ahead" if found.found or found.not_compared else "won",
        sections=sections,
        footer="Made by preceptor from a log of predictions and the reference of its model.",
    )
    return render_plain_page(page)


def sentences_of(found: Drifts) -> list[str]:
    """Sentence on each drift, and on the images that were flagged."""
    sentences = []
    for one in found.drifts:
        if one.is_drift:
            sentences.append(_sentence(one))
    if found.not_compared:
        sentences.append(
            f"No interval of {names_of(found.not_compared)} could be computed, as with validation "
            "images of a single group: whether there is a drift is not known."
        )
    alarms = found.alarms
    if alarms is not None:
        low, high = alarms.expected
        sentences.append(
            f"{_percent(alarms.share)} of the images were flagged as unfamiliar "
            f"({_percent(alarms.low)} to {_percent(alarms.high)}); {_percent(low)} to "
            f"{_percent(high)} are expected of images like those of validation."
        )
    return sentences


def _sentence(one: Drift) -> str:
    if one.change == "classifier":
        return (
            f"A linear classifier tells the features of the log from those of validation with an "
            f"AUC of {number(one.auc, 2)}."
        )
    if one.change == "spread":
        word = "wider" if one.auc > 0.5 else "narrower"
        return f"Values of {one.quantity} are spread {word} than on validation."
    word = "higher" if one.auc > 0.5 else "lower"
    new, known = told_apart(one.new, one.known)
    return (
        f"Values of {one.quantity} are {word} than on validation in "
        f"{_percent(max(one.auc, 1 - one.auc))} of the pairs of images; their median is {new} "
        f"instead of {known}."
    )


def _table_blocks(found: Drifts) -> list[Block]:
    lines = [
        Line(
            f"{one.quantity}, {one.change}" if one.change != "classifier" else "features",
            [
                *(Cell(text) for text in _medians(one)),
                Cell(number(one.auc), _interval(one)),
                Cell("drift" if one.is_drift else "none" if one.compared else "not known"),
            ],
            one.is_drift,
        )
        for one in found.drifts
    ]
    table = Table(
        "AUC: the probability that an image of the log has a higher value than one of validation, "
        "0.5 without drift, and its interval.",
        "Quantity",
        ["Median, validation", "Median, log", "AUC", "Result"],
        lines,
    )
    rows = [
        (
            line.heading,
            [Difference(line.heading, one.auc - 0.5, one.low - 0.5, one.high - 0.5, _NEW)],
        )
        for line, one in zip(lines, found.drifts, strict=True)
    ]
    drawing = differences(rows, "Drift by quantity", "AUC − 0.5")
    figure = [FigureBlock("drift", [("", drawing)], marks=True)] if drawing is not None else []
    return [TableBlock("drift", table), *figure]


def _medians(one: Drift) -> tuple[str, str]:
    return told_apart(one.known, one.new) if one.change == "shift" else (DASH, DASH)


def _interval(one: Drift) -> str:
    return "" if math.isnan(one.low) else f"{number(one.low)} to {number(one.high)}"


def _histograms(found: Drifts, info: ModelInfo) -> list[Block]:
    drawings = []
    for one in found.quantities:
        name = one.name
        if name == "score" and info.positive is not None:
            name = f"score: probability of {info.positive}"
        unit = None if one.name == "distance" else (0.0, 1.0)
        drawing = histogram(
            {_KNOWN: ("validation", one.known), _NEW: ("log", one.new)},
            f"Distribution of {name}",
            one.name,
            span=unit,
        )
        if drawing is not None:
            drawings.append((name, drawing))
    return [FigureBlock(slug("values"), drawings, _LEGEND)]


def _method(log: PredictionLog, found: Drifts) -> list[str]:
    logged = {
        "statistics of the maps": log.maps,
        "features": log.features,
    }
    missing = [name for name, values in logged.items() if values is None]
    texts = [
        "Shift compares the values, spread their distances from the median of their own side. "
        "Features are compared by a linear classifier (with a shrunk covariance) that is trained "
        "on one half of both sides and tested on the other; neighbors in the log stay together.",
        f"Intervals are of the two-level bootstrap over validation images (or their groups) and "
        f"images of the log, at the level {100 * found.level:.2f} % each, so that all of them "
        "together hold with 95 %. They take the images of the log as independent: with several "
        "images of a patient, a video or a part, they are too narrow. Drift is an "
        "interval without 0.5 and an AUC that is not close to it, or a share of flagged images "
        "that is certainly above the expected rate. A drift of the score may be one of the "
        "classes: it says that the images differ, not that the model is worse.",
    ]
    if found.sampled < len(log):
        texts.append(f"{found.sampled:,} images of the log, drawn at random, are compared.")
    if log.features is not None and all(one.quantity != "features" for one in found.drifts):
        texts.append(
            "Features were not compared: half of the validation images, or of their groups, are "
            "too few."
        )
    if missing:
        texts.append(
            f"Not in the log: {names_of(missing)}. preceptor predict writes them with --log "
            "features."
        )
    return texts


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
