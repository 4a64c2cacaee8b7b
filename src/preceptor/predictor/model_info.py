"""Description of a trained model that prediction needs, as stored in exported files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from preceptor.config.image_format import Fit, ImageFormat
from preceptor.errors import InputError, is_control
from preceptor.runtime.strict_json import strict_json

MapKind = Literal["cam", "gradcam", "none"]


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
        thresholds: Decision thresholds by rule, fixed on validation.
        version: Version of the library that built the model.

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
            values = json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            raise InputError(f"the description of the model is not JSON: {error}") from error
        except RecursionError as error:
            raise InputError("the description of the model is nested too deeply") from error
        found = _Keys(values, "the description of the model", {one.name for one in fields(cls)})
        form = _Keys(found.values["image_format"], "key image_format", {"size", "fit", "channels"})
        channels = form.integer("channels", (1, 3))
        classes = found.strings("classes")
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise found.wrong("classes", "at least two different names")
        positive = found.values["positive"]
        if positive is not None and positive not in classes:
            raise found.wrong("positive", "one of the classes, or null")
        thresholds = found.values["thresholds"]
        if not isinstance(thresholds, dict) or not all(map(_is_number, thresholds.values())):
            raise found.wrong("thresholds", "numbers by name")
        std = found.numbers("std", channels)
        if min(std) <= 0:
            raise found.wrong("std", "numbers above 0")
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
        )


class _Keys:
    """Values of a JSON object with exactly the given keys."""

    def __init__(self, values: object, owner: str, keys: set[str]) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{owner} is not a JSON object")
        if values.keys() != keys:
            wrong = sorted(values.keys() ^ keys)[0]
            what = "unknown" if wrong in values else "missing"
            raise InputError(f"{owner}: key {wrong!r} is {what}")
        self.values: dict[str, Any] = values
        self._owner = owner

    def wrong(self, key: str, expected: str) -> InputError:
        text = json.dumps(self.values[key])
        shown = text if len(text) <= 80 else f"{text[:80]} …"
        return InputError(f"{self._owner}: {key} is {shown}; expected {expected}")

    def string(self, key: str) -> str:
        value = self.values[key]
        if not _is_text(value):
            raise self.wrong(key, "text in one line")
        return str(value)

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.values[key]
        if not isinstance(value, list) or not all(map(_is_text, value)):
            raise self.wrong(key, "a list of names, each in one line")
        return tuple(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        value = self.values[key]
        if not (isinstance(value, list) and len(value) == count and all(map(_is_number, value))):
            raise self.wrong(key, f"{count} numbers")
        return tuple(float(one) for one in value)

    def integer(self, key: str, allowed: range | tuple[int, ...]) -> int:
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise self.wrong(key, f"an integer from {min(allowed)} to {max(allowed)}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        value = self.values[key]
        if value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}")
        return value


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any(map(is_control, value))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")
