"""Reliability of probabilities, and calibration of a trained model on validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from preceptor.data.manifest import Manifest
from preceptor.deploy.network import CALIBRATION, SMALLEST, calibrated
from preceptor.deploy.prediction import Calibration, ModelInfo, Predictions, joined, scores_of
from preceptor.deploy.predictor import ImageInput, Predictor
from preceptor.errors import InputError
from preceptor.metrics.auc import Array
from preceptor.metrics.split_names import kind_of
from preceptor.models.build import MODEL_FILES
from preceptor.utils.files import copy_folder, replacing
from preceptor.utils.results import check_model_folder, strict_json, write_checksums
from preceptor.utils.text import number, threshold_text

Advance = Callable[[int], None]
_CARD = "README.md"


def observe(
    predictor: Predictor, images: Iterable[ImageInput], advance: Advance = lambda count: None
) -> Predictions:
    """Predictions without maps for images, at least one; InputError for one that is damaged."""
    parts: list[Predictions] = []
    for batch in predictor.batches(images, maps=False):
        for bad in batch.bad.values():
            raise InputError(f"{bad.source}: {bad.reason}; repair or remove it")
        assert batch.predictions is not None
        parts.append(batch.predictions)
        advance(batch.count)
    return joined(parts)


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities on validation, and the mean cross-entropy of the hits."""

    error: float  # expected calibration error
    expected: float  # that of a calibrated model on as many images
    cross_entropy: float


def fit_calibration(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    positive: int | None,
) -> Calibration:
    """Fit the temperature to labelled images."""
    given, classes = probabilities.astype(np.float64), labels
    if positive is not None:
        rest = np.delete(given, positive, 1).sum(1)  # 1 − score, precise where that is close to 1
        given, classes = np.stack([rest, given[:, positive]], 1), labels == positive
    logarithms = np.log(np.maximum(given, SMALLEST))
    temperature = fit_temperature(classes, logarithms)
    low, high = TEMPERATURES
    if temperature < low * 1.001:
        raise InputError(
            f"no temperature above {low:g} is best: the validation images are classified without "
            "an error; add validation images"
        )
    # At an infinite temperature all classes are equal. The derivative of the cross-entropy there
    # says whether the scores are better than that.
    own = logarithms[np.arange(len(given)), np.asarray(classes, np.int64)]
    if temperature > high * 0.999 and float((own - logarithms.mean(1)).mean()) <= 0:
        raise InputError(
            "no temperature is best: the scores say nothing about the classes of the validation "
            "images; check the model"
        )
    return Calibration(temperature)


def reliability(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    positive: int | None,
) -> Reliability:
    """Reliability of the score, or without a positive class of the most probable class."""
    scores = scores_of(probabilities, positive).astype(np.float64).clip(0, 1)
    hits = labels == (probabilities.argmax(1) if positive is None else positive)
    error, expected = calibration_error(hits, scores)
    return Reliability(error, expected, cross_entropy(hits, scores))


@dataclass(frozen=True)
class Fitted:
    """Calibration with what is said about it."""

    calibration: Calibration
    before: Reliability  # of the network on validation
    after: Reliability  # on the same images: one number was fitted to all of them
    images: int
    sets: tuple[str, ...]  # names of the validation sets


def calibrate(
    predictor: Predictor,
    manifest: Manifest,
    advance: Advance = lambda count: None,
) -> Fitted:
    """Calibrate a model on the validation images of a manifest."""
    classes, positive = predictor.info.classes, predictor.info.positive_index
    valid = manifest.table[kind_of(manifest.table["split"]) == "val"]
    if missing := sorted(set(classes) - set(valid["label"])):
        raise InputError(
            f"there are no validation images of the class {missing[0]!r}; a calibration needs "
            "every class"
        )
    labels = np.asarray(valid["label"].map(classes.index), np.int64)
    probabilities = observe(predictor, valid["path"], advance).probabilities
    calibration = fit_calibration(probabilities, labels, positive)
    changed = calibrated(torch.from_numpy(probabilities), calibration, positive).numpy()
    return Fitted(
        calibration,
        before=reliability(probabilities, labels, positive),
        after=reliability(changed, labels, positive),
        images=len(valid),
        sets=tuple(dict.fromkeys(valid["split"])),
    )


def check_uncalibrated(model: Path) -> None:
    """Check that a model can be calibrated."""
    check_model_folder(model)
    if (model / CALIBRATION).exists():
        raise InputError(
            f"{model} is calibrated already; calibrate the folder that it was made from"
        )


