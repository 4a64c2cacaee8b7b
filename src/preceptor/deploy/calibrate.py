"""Calibration of a trained model on validation, and its distance from images of other kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import beta

from preceptor.data.manifest import Manifest
from preceptor.deploy.network import (
    REFERENCE,
    REFERENCE_FILES,
    SMALLEST,
    DistanceKind,
    Gaussians,
    Reference,
    calibrated,
    steps_at,
    write_reference,
)
from preceptor.deploy.prediction import Calibration, ModelInfo, scores_of, threshold_text
from preceptor.deploy.predictor import ImageInput, Predictor, read_pixels
from preceptor.errors import InputError
from preceptor.metrics.auc import auc
from preceptor.metrics.paired_tests import unit_codes
from preceptor.metrics.reliability import (
    TEMPERATURES,
    Bins,
    CalibrationError,
    calibration_error,
    cross_entropy,
    fit_isotonic,
    fit_temperature,
    ledoit_wolf,
    reliability_bins,
)
from preceptor.metrics.split_names import kind_of
from preceptor.models.build import MODEL_FILES
from preceptor.report.figures import reliability_plot
from preceptor.utils.files import copy_folder, replacing
from preceptor.utils.plugins import check_model_folder
from preceptor.utils.results import write_checksums
from preceptor.utils.text import interval, number

Method = Literal["temperature", "isotonic", "none"]
Advance = Callable[[int], None]
StartTask = Callable[[str, int], Advance]
"""Function of a task's name and number of images that returns the function that advances it."""
Pixels = NDArray[np.uint8]

RATE = 0.01
FOLDS = 5
RELIABILITY = "reliability.svg"
"""File of the reliability diagram in a model folder."""
_CARD = "README.md"
_SAMPLE = 10_000
# Validation images whose changed copies are predicted.
_COPIED = 200
_TILES = 4  # per side
_LEAST = 8  # pixels of a side: smaller images have no tiles


class Observations(NamedTuple):
    """What a model computes for n images: (n, C), (n, p) and (n,) float32."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    energies: NDArray[np.float32]


def observe(
    predictor: Predictor,
    images: Iterable[ImageInput],
    *,
    advance: Advance = lambda count: None,
) -> Observations:
    """Run a model over images, at least one."""
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for batch in predictor.batches(images, maps=False):
        for bad in batch.bad.values():
            raise InputError(f"{bad.source}: {bad.reason}; repair or remove it")
        assert batch.predictions is not None
        out = batch.predictions.output
        if out.features is None or out.energies is None:
            raise InputError(f"{predictor.info.backbone}: this model returns no features")
        parts.append((out.probabilities, out.features, out.energies))
        advance(batch.count)
    return Observations(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def sampled(table: pd.DataFrame, size: int) -> pd.DataFrame:
    """Rows of a table, at most `size` of them, drawn at random and in their order."""
    if len(table) <= size:
        return table
    drawn = np.random.default_rng(0).choice(len(table), size, replace=False)
    return table.iloc[np.sort(drawn)]


# -------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities on validation, and the mean cross-entropy of the hits."""

    error: CalibrationError
    bins: Bins
    cross_entropy: float


def fit_calibration(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    positive: int | None,
    method: Literal["temperature", "isotonic"],
) -> Calibration:
    """Fit a calibration to labelled images."""
    given, classes = probabilities.astype(np.float64), labels
    if positive is not None:
        rest = np.delete(given, positive, 1).sum(1)  # 1 − score, precise where that is close to 1
        given, classes = np.stack([rest, given[:, positive]], 1), labels == positive
    logarithms = np.log(np.maximum(given, SMALLEST))
    if method == "isotonic":
        if positive is None:
            raise InputError(
                "isotonic regression is of the score, and the model has no positive class; choose "
                "temperature"
            )
        knots, values = fit_isotonic(classes, logarithms[:, 1] - logarithms[:, 0])
        return Calibration("isotonic", knots=tuple(knots.tolist()), values=tuple(values.tolist()))
    temperature = fit_temperature(classes, logarithms)
    low, high = TEMPERATURES
    if temperature < low * 1.001:
        raise InputError(
            f"no temperature above {low:g} is best: the validation images are classified without "
            "an error; choose the method isotonic or none, or add validation images"
        )
    # At an infinite temperature all classes are equal. The derivative of the cross-entropy there
    # says whether the scores are better than that.
    own = logarithms[np.arange(len(given)), np.asarray(classes, np.int64)]
    if temperature > high * 0.999 and float((own - logarithms.mean(1)).mean()) <= 0:
        raise InputError(
            "no temperature is best: the scores say nothing about the classes of the validation "
            "images; choose the method none, and check the model"
        )
    return Calibration("temperature", temperature)


