"""Settings of the forged photographs, and the presets."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from preceptor.benchmark.forgeries import KINDS, PRESETS, SPLITS, ForgedSettings

TINY = PRESETS["tiny"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ("noise", "blur"), "unseen_kinds": ("blur",)}, "both seen and unseen: blur"),
        ({"kinds": ()}, "at least 1"),
        ({"kinds": ("sepia",)}, "sepia"),
        ({"radius": (0.3, 0.2)}, "smallest <= largest"),
        ({"size": 16}, "32"),
        ({"edge": 12.0, "radius": (0.05, 0.2)}, "edge 12.0"),
        ({"train": 1}, "4"),
        ({"stamp_rate": 0.2}, "0.5"),
        ({"stamp_place": "centre"}, "corner"),
        ({"radius": (0.1, 0.39), "stamp_place": "moving"}, "stamp_place moving"),
        ({"color": 3}, "color"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ForgedSettings.model_validate(values)


def test_every_split_has_its_count() -> None:
    assert [TINY.count(split) for split in SPLITS] == [48, 24, 24, 24, 24]


@pytest.mark.parametrize("name", ["small", "demo", "spots", "full"])
def test_presets_for_studies_have_every_kind_and_a_stamp(name: str) -> None:
    settings = PRESETS[name]
    assert {*settings.kinds, *settings.unseen_kinds} == set(KINDS)
    assert settings.stamp_strength > 0
    assert settings.stamp_rate == 1
