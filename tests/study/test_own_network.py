"""A study of a network from outside timm: Teachers, Students, report, and the model in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from preceptor import load
from preceptor.models.model_folder import load_model
from tests.datasets import squares
from tests.studies import run_serially, study

OWN: dict[str, Any] = {
    "backbones": {"mine": "tests.networks:small"},
    "backbone_args": {"mine": {"width": 4}},
}


@pytest.mark.slow
def test_a_study_of_an_own_network(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")
    own = {**OWN, "backbone_args": {"mine": {"width": 4}, "test_byobnet": {"output_stride": 8}}}
    config = study(
        manifest, **own, teachers=("mine",), students=("mine", "test_byobnet"), seeds=1,
        controls=(), ceiling=False,
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
            study(manifest, **values)