def reliability(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.object_],
    positive: int | None,
) -> Reliability:
    """Reliability of the score, or without a positive class of the most probable class."""
    scores = scores_of(probabilities, positive).astype(np.float64).clip(0, 1)
    hits = labels == (probabilities.argmax(1) if positive is None else positive)
    return Reliability(
        calibration_error(hits, scores, groups),
        reliability_bins(hits, scores),
        cross_entropy(hits, scores),
    )


def apply(
    calibration: Calibration,
    probabilities: NDArray[np.float32],
    positive: int | None,
    thresholds: Iterable[float] = (),
) -> NDArray[np.float32]:
    """Calibrated probabilities as an array, with decisions kept at thresholds of the score."""
    steps = steps_at(calibration, thresholds)
    found = calibrated(torch.from_numpy(probabilities), calibration, positive, steps)
    return np.asarray(found.numpy(), np.float32)


def cross_validated(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.object_],
    positive: int | None,
    method: Literal["temperature", "isotonic"],
) -> NDArray[np.float32] | None:
    """Probabilities of which each part is calibrated by a fit to the other parts.

    An error on the images of the fit itself would be too small. Images of a group are in the same
    part. None if a part of few images has no fit.
    """
    units = unit_codes(groups, len(labels))
    drawn = np.random.default_rng(0).permutation(int(units.max()) + 1) % FOLDS
    parts = drawn[units]
    found = np.empty(probabilities.shape, np.float32)
    for part in range(FOLDS):
        own = parts == part
        try:
            fitted = fit_calibration(probabilities[~own], labels[~own], positive, method)
        except InputError:
            return None
        found[own] = apply(fitted, probabilities[own], positive)
    return found


