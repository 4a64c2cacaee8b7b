"""Error rates of a binary detector (APCER, BPCER, TDR at FDR) at chosen operating points.

Two kinds of error rates are distinguished; only the second is achievable in deployment:

- *on the test ROC curve*: the threshold is chosen on the test scores themselves (`roc_rates`);
- *at a fixed threshold*: the threshold is chosen on validation scores by a rule
  (`fixed_threshold`) and applied to the test set (`threshold_rates`).

The terms are those of presentation attack detection (ISO/IEC 30107-3): a positive is an attack,
its source the species of the attack instrument. APCER is the share of the attacks of one source
that are classified as bona fide; the worst source is reported. BPCER is the share of bona fide
images classified as attacks. TDR and FDR are the true and false detection rate over all sources.
An image is classified as positive if
`score >= threshold`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.metrics.auc import Array, equal_error_rate

Field = Literal["pad", "medical", "generic"]


@dataclass(frozen=True)
class Terms:
    """Names of the error rates of `operating_points`."""

    positive: str
    negative: str
    source: str
    eer: str
    tdr: str
    fdr: str
    apcer: str  # name of the share of the positives of one source classified as negative
    worst_apcer: str  # name of the largest such share over sources
    bpcer: str  # name of the share of negatives classified as positive
    acer: str  # name of the mean of the previous two


TERMS: dict[Field, Terms] = {
    "pad": Terms(
        *("attack", "bona fide", "attack source", "EER", "TDR", "FDR"),
        *("APCER", "APCER, worst source", "BPCER", "ACER"),
    ),
    "medical": Terms(
        *("diseased", "healthy", "group of cases", "equal error rate", "Sensitivity"),
        *("1 − specificity", "Missed (1 − sensitivity)", "Missed, worst group"),
        *("False alarms (1 − specificity)", "Mean of both errors"),
    ),
    "generic": Terms(
        *("positive", "negative", "source", "EER", "True positive rate", "FPR"),
        *("False negative rate", "False negative rate, worst source"),
        *("False positive rate", "Half total error rate"),
    ),
}
FDRS = (0.001, 0.01, 0.05)
"""False detection rates at which the true detection rate is given."""
APCERS = (0.05, 0.01)
"""The worst source's APCER at which BPCER is given."""
RULES = ("eer", *(f"fdr={rate:g}" for rate in FDRS))
"""Rules whose thresholds every model folder carries, as far as validation can fix them."""
TOO_SMALL = "n too small"

_SLACK = 1e-9  # 0.05 · 20 is one image, whatever the rounding


@dataclass(frozen=True)
class Rate:
    """One error or detection rate."""

    measure: str  # eer, tdr, bpcer, apcer (of one source), worst_apcer or acer
    at: float  # operating point: the FDR for tdr, the APCER for bpcer; NaN for other measures
    source: str  # source for apcer, the worst source for worst_apcer, otherwise ""
    value: float  # rate in [0, 1]
    note: str = ""


def rule_rate(rule: str) -> float | None:
    """FDR of a threshold rule; None for the rule eer."""
    plain = rule.strip().lower()
    if plain == "eer":
        return None
    # BPCER is the name of the false positive rate in presentation attack detection.
    match = re.fullmatch(r"(?:fdr|bpcer)=?(\d*\.?\d+(?:e-?\d+)?)(%?)", plain)
    rate = float(match[1]) / (100 if match[2] else 1) if match else 0
    if not 0 < rate < 1:
        raise InputError(f"threshold {rule!r} is not a rule; write eer, or one such as fdr5%")
    return rate


def known_threshold(rule: str, thresholds: Mapping[str, float], owner: str) -> float:
    """Threshold of a model for a rule, or by its name."""
    key = rule if rule in thresholds else normal_rule(rule)
    if key not in thresholds:
        why = "it has no positive class, or its validation images could not fix any"
        has = ", ".join(thresholds) or f"none ({why})"
        raise InputError(f"threshold {rule!r}: {owner} has no such threshold; it has {has}")
    return thresholds[key]


def normal_rule(rule: str) -> str:
    """Threshold rule in its canonical spelling, as in `model.json`."""
    rate = rule_rate(rule)
    return "eer" if rate is None else f"fdr={rate:g}"


