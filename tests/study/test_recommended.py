"""The recommended settings, and networks from outside timm in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from preceptor import load
from preceptor.config.files import parse_config
from preceptor.config.training import StudyTraining
from preceptor.errors import InputError
from preceptor.models.model_folder import load_model
from preceptor.study.config import RECOMMENDED, RECOMMENDED_TRAINING, StudyConfig
from tests.datasets import squares
from tests.documents import ROOT
from tests.studies import run_serially
from tests.studies import study as squares_study

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


OWN: dict[str, Any] = {
    "backbones": {"mine": "tests.networks:small"},
    "backbone_args": {"mine": {"width": 4}},
}


@pytest.mark.slow
def test_a_study_of_an_own_network(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    own = {**OWN, "backbone_args": {"mine": {"width": 4}, "test_byobnet": {"output_stride": 8}}}
    config = squares_study(
        manifest, **own, teachers=("mine",), students=("mine", "test_byobnet"), seeds=1,
        controls=(), ceiling=False
    )  # fmt: skip
    run_serially(config, tmp_path / "study")
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert {"mine", "test_byobnet"} <= set(table["backbone"])
    best = tmp_path / "study" / "best"
    model = load_model(best)
    if model.spec.backbone == "mine":
        assert (model.spec.factory, model.spec.backbone_args) == (
            "tests.networks:small",
            {"width": 4},
        )
    image = next((tmp_path / "data" / "images").glob("test*.png"))
    assert load(best)(image).map.shape == model.grid()


def test_keys_of_own_networks(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    for values, message in (
        (OWN, "backbones or weights name backbones that are not used: mine"),
        ({"students": ("mine",), "backbones": {"mine": "small"}}, "backbones"),
    ):
        with pytest.raises(ValidationError, match=message):
            squares_study(manifest, **values)
