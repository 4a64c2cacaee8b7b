"""Threshold of the decision: the name of a rule, or a number."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

from preceptor.errors import InputError
from preceptor.predictor.json_keys import is_number, no_constant
from preceptor.predictor.model_info import ModelInfo

DEFAULT_RULE = "eer"
EXPORT_RULE = "export"
"""Name of the threshold by which an exported file decides, if it is not that of `DEFAULT_RULE`."""
# fdr5% and bpcer5% are both the false positive rate: BPCER is its name in presentation attack
# detection.
_PERCENT = re.compile(r"(?:fdr|bpcer)=?(\d*\.?\d+)%")
_SHARE = re.compile(r"(?:fdr|bpcer)=(\d*\.?\d+(?:e-?\d+)?)")


def find_threshold(threshold: str | float | None, info: ModelInfo) -> float | None:
    """Threshold of the score.

    Args:
        threshold: Name of a rule, as in `model.json` (eer, fdr=0.05) or with a percentage (fdr5%,
            bpcer5%); a number from 0 to 1; or None, which is the threshold of the export for
            exported files, else eer for models that have it.
        info: Description of the model.

    Returns:
        Threshold; None = the decision is the most probable class.

    Raises:
        InputError: The model has no such threshold or no positive class, or the number is not from
            0 to 1.

    Example:
        >>> from preceptor.config.settings import ImageFormat
        >>> info = ModelInfo(("a", "b"), "b", ImageFormat(64), (0.5,) * 3, (0.5,) * 3, "net", "cam",
        ...                  {"eer": 0.4, "fdr=0.05": 0.7})
        >>> [find_threshold(one, info) for one in (None, "bpcer5%", "fdr=0.05", "0.25", 0.5)]
        [0.4, 0.7, 0.7, 0.25, 0.5]
    """
    if threshold is None:
        return info.thresholds.get(EXPORT_RULE, info.thresholds.get(DEFAULT_RULE))
    if info.positive is None:
        raise InputError(
            f"threshold {threshold!r}: the model has no positive class; remove the threshold, and "
            "the decision is the most probable class"
        )
    number = _number(threshold)
    if number is not None:
        if not math.isfinite(number):
            raise InputError(f"threshold {threshold!r} is not a finite number")
        if not 0 <= number <= 1:
            raise InputError(
                f"threshold {threshold!r}: a score is a probability; give a number from 0 to 1, or "
                "the name of a rule, such as fdr5%"
            )
        return number
    name = rule_name(str(threshold))
    if name not in info.thresholds:
        known = ", ".join(info.thresholds) or "none"
        raise InputError(
            f"threshold {threshold!r}: the model has no such threshold; it has {known}; name one, "
            "or give a number"
        )
    return info.thresholds[name]


def with_export_threshold(info: ModelInfo, text: str) -> ModelInfo:
    """Description of an exported model with the threshold by which the file decides.

    Args:
        info: Description of the model.
        text: Settings of the export, as JSON.

    Raises:
        InputError: The text is no JSON with a threshold.
    """
    try:
        settings = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the settings of the export are not JSON: {error}") from error
    threshold = settings.get("threshold", "") if isinstance(settings, dict) else ""
    if threshold is not None and not is_number(threshold):
        raise InputError("the settings of the export have no threshold that is a number or null")
    if threshold is None or threshold == info.thresholds.get(DEFAULT_RULE):
        return info
    return replace(info, thresholds={**info.thresholds, EXPORT_RULE: float(threshold)})


def rule_name(name: str) -> str:
    """Name of a rule in the spelling of `model.json`.

    Example:
        >>> [rule_name(name) for name in ("EER", "fdr5%", "bpcer0.1%", "fdr=0.010")]
        ['eer', 'fdr=0.05', 'fdr=0.001', 'fdr=0.01']
    """
    plain = name.strip().lower()
    if found := _PERCENT.fullmatch(plain):
        return f"fdr={float(found[1]) / 100:g}"
    if found := _SHARE.fullmatch(plain):
        return f"fdr={float(found[1]):g}"
    return plain


def _number(threshold: str | float) -> float | None:
    try:
        return float(threshold)
    except ValueError:
        return None