def fixed_threshold(rule: str, labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Threshold of a rule on validation scores; None if these cannot fix it.

    `eer` is the threshold of the equal error rate. `fdr=x` is the lowest threshold at which at most
    the share x of the negatives is classified as positive, placed in the middle of the gap between
    the two scores that bound it.
    """
    rate = rule_rate(rule)
    equal = equal_error_rate(labels, scores)
    if math.isnan(equal.eer):
        return None
    if rate is None:
        return equal.threshold if math.isfinite(equal.threshold) else None
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    highest = _first_refused(values[~positive], rate)
    if highest is None:
        return None
    # If no score is above it, no finite threshold excludes this negative.
    middle = 0.5 * highest + 0.5 * float(np.min(values[values > highest], initial=np.inf))
    if not highest < middle < math.inf:
        middle = float(np.nextafter(highest, np.inf))
    return middle if math.isfinite(middle) else None


def roc_rates(labels: npt.ArrayLike, scores: npt.ArrayLike, sources: npt.ArrayLike) -> list[Rate]:
    """EER, TDR at each of `FDRS` and BPCER at each of `APCERS`, on the ROC curve of these scores.

    Labels are (n,) bool, sources (n,) names of the sources of the positives.

    Operating points are not interpolated. TDR at FDR x is the highest TDR at which at most the
    share x of the negatives is classified as positive; BPCER at APCER y is the lowest BPCER at
    which the APCER of every source is at most y. If an operating point corresponds to less than
    one image (of the negatives for FDR, of the smallest source for APCER), it has no value.

    ISO/IEC 30107-3:2023, Biometric presentation attack detection, Part 3.
    """
    eer = equal_error_rate(labels, scores).eer
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    negatives = values[~positive]
    rates = [Rate("eer", math.nan, "", eer)]
    for rate in FDRS:
        value, note = math.nan, ""
        highest = _first_refused(negatives, rate)
        if len(negatives) and highest is None:
            note = f"{TOO_SMALL}: {len(negatives)} negatives, {math.ceil(1 / rate - _SLACK)} needed"
        elif highest is not None and positive.any():
            value = float(np.mean(values[positive] > highest))
        rates.append(Rate("tdr", rate, "", value, note))
    parts = _by_source(positive, values, sources)
    for rate in APCERS:
        value, note = math.nan, ""
        short = {name: len(part) for name, part in parts.items() if rate * len(part) < 1 - _SLACK}
        if short:
            name = min(short, key=lambda key: short[key])
            of = f" of {name}" if name else " positives"
            note = f"{TOO_SMALL}: {short[name]}{of}, {math.ceil(1 / rate - _SLACK)} needed"
        elif parts and len(negatives):
            lowest = min(np.sort(part)[int(rate * len(part) + _SLACK)] for part in parts.values())
            value = float(np.mean(negatives >= lowest))
        rates.append(Rate("bpcer", rate, "", value, note))
    return rates


def threshold_rates(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sources: npt.ArrayLike, threshold: float
) -> list[Rate]:
    """APCER of each source, the worst one, BPCER and ACER at a threshold, see `roc_rates`."""
    equal_error_rate(labels, scores)  # checks labels and scores
    if math.isnan(threshold):
        raise InputError("the threshold is NaN: fix it on validation scores again")
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    nan = math.nan
    apcers = {
        name: float(np.mean(part < threshold))
        for name, part in _by_source(positive, values, sources).items()
    }
    negatives = values[~positive]
    bpcer = float(np.mean(negatives >= threshold)) if len(negatives) else nan
    worst = max(apcers, key=lambda name: apcers[name]) if apcers else ""
    worst_apcer = apcers.get(worst, nan)
    return [
        *(Rate("apcer", nan, name, value) for name, value in apcers.items()),
        Rate("worst_apcer", nan, worst, worst_apcer),
        Rate("bpcer", nan, "", bpcer),
        Rate("acer", nan, "", (worst_apcer + bpcer) / 2),
    ]


def _first_refused(negatives: Array, rate: float) -> float | None:
    """Highest negative score to refuse at a false positive rate; None below one negative."""
    if rate * len(negatives) < 1 - _SLACK:
        return None
    falling = np.sort(negatives)[::-1]
    allowed = int(rate * len(negatives) + _SLACK)
    return float(falling[min(allowed, len(negatives) - 1)])  # a rate below 1 excludes at least one


def _by_source(
    positive: npt.NDArray[np.bool_], values: Array, sources: npt.ArrayLike
) -> dict[str, Array]:
    """Scores of the positives by source, sorted by name."""
    names = np.asarray(sources, dtype=object)
    if names.shape != values.shape:
        raise InputError(f"sources of shape {names.shape} do not fit scores of {values.shape}")
    own = names[positive].astype(str)
    return {str(name): values[positive][own == name] for name in np.unique(own)}
