"""Description of a trained model as stored in exported files, and its decision threshold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import field, replace
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from preceptor.config.settings import ImageFormat
from preceptor.errors import InputError, is_control, one_line

CalibrationKind = Literal["temperature", "isotonic"]
MapKind = Literal["cam", "gradcam", "none"]
INFO_KEY, CARD_KEY, EXPORT_KEY = "preceptor", "model_card", "preceptor_export"
"""Metadata of exported files: description of the model, model card, settings of the export."""
DEFAULT_RULE = "eer"
EXPORT_RULE = "export"
"""Threshold by which an exported file decides, if it is not that of `DEFAULT_RULE`."""

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
# fdr5% and bpcer5% are both the false positive rate: BPCER is its name in presentation attack
# detection.
_PERCENT = re.compile(r"(?:fdr|bpcer)=?(\d*\.?\d+)%")
_SHARE = re.compile(r"(?:fdr|bpcer)=(\d*\.?\d+(?:e-?\d+)?)")


def _line(text: str) -> str:
    if any(map(is_control, text)):
        raise ValueError("expected text in one line")
    return text


Line = Annotated[str, AfterValidator(_line)]


@dataclass(frozen=True, config=CHECKED)
class Calibration:
    """Calibration of a model, fitted on validation; `network.calibrated` applies it.

    With a positive class, its probability, the score s, becomes g(s), a strictly increasing
    function, and the other probabilities are scaled so that they add up to 1 − g(s). For two
    classes and temperature scaling this is softmax(logits / T). Without a positive class, which
    only temperature scaling allows, all probabilities become softmax(logits / T).

    Args:
        kind: temperature, g(s) = σ(logit(s) / T); or isotonic, g(s) = 0.99 r(logit(s)) + 0.01 s,
            where r is linear between knots.
        temperature: T.
        knots: Increasing log-odds.
        values: Value of r at each knot.
    """

    kind: CalibrationKind
    temperature: Annotated[float, Field(gt=0)] = 1.0
    knots: tuple[float, ...] = ()
    values: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Calibration:
        if any(a >= b for a, b in pairwise(self.knots)):
            raise ValueError("knots: expected increasing numbers")
        if any(a > b for a, b in pairwise(self.values)):
            raise ValueError("values: expected increasing numbers")
        if len(self.knots) != len(self.values) or (self.kind == "isotonic") != bool(self.knots):
            raise ValueError("expected a value for each knot, and knots for kind isotonic alone")
        return self


@dataclass(frozen=True, config=CHECKED)
class ModelInfo:
    """Description of a trained model.

    Args:
        classes: Class names in the order of the probabilities.
        positive: Class whose probability is the score; None = there is none.
        image_format: Input format.
        mean, std: Mean and std of the input in [0, 1], one value per channel.
        backbone: Name of the backbone.
        map_kind: Kind of the maps: cam (exact), gradcam, or none (the model returns no maps).
        thresholds: Decision thresholds by rule, fixed on validation, of the calibrated score.
        version: Version of the library that built the model.
        calibration: Calibration that the probabilities have had; None = none.
        false_alarms: Share of validation images that are flagged as unfamiliar; None = images are
            not compared with a reference.

    Example:
        >>> info = ModelInfo(("real", "fake"), "fake", ImageFormat(224), (0.5,) * 3, (0.5,) * 3,
        ...                  "resnet50", "cam", {"eer": 0.4}, "0.1.0")
        >>> ModelInfo.from_json(info.to_json()) == info, info.positive_index
        (True, 1)
    """

    classes: tuple[Line, ...]
    positive: str | None
    image_format: ImageFormat
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    backbone: Line
    map_kind: MapKind
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: Line = ""
    calibration: Calibration | None = None
    false_alarms: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> ModelInfo:
        form = self.image_format
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: expected at least two different names")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError("positive: expected one of the classes, or null")
        if not 1 <= form.size < 2**16 or form.channels not in (1, 3) or form.canvas:
            raise ValueError("image_format: expected a size from 1 to 65535, and 1 or 3 channels")
        if not len(self.mean) == len(self.std) == form.channels:
            raise ValueError(f"mean, std: expected {form.channels} numbers")
        if self.calibration and self.calibration.kind == "isotonic" and self.positive is None:
            raise ValueError("calibration: isotonic needs a positive class")
        return self

    @property
    def positive_index(self) -> int | None:
        """Index of the positive class; None if there is none."""
        return None if self.positive is None else self.classes.index(self.positive)

    def to_json(self) -> str:
        """JSON text in one line; the inverse of `from_json`."""
        return _INFO.dump_json(self, exclude={"image_format": {"canvas"}}).decode()

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Description from its JSON text.

        Raises:
            InputError: The text is no JSON, a key is missing or unknown, or a value is invalid.
        """
        return validated(_INFO, text, "the description of the model")


_INFO = TypeAdapter(ModelInfo)
Valid = TypeVar("Valid")


def validated(adapter: TypeAdapter[Valid], text: str | bytes, owner: str) -> Valid:
    """Value of a JSON text.

    Args:
        adapter: Type of the value.
        text: JSON.
        owner: Name of the text in messages.

    Raises:
        InputError: It is no JSON, or of another type.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(f"{owner}: {one_line(said)}") from error


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
    try:
        number = float(threshold)
    except ValueError:
        name = rule_name(str(threshold))
        if name not in info.thresholds:
            known = ", ".join(info.thresholds) or "none"
            raise InputError(
                f"threshold {threshold!r}: the model has no such threshold; it has {known}; name "
                "one, or give a number"
            ) from None
        return info.thresholds[name]
    if not math.isfinite(number):
        raise InputError(f"threshold {threshold!r} is not a finite number")
    if not 0 <= number <= 1:
        raise InputError(
            f"threshold {threshold!r}: a score is a probability; give a number from 0 to 1, or "
            "the name of a rule, such as fdr5%"
        )
    return number


def with_export_threshold(info: ModelInfo, text: str) -> ModelInfo:
    """Description of an exported model with the threshold of the settings of the export, as JSON.

    Raises:
        InputError: The text is no JSON with a threshold.
    """
    try:
        threshold = json.loads(text)["threshold"]
        number = None if threshold is None else float(threshold)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError("the settings of the export have no threshold") from error
    if number is None or number == info.thresholds.get(DEFAULT_RULE):
        return info
    if not math.isfinite(number):
        raise InputError("the settings of the export have no threshold that is a finite number")
    return replace(info, thresholds={**info.thresholds, EXPORT_RULE: number})


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


def threshold_text(threshold: float) -> str:
    """Threshold of a score, with its log-odds where six digits round it to 0 or 1.

    Example:
        >>> threshold_text(0.18481958), threshold_text(1 - 2e-9), threshold_text(1.0)
        ('0.18482', '0.999999998 (log-odds 20.03)', '1, the highest possible score')
    """
    if threshold == 1:
        return "1, the highest possible score"
    if not 0 < threshold < 1 or 1e-6 <= threshold <= 1 - 1e-6:
        return f"{threshold:.6g}"
    odds = math.log(threshold) - math.log1p(-threshold)
    return f"{threshold!r} (log-odds {odds:.4g})"
