"""The description of a model: JSON and back, and JSON of other programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from preceptor.config.settings import ImageFormat
from preceptor.deploy.prediction import ModelInfo
from preceptor.errors import InputError

INFO = ModelInfo(
    classes=("real", "fake é"),
    positive="fake é",
    image_format=ImageFormat(64, "letterbox", 1),
    mean=(0.45,),
    std=(0.25,),
    backbone="test_resnet",
    map_kind="gradcam",
    thresholds={"eer": 0.25, "fdr=0.01": 1 / 3},
    version="0.1.0",
)


@pytest.mark.parametrize("positive", ["real", None])
def test_json_and_back(positive: str | None) -> None:
    info = ModelInfo(**(vars(INFO) | {"positive": positive}))
    text = info.to_json()
    assert "\n" not in text
    assert ModelInfo.from_json(text) == info
    assert info.positive_index == (None if positive is None else 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classes": ["a"]}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": ["a\n", "b"], "positive": None}, "classes"),
        ({"classes": ["\ud800", "b"], "positive": None}, "no JSON"),
        ({"positive": "other"}, "positive"),
        ({"image_format": None}, "image_format"),
        ({"image_format": {"size": 64, "fit": "squash"}}, "mean, std"),
        ({"image_format": {"size": 0, "fit": "squash", "channels": 1}}, "size"),
        ({"image_format": {"size": 64, "fit": "stretch", "channels": 1}}, "fit"),
        ({"image_format": {"size": 64, "fit": "squash", "channels": 4}}, "channels"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"mean": [10**400]}, "mean"),
        ({"std": [0]}, "std"),
        ({"map_kind": "rise"}, "map_kind"),
        ({"thresholds": {"eer": None}}, "thresholds"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_description_with_a_wrong_value_is_refused_in_one_line(
    change: dict[str, Any], expected: str
) -> None:
    values = json.loads(INFO.to_json()) | change
    with pytest.raises(InputError, match=expected) as caught:
        ModelInfo.from_json(json.dumps(values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"mean": NaN}', "[" * 100_000])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        ModelInfo.from_json(text)
