"""Description of a trained model that prediction needs, as stored in exported files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, get_args

from preceptor.config.settings import Fit, ImageFormat
from preceptor.errors import InputError
from preceptor.predictor.calibration import Calibration, calibration_from
from preceptor.predictor.json_keys import JsonKeys, is_number, no_constant
from preceptor.runtime.strict_json import strict_json

MapKind = Literal["cam", "gradcam", "none"]
INFO_KEY, CARD_KEY, EXPORT_KEY = "preceptor", "model_card", "preceptor_export"
"""Metadata of exported files: description of the model, model card, settings of the export."""


@dataclass(frozen=True)
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

    classes: tuple[str, ...]
    positive: str | None
    image_format: ImageFormat
    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone: str
    map_kind: MapKind
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    calibration: Calibration | None = None
    false_alarms: float | None = None

    @property
    def positive_index(self) -> int | None:
        """Index of the positive class; None if there is none."""
        return None if self.positive is None else self.classes.index(self.positive)

    def to_json(self) -> str:
        """JSON text in one line; the inverse of `from_json`."""
        form = self.image_format
        values = asdict(self) | {
            "image_format": {"size": form.size, "fit": form.fit, "channels": form.channels}
        }
        return strict_json(values, indent=None)

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Description from its JSON text.

        Raises:
            InputError: The text is no JSON, a key is missing or unknown, or a value is invalid.
        """
        try:
            values = json.loads(text, parse_constant=no_constant)
        except ValueError as error:
            raise InputError(f"the description of the model is not JSON: {error}") from error
        except RecursionError as error:
            raise InputError("the description of the model is nested too deeply") from error
        found = JsonKeys(values, "the description of the model", {one.name for one in fields(cls)})
        form = JsonKeys(
            found.values["image_format"], "key image_format", {"size", "fit", "channels"}
        )
        channels = form.integer("channels", (1, 3))
        classes = found.strings("classes")
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise found.wrong("classes", "at least two different names")
        positive = found.values["positive"]
        if positive is not None and positive not in classes:
            raise found.wrong("positive", "one of the classes, or null")
        thresholds = found.values["thresholds"]
        if not isinstance(thresholds, dict) or not all(map(is_number, thresholds.values())):
            raise found.wrong("thresholds", "numbers by name")
        std = found.numbers("std", channels)
        if min(std) <= 0:
            raise found.wrong("std", "numbers above 0")
        false_alarms = found.values["false_alarms"]
        if false_alarms is not None and not (is_number(false_alarms) and 0 < false_alarms < 1):
            raise found.wrong("false_alarms", "a number between 0 and 1, or null")
        return cls(
            classes=classes,
            positive=positive,
            image_format=ImageFormat(
                form.integer("size", range(1, 2**16)), form.choice("fit", get_args(Fit)), channels
            ),
            mean=found.numbers("mean", channels),
            std=std,
            backbone=found.string("backbone"),
            map_kind=found.choice("map_kind", get_args(MapKind)),
            thresholds={name: float(value) for name, value in thresholds.items()},
            version=found.string("version"),
            calibration=calibration_from(found.values["calibration"], positive is not None),
            false_alarms=false_alarms,
        )
