"""A study of a network from outside timm: Teachers, Students, report, and the model in use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from preceptor import load
from preceptor.models.model_folder import load_model
from tests.datasets import squares
from tests.studies import run_serially, study

OWN = {"factory": "tests.networks:small", "args": {"width": 4}}


@pytest.mark.slow
def test_a_study_of_an_own_network(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    config = study(
        manifest, backbones={"mine": OWN}, teachers=("mine",), students=("mine", "test_byobnet"),
        seeds=1, controls=(), ceiling=False,
    )  # fmt: skip
    run_serially(config, tmp_path / "study")
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert {"mine", "test_byobnet"} <= set(table["backbone"])
    best = tmp_path / "study" / "best"
    model = load_model(best)
    if model.spec.backbone == "mine":
        assert (model.spec.factory, model.spec.backbone_args) == (OWN["factory"], OWN["args"])
    image = next((tmp_path / "data" / "images").glob("test*.png"))
    assert load(best)(image).map.shape == model.grid()


def test_keys_of_own_networks(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    for values, message in (
        ({"backbones": {"mine": OWN}}, "backbones that are not used: mine"),
        (
            {"students": ("mine",), "backbones": {"mine": OWN}, "backbone_args": {"mine": {}}},
            "mine is one of `backbones`, which has args of its own; move them",
        ),
        ({"students": ("mine",), "backbones": {"mine": {"factory": "small"}}}, "factory"),
    ):
        with pytest.raises(ValidationError, match=message):
            study(manifest, **values)
