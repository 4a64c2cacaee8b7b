"""The recommended settings of a study: those of the frozen study, where nothing else is given."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from preceptor.config.files import parse_config
from preceptor.config.training import StudyTraining
from preceptor.errors import InputError
from preceptor.study.config import RECOMMENDED, RECOMMENDED_TRAINING, StudyConfig
from tests.documents import ROOT

PLAIN: dict[str, Any] = {
    "manifest": "manifest.csv",
    "positive": "fake",
    "teachers": ["resnet18"],
    "students": ["resnet18"],
}


def study(**settings: Any) -> StudyConfig:
    return parse_config(PLAIN | settings, StudyConfig, base=ROOT)


def test_they_are_those_of_the_frozen_study() -> None:
    file = ROOT / "benchmarks" / "evidence" / "spots_evidence" / "study.yaml"
    frozen, defaults = yaml.safe_load(file.read_text()), StudyTraining().model_dump()
    for name, value in RECOMMENDED.items():
        given = frozen.get(name, StudyConfig.model_fields[name].default)
        if name == "mapper":
            given = given == {}
        # Those that need data of the benchmark, or add rows to the table alone.
        if name == "controls":
            given = [*(one for one in given if one not in ("masked", "dfr")), "mixed"]
        assert (tuple(given) if isinstance(value, tuple) else given) == value
    for name, value in RECOMMENDED_TRAINING.items():
        assert frozen["training"].get(name, defaults[name]) == value


def test_a_recipe_is_the_settings_written_out() -> None:
    training = {"epochs": 3}
    named = study(recipe="recommended", training=training)
    written = study(**RECOMMENDED, training=training | RECOMMENDED_TRAINING)
    assert named.model_copy(update={"recipe": None}) == written
    assert named.mapper is True
    assert named.training.readout == "auto"


def test_given_settings_have_precedence() -> None:
    found = study(recipe="recommended", mapper=False, alphas=[0.3], training={"readout": "none"})
    assert (found.mapper, found.alphas, found.training.readout) == (False, (0.3,), "none")
    assert found.teacher_alphas == RECOMMENDED["teacher_alphas"]


def test_in_python_training_may_be_an_object() -> None:
    found = StudyConfig.model_validate(
        PLAIN | {"recipe": "recommended", "training": StudyTraining(epochs=3, cam_class="decision")}
    )
    assert (found.training.epochs, found.training.cam_class) == (3, "decision")
    assert found.training.readout == "auto"


def test_without_it_the_defaults_follow_the_paper() -> None:
    found = study()
    assert (found.mapper, found.teacher_alphas, found.training.readout) == (False, (0.5,), "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "best"}, "recipe: "),
        ({"recipe": "recommended", "positive": None}, "or set mapper: false"),
        ({"recipe": "recommended", "training": 3}, "training: "),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(**settings)