def fit_gaussians(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Gaussians:
    """Normal distribution of (n, p) features for each class, with one covariance.

    It is the covariance of the deviations from the class means (K. Lee et al., NeurIPS 2018), with
    the shrinkage of Ledoit and Wolf: otherwise it has no inverse for more features than images.
    """
    values = features.astype(np.float64)
    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([values[place == index].mean(0) for index in range(len(classes))])
    covariance, _ = ledoit_wolf(values - means[place])
    # W = L⁻¹ with L Lᵀ = covariance, so that WᵀW is its inverse.
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return Gaussians(means.astype(np.float32), whitening.astype(np.float32))


def choose_distance(
    plain: Mapping[DistanceKind, NDArray[np.float64]],
    changed: Mapping[str, Mapping[DistanceKind, NDArray[np.float64]]],
) -> tuple[DistanceKind, dict[DistanceKind, dict[str, float]]]:
    """Kind of distance that best tells validation images from changed copies, and all AUCs.

    Images of other kinds are not needed. The kind with the highest mean AUC over the changes is
    chosen; of equal ones, the first.
    """

    def auc_of(near: NDArray[np.float64], far: NDArray[np.float64]) -> float:
        is_far = np.repeat([False, True], [len(near), len(far)])
        return auc(is_far, np.concatenate([near, far]))

    found = {
        kind: {change: auc_of(plain[kind], copies[kind]) for change, copies in changed.items()}
        for kind in plain
    }
    return max(found, key=lambda kind: sum(found[kind].values())), found


def _tiles(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Permuted tiles: the colors and textures, without the structure."""
    height, width = (side // _TILES * _TILES for side in pixels.shape[:2])
    if min(height, width) < _LEAST:
        return _negative(pixels, generator)
    cut = pixels[:height, :width]
    high, wide = height // _TILES, width // _TILES
    tiles = cut.reshape(_TILES, high, _TILES, wide, -1).swapaxes(1, 2).reshape(-1, high, wide, 3)
    mixed = tiles[generator.permutation(len(tiles))].reshape(_TILES, _TILES, high, wide, 3)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3))


def _blur(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Blurred by a twentieth of the shorter side: the structure, without textures."""
    radius = min(pixels.shape[:2]) / 20
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _negative(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """Inverted colors: the structure, with other colors."""
    return np.asarray(255 - pixels, np.uint8)


def _noise(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Mean of the image and noise."""
    noise = generator.integers(0, 256, pixels.shape)
    return ((pixels.astype(np.int64) + noise) // 2).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "tiles": _tiles,
    "blur": _blur,
    "negative": _negative,
    "noise": _noise,
}
"""Function of RGB pixels and a random generator, by the name of the change."""


def changed_copies(images: Sequence[ImageInput], change: str) -> Iterator[Pixels]:
    """Copies with a change of `CHANGES`, whose random numbers depend on the position only."""
    for place, image in enumerate(images):
        yield CHANGES[change](read_pixels(image), np.random.default_rng(place))


@dataclass(frozen=True)
class MadeReference:
    """Reference with what is said about it."""

    reference: Reference
    before: Reliability  # of the network on validation
    after: Reliability | None  # by cross-validation; None without a calibration or enough images
    aucs: dict[DistanceKind, dict[str, float]]  # by distance and change of validation images


def make_reference(
    predictor: Predictor,
    manifest: Manifest,
    *,
    method: Method = "temperature",
    rate: float = RATE,
    sample: int = _SAMPLE,
    start_task: StartTask = lambda name, total: lambda count: None,
) -> MadeReference:
    """Calibrate a model on the validation images, and measure how far images are from training."""
    info = predictor.info
    table = manifest.table
    valid = table[(kind_of(table["split"]) == "val")]
    train = sampled(manifest.train_split, sample)
    _check(valid, train, info.classes, rate)
    labels, groups = _codes(valid, info.classes), valid["group"].to_numpy(object)
    own = observe(predictor, valid["path"], advance=start_task("validation images", len(valid)))
    trained = observe(predictor, train["path"], advance=start_task("training images", len(train)))
    gaussians = fit_gaussians(trained.features, _codes(train, info.classes))

    def distances(of: Observations) -> dict[DistanceKind, NDArray[np.float64]]:
        found = {"mahalanobis": gaussians.distances(of.features), "energy": of.energies}
        return {kind: np.asarray(found[kind], np.float64) for kind in get_args(DistanceKind)}

    count = min(_COPIED, len(valid))
    some = np.unique(np.linspace(0, len(valid) - 1, count).round().astype(np.int64))
    paths = valid["path"].iloc[some].tolist()
    advance = start_task("changed copies", len(paths) * len(CHANGES))
    changed = {
        change: distances(observe(predictor, changed_copies(paths, change), advance=advance))
        for change in CHANGES
    }
    plain = distances(own)
    kind, aucs = choose_distance({one: values[some] for one, values in plain.items()}, changed)

    positive = info.positive_index
    calibration, after = None, None
    probabilities = own.probabilities
    if method != "none":
        calibration = fit_calibration(own.probabilities, labels, positive, method)
        probabilities = apply(calibration, probabilities, positive, info.thresholds.values())
        outside = cross_validated(own.probabilities, labels, groups, positive, method)
        after = None if outside is None else reliability(outside, labels, groups, positive)
    reference = Reference(
        calibration=calibration,
        kind=kind,
        rate=rate,
        gaussians=gaussians if kind == "mahalanobis" else None,
        probabilities=probabilities,
        labels=labels,
        distances=plain[kind],
        description={
            "manifest": manifest.source.name if manifest.source else "",
            "training_images": len(train),
            "validation_images": len(valid),
            "validation_sets": ", ".join(dict.fromkeys(valid["split"])),
            "copied_images": len(some),
        },
    )
    before = reliability(own.probabilities, labels, groups, positive)
    return MadeReference(reference, before, after, aucs)


def alarm_interval(images: int, rate: float) -> tuple[float, float]:
    """Interval with 95 % of the false alarm rates of validation sets of a size.

    With k = ⌊rate · (n + 1)⌋, the rate on further images of the same kind has the beta distribution
    with parameters k and n + 1 − k.
    """
    count = math.floor(rate * (images + 1) + 1e-9)
    rates = beta(count, images + 1 - count)
    return float(rates.ppf(0.025)), float(rates.ppf(0.975))


def smallest_rate(images: int) -> float:
    """Smallest rate of false alarms that validation images allow, to two digits, rounded up."""
    rate = 1 / (images + 1)
    step = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f"{math.ceil(rate / step - 1e-9) * step:.2g}")


def _check(valid: pd.DataFrame, train: pd.DataFrame, classes: tuple[str, ...], rate: float) -> None:
    if missing := sorted(set(classes) - set(valid["label"])):
        raise InputError(
            f"there are no validation images of the class {missing[0]!r}; a calibration needs "
            "every class"
        )
    least = math.ceil(1 / rate - 1e-9) - 1
    if len(valid) < least:
        raise InputError(
            f"a false alarm rate of {rate:g} needs {least:,} validation images, and there are "
            f"{len(valid):,}; add some, or set the rate to {smallest_rate(len(valid)):g} or more"
        )
    if len(train) < 2 or train["label"].nunique() == len(train):
        raise InputError(
            f"there are {len(train)} training images; distances need several of each class"
        )


def _codes(table: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int64]:
    place = {name: index for index, name in enumerate(classes)}
    return np.asarray(table["label"].map(place), np.int64)


def check_uncalibrated(model: Path) -> None:
    """Check that a model can be calibrated."""
    check_model_folder(model)
    if (model / REFERENCE).exists():
        raise InputError(
            f"{model} is calibrated already; calibrate the folder that it was made from"
        )


def write_calibrated(model: Path, made: MadeReference, info: ModelInfo, out: Path) -> None:
    """Copy a model folder, and add the reference, its card and their checksums."""
    with replacing(out) as partial:
        copy_folder(model, partial)
        write_reference(made.reference, partial)
        card = partial / _CARD
        text = f"# {info.backbone}: {' or '.join(info.classes)}\n"
        if card.is_file():
            text = card.read_text(encoding="utf-8")
        card.write_text(f"{text.rstrip()}\n\n{card_section(made, info)}", encoding="utf-8")
        (partial / RELIABILITY).write_text(_diagram(made, info), encoding="utf-8")
        write_checksums(partial, (*MODEL_FILES, *REFERENCE_FILES))


def _diagram(made: MadeReference, info: ModelInfo) -> str:
    """Reliability diagram on validation as an SVG file."""
    curves = {"baseline2": ("before", made.before.bins)}
    if made.after is not None:
        curves["student"] = ("after, cross-validated", made.after.bins)
    words = ("mean score", f"share of {info.positive}")
    if info.positive is None:
        words = ("mean highest probability", "share of correct decisions")
    return reliability_plot(curves, "Reliability on validation", *words).svg


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
        f"{interval(error.low, error.high, sign=False)}; {number(error.expected)} on average for a "
        f"calibrated model on as many images), cross-entropy {number(found.cross_entropy)}"
    )


def card_section(made: MadeReference, info: ModelInfo) -> str:
    """Section of a calibrated model in its card, as Markdown."""
    reference = made.reference
    about = reference.description
    low, high = alarm_interval(len(reference.labels), reference.rate)
    aucs = ", ".join(
        f"{kind} {number(sum(each.values()) / len(each))}" for kind, each in made.aucs.items()
    )
    thresholds = ", ".join(f"{rule} {threshold_text(at)}" for rule, at in info.thresholds.items())
    return "\n".join([
        "## Calibration",
        "",
        f"Fitted on {about['validation_images']:,} validation images "
        f"({about['validation_sets']}). {' '.join(calibration_sentences(made))}",
        *([f"Thresholds of the score: {thresholds}."] if thresholds else []),
        "`preceptor predict` and `preceptor.load` use them; `model.json` has those of the network "
        "itself.",
        "",
        f"![Reliability diagram]({RELIABILITY})",
        "",
        "## Unfamiliar images",
        "",
        f"An image is flagged if at most {reference.rate:g} of the validation images are as far "
        f"from the {about['training_images']:,} training images: a false alarm for "
        f"{100 * reference.rate:.3g} % of images of the same kind ({100 * low:.3g} % to "
        f"{100 * high:.3g} % for 95 % of the validation sets of this size). The distance is "
        f"{reference.kind}. It was chosen by the mean AUC between {about['copied_images']:,} "
        f"validation images and changed copies of them: {aucs}. Images of other kinds were not "
        "used, so that it is not known how many of them are flagged.",
        "",
    ])  # fmt: skip
