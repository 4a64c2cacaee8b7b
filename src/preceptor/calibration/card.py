"""Sections of the model card on calibration and unfamiliar images."""

from __future__ import annotations

from preceptor.calibration.fit import Reliability
from preceptor.calibration.make_reference import MadeReference
from preceptor.predictor.model_info import ModelInfo
from preceptor.predictor.reference import DistanceKind
from preceptor.runtime.formatting import between, number

RELIABILITY = "reliability.svg"
"""File of the reliability diagram in a model folder."""

_DISTANCES: dict[DistanceKind, str] = {
    "mahalanobis": "Mahalanobis distance of the features to the nearest class",
    "energy": "energy, minus the log-sum-exp of the logits",
}


def new_card(info: ModelInfo) -> str:
    """Card of a model folder that has none: what the model is."""
    form = info.image_format
    classes = " or ".join(info.classes)
    scored = (
        f"The score is the probability of `{info.positive}`."
        if info.positive
        else "Scores of each class."
    )
    return (
        f"# {info.backbone}: {classes}\n\nA {info.backbone} network that classifies images of "
        f"{form.size} × {form.size} pixels as {classes}. {scored}\n"
    )


def card_sections(made: MadeReference, info: ModelInfo) -> str:
    """Sections of a calibrated model, as Markdown.

    Args:
        made: Reference of the model.
        info: Description of the calibrated model.
    """
    return "\n\n".join([*_calibration(made, info), *_unfamiliar(made)]) + "\n"


def calibration_sentences(made: MadeReference) -> list[str]:
    """Result of a calibration in sentences."""
    calibration = made.reference.calibration
    found = [f"Before: {_error(made.before)}."]
    if calibration is None:
        return [*found, "The probabilities are those of the network."]
    if calibration.kind == "temperature":
        found.insert(0, f"Temperature scaling, T = {number(calibration.temperature)}.")
    else:
        found.insert(0, f"Centered isotonic regression with {len(calibration.knots):,} knots.")
    if made.after is None:
        return [*found, "After: not measured, since parts of the validation images have no fit."]
    return [*found, f"After, by cross-validation: {_error(made.after)}."]


def _error(found: Reliability) -> str:
    error = found.error
    return (
        f"expected calibration error {number(error.value)} (95 % interval "
        f"{between(error.low, error.high)}; {number(error.expected)} on average for a calibrated "
        f"model on as many images), cross-entropy {number(found.cross_entropy)}"
    )


def _calibration(made: MadeReference, info: ModelInfo) -> list[str]:
    about = made.reference.description
    parts = [
        "## Calibration",
        f"Fitted on {about['validation_images']:,} validation images "
        f"({about['validation_sets']}). {' '.join(calibration_sentences(made))}",
        f"![Reliability diagram]({RELIABILITY})",
    ]
    if made.reference.calibration is not None:
        unchanged = (
            "The function is increasing: the AUC of the score and decisions at the thresholds do "
            "not change."
            if info.positive is not None
            else "The most probable class does not change; AUCs of a class against the others, and "
            "their mean, may change."
        )
        parts.append(
            f"{unchanged} `preceptor predict` and `preceptor.load` apply it to probabilities and "
            "thresholds; `model.json` has the thresholds of the network itself, which `preceptor "
            "evaluate` uses."
        )
    if info.thresholds:
        lines = [f"| `{name}` | {value:.6f} |" for name, value in info.thresholds.items()]
        parts.append("\n".join(["| rule | threshold of the score |", "| --- | --- |", *lines]))
    return parts


def _unfamiliar(made: MadeReference) -> list[str]:
    reference = made.reference
    about = reference.description
    low, high = made.alarms
    changes = list(next(iter(made.aucs.values())))
    table = [["distance", *changes, "mean"], ["---"] * (len(changes) + 2)]
    for kind, aucs in made.aucs.items():
        values = [aucs[change] for change in changes]
        table.append([kind, *map(number, [*values, sum(values) / len(values)])])
    return [
        "## Unfamiliar images",
        f"An image is flagged as unfamiliar if at most {reference.rate:g} of the validation images "
        f"are as far from the training images: a false alarm for {_percent(reference.rate)} of "
        f"images of the same kind ({_percent(low)} to {_percent(high)} for 95 % of the validation "
        f"sets of {about['validation_images']:,} independent images; a wider range if images of a "
        f"group are alike). The distance is the {_DISTANCES[reference.kind]}, estimated on "
        f"{about['training_images']:,} training images.",
        f"It was chosen by the AUC with which it tells {about['copied_images']:,} validation "
        "images from changed copies of them, mean over changes; images of other kinds were not "
        "used, so that it is not known how many of them are flagged.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in table),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
