"""Operating points of a detector: what it misses and what it raises in vain, at stated points.

Two kinds of figures are kept apart, since only one of them can be had in use:

- *from the test ROC*: the threshold is placed on the test scores themselves, so that the figure
  describes the scores and no decision (`roc_rates`);
- *at a threshold fixed before*: on validation scores, by a rule (`fixed_threshold`); the test set
  only uses it (`threshold_rates`).

The words are those of presentation attack detection (ISO/IEC 30107-3): a positive is an attack,
its source the attack instrument's species. APCER is the share of one source's attacks that pass
for bona fide, and the worst source's counts; BPCER is the share of bona fide images taken for
attacks; TDR and FDR are the true and false detection rate, over all sources. `terms.py` has the
same figures under the names of other fields. An image is called positive when
`score >= threshold`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.evaluation.metrics import Array, equal_error_rate

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
    """One figure.

    Args:
        measure: eer, tdr, bpcer, apcer (of one source), worst_apcer or acer.
        at: The point of tdr (its FDR) and of bpcer (its APCER); NaN where there is none.
        source: Of apcer: whose; of worst_apcer: which is the worst.
        value: In [0, 1]; NaN where a class is absent or the set is too small for the point.
        note: Why there is no value, or "".
    """

    measure: str
    at: float
    source: str
    value: float
    note: str = ""


def rule_rate(rule: str) -> float | None:
    """The FDR that a threshold rule aims at; None for the rule eer.

    Raises:
        InputError: Neither eer nor fdr=x with x in (0, 1).

    Example:
        >>> rule_rate("fdr=0.01"), rule_rate("eer")
        (0.01, None)
    """
    if rule == "eer":
        return None
    found = re.fullmatch(r"fdr=(\d*\.?\d+(?:e-?\d+)?)", rule)
    if found is None or not 0 < float(found[1]) < 1:
        raise InputError(
            f"threshold {rule!r} is no rule; write eer, or fdr=x with x between 0 and 1"
        )
    return float(found[1])


def known_threshold(rule: str, thresholds: Mapping[str, float], owner: str) -> float:
    """The threshold that a model folder carries for a rule.

    Args:
        rule: eer or fdr=x.
        thresholds: By rule, as in the model's description.
        owner: The model, for the message.

    Raises:
        InputError: Not a rule, or one that the model has no threshold for.

    Example:
        >>> known_threshold("fdr=0.010", {"eer": 0.5, "fdr=0.01": 0.75}, "the model")
        0.75
    """
    key = normal_rule(rule)
    if key not in thresholds:
        has = ", ".join(thresholds) or "none (its validation images could not fix any)"
        raise InputError(f"{owner} carries no threshold {key!r}; it has {has}")
    return thresholds[key]


def normal_rule(rule: str) -> str:
    """A threshold rule as model folders write it.

    Raises:
        InputError: See `rule_rate`.

    Example:
        >>> normal_rule("fdr=0.50")
        'fdr=0.5'
    """
    rate = rule_rate(rule)
    return rule if rate is None else f"fdr={rate:g}"


def fixed_threshold(rule: str, labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """The threshold that a rule places on validation scores.

    `eer` takes that of the equal error rate. `fdr=x` takes the lowest threshold at which at most
    the share x of the negatives is called positive, in the middle of the gap between scores that
    gives it, so that it leaves room on both sides.

    Args:
        rule: eer or fdr=x.
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.

    Returns:
        The threshold; None where a class is absent, where x is less than one of the negatives, or
        where no finite threshold would do (infinite scores).

    Raises:
        InputError: Not a rule, or scores that do not fit.

    Example:
        >>> labels, scores = [False, False, True, True], [0.25, 0.75, 0.5, 1.0]
        >>> fixed_threshold("fdr=0.5", labels, scores), fixed_threshold("fdr=0.1", labels, scores)
        (0.375, None)
    """
    rate = rule_rate(rule)
    found = equal_error_rate(labels, scores)
    if math.isnan(found.eer):
        return None
    if rate is None:
        return found.threshold if math.isfinite(found.threshold) else None
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    highest = _first_refused(values[~positive], rate)
    if highest is None:
        return None
    # Without a score above, even the highest one is a negative too many.
    middle = 0.5 * highest + 0.5 * float(np.min(values[values > highest], initial=np.inf))
    if not highest < middle < math.inf:
        middle = float(np.nextafter(highest, np.inf))
    return middle if math.isfinite(middle) else None


def roc_rates(labels: npt.ArrayLike, scores: npt.ArrayLike, sources: npt.ArrayLike) -> list[Rate]:
    """EER, TDR at each of `FDRS` and BPCER at each of `APCERS`, from these scores themselves.

    A point is reached without interpolation: TDR at FDR x is the highest one at which at most the
    share x of the negatives is called positive; BPCER at APCER y the lowest one at which every
    source's APCER is at most y. A point of less than one image (of the negatives for FDR, of the
    smallest source for APCER) is finer than the set: it has no value.

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.
        sources: (n,) whose image it is; those of negatives do not matter.

    Returns:
        eer, then tdr by `at`, then bpcer by `at`.

    Raises:
        InputError: A score is NaN, or shapes do not fit.

    Reference:
        ISO/IEC 30107-3:2023, Biometric presentation attack detection, Part 3.

    Example:
        >>> labels, scores = [False] * 20 + [True] * 2, [*range(20), 18.5, 30]
        >>> rates = roc_rates(labels, scores, [""] * 22)
        >>> rates[2].note, rates[3].measure, rates[3].value
        ('n too small: 20 negatives, 100 needed', 'tdr', 1.0)
    """
    eer = equal_error_rate(labels, scores).eer
    positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    negatives = values[~positive]
    found = [Rate("eer", math.nan, "", eer)]
    for rate in FDRS:
        value, note = math.nan, ""
        highest = _first_refused(negatives, rate)
        if len(negatives) and highest is None:
            note = f"{TOO_SMALL}: {len(negatives)} negatives, {math.ceil(1 / rate - _SLACK)} needed"
        elif highest is not None and positive.any():
            value = float(np.mean(values[positive] > highest))
        found.append(Rate("tdr", rate, "", value, note))
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
        found.append(Rate("bpcer", rate, "", value, note))
    return found


def threshold_rates(
    labels: npt.ArrayLike, scores: npt.ArrayLike, sources: npt.ArrayLike, threshold: float
) -> list[Rate]:
    """The errors at a threshold that was fixed elsewhere.

    Args:
        labels: (n,) bool, true for the positive class.
        scores: (n,) scores, higher for the positive class.
        sources: (n,) whose image it is; those of negatives do not matter.
        threshold: `score >= threshold` is called positive.

    Returns:
        apcer of each source (sorted), worst_apcer, bpcer, and acer = (worst APCER + BPCER) / 2.

    Raises:
        InputError: A score or the threshold is NaN, or shapes do not fit.

    Example:
        >>> found = threshold_rates([False, True, True], [0.2, 0.4, 0.9], ["", "a", "b"], 0.5)
        >>> [(r.measure, r.source, r.value) for r in found][2:]
        [('worst_apcer', 'a', 1.0), ('bpcer', '', 0.0), ('acer', '', 0.5)]
    """
    equal_error_rate(labels, scores)  # refuses what is no pair of labels and scores
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
    """The highest score at which calling it positive would be one negative too many.

    None where the rate is less than one negative.
    """
    if rate * len(negatives) < 1 - _SLACK:
        return None
    falling = np.sort(negatives)[::-1]
    allowed = int(rate * len(negatives) + _SLACK)
    return float(falling[min(allowed, len(negatives) - 1)])  # a rate below 1 refuses one at least


def _by_source(
    positive: npt.NDArray[np.bool_], values: Array, sources: npt.ArrayLike
) -> dict[str, Array]:
    """The scores of the positives of each source, names sorted."""
    names = np.asarray(sources, dtype=object)
    if names.shape != values.shape:
        raise InputError(f"sources of shape {names.shape} do not fit scores of {values.shape}")
    own = names[positive].astype(str)
    return {str(name): values[positive][own == name] for name in np.unique(own)}