def write_calibrated(model: Path, fitted: Fitted, info: ModelInfo, out: Path) -> None:
    """Copy a model folder, and add the calibration, its card and its checksum."""
    with replacing(out, new=True) as partial:
        copy_folder(model, partial)
        content = strict_json(asdict(fitted.calibration)) + "\n"
        (partial / CALIBRATION).write_text(content, encoding="utf-8")
        card = partial / _CARD
        text = f"# {info.backbone}: {' or '.join(info.classes)}\n"
        if card.is_file():
            text = card.read_text(encoding="utf-8")
        card.write_text(f"{text.rstrip()}\n\n{card_section(fitted, info)}", encoding="utf-8")
        write_checksums(partial, (*MODEL_FILES, CALIBRATION))


def calibration_sentences(fitted: Fitted) -> list[str]:
    """Result of a calibration in sentences."""
    return [
        f"Temperature scaling, T = {number(fitted.calibration.temperature)}.",
        f"Before: {_error(fitted.before)}.",
        f"After: {_error(fitted.after)}.",
    ]


def _error(measured: Reliability) -> str:
    return (
        f"expected calibration error {number(measured.error)} ({number(measured.expected)} for a "
        f"calibrated model on as many images), cross-entropy {number(measured.cross_entropy)}"
    )


def card_section(fitted: Fitted, info: ModelInfo) -> str:
    """Section of a calibrated model in its card, as Markdown."""
    thresholds = ", ".join(f"{rule} {threshold_text(at)}" for rule, at in info.thresholds.items())
    return "\n".join([
        "## Calibration",
        "",
        f"Fitted on {fitted.images:,} validation images ({', '.join(fitted.sets)}). "
        f"{' '.join(calibration_sentences(fitted))}",
        *([f"Thresholds of the score: {thresholds}."] if thresholds else []),
        "`preceptor predict` and `preceptor.load` use them; `model.json` has those of the network "
        "itself.",
        "",
    ])  # fmt: skip


BINS = 10
_SIMULATED = 100


def calibration_error(
    hits: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS
) -> tuple[float, float]:
    """Expected calibration error (ECE), and that of a calibrated model on as many images.

    The ECE is Σ_b n_b / n · |share of hits − mean score| over bins with equal numbers of images. It
    is above 0 for a calibrated model, too, by the noise of the shares: its mean over simulated hits
    with the scores as probabilities.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015.
    """
    truth, values = _checked(hits, scores)
    places, generator = _places(values, bins), np.random.default_rng(0)

    def error(shown: Array) -> float:
        return float(np.abs(np.bincount(places, shown - values)).sum() / len(values))

    drawn = (generator.random(len(values)) < values for _ in range(_SIMULATED))
    return error(truth), float(np.mean([error(np.asarray(one, np.float64)) for one in drawn]))


def _checked(hits: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array]:
    truth, values = np.asarray(hits, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or not len(truth):
        raise InputError(f"hits {truth.shape} and scores {values.shape} must be (n,), n ≥ 1")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("a score is not a probability in [0, 1]")
    return truth, values


def _places(values: Array, bins: int) -> npt.NDArray[np.int64]:
    """Bin of each image: by the rank of its score, equal scores together."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray((middle * bins / len(values)).astype(np.int64)[index])


TEMPERATURES = (0.05, 1000.0)
"""Range of temperatures; a fit at its end is no calibration."""

_HALVINGS = 60
# A slope that is rounding: where all images are right, it vanishes before the end of the range.
_FLAT = 1e-12


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Temperature T with the smallest cross-entropy of softmax(logits / T).

    The cross-entropy is convex in 1/T, so that its derivative has one zero, which is found by
    halving in log T.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017.
    """
    classes, values = np.asarray(labels, np.int64), np.asarray(logits, np.float64)
    if values.ndim != 2 or classes.shape != values.shape[:1] or not len(classes):
        raise InputError(
            f"labels {classes.shape} and logits {values.shape} must be (n,) and (n, C), n ≥ 1"
        )
    own = values[np.arange(len(values)), classes]

    def slope(temperature: float) -> float:
        """Derivative of the cross-entropy with respect to 1/T."""
        scaled = values / temperature
        shares = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
        return float(((shares * values).sum(1) - own).mean())

    low, high = np.log(TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) < _FLAT else (middle, high)
    return float(np.exp((low + high) / 2))


def cross_entropy(hits: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean cross-entropy of the probability of the positive class; infinite for a sure error."""
    truth, values = np.asarray(hits, bool), np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(np.where(truth, values, 1 - values)).mean())
