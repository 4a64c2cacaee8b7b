"""Divergence of predictions, against torch's, and a training that lowers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.losses.guided import inconsistency
from preceptor.training.run import train
from tests.datasets import squares


def test_the_divergence_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64) * 3
    which = torch.tensor([True, False, True, True, True, False])
    expected = functional.kl_div(
        other.log_softmax(1), one.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    weight = torch.arange(1.0, 7)
    found = inconsistency(one, other, which, weight)
    torch.testing.assert_close(found, torch.where(which, expected * weight, 0))
    torch.testing.assert_close(inconsistency(one, other + 5, which, weight), found)
    assert inconsistency(one, one, which).max() == 0
    single = torch.tensor([[[0.7], [-2.0]], [[0.1], [9.0]]], dtype=torch.float64).unbind(0)
    p, q = (value.sigmoid()[:, 0] for value in single)
    binary = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = inconsistency(*single, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(found, binary)
    with pytest.raises(ValueError, match="must be equal in shape"):
        inconsistency(one, other[:, :1], which)


def test_both_predictions_have_a_gradient_where_an_image_was_changed() -> None:
    one, other = torch.randn(2, 3, 2).unbind(0)
    one, other = one.requires_grad_(), other.requires_grad_()
    inconsistency(one, other, torch.tensor([True, False, True])).sum().backward()
    for leaf in (one, other):
        assert leaf.grad is not None
        assert leaf.grad.abs().sum(1).gt(0).tolist() == [True, False, True]


def test_a_training_lowers_the_divergence_and_needs_two_versions(tmp_path: Path) -> None:
    manifest = squares(tmp_path / "data")

    def last(weight: float) -> pd.Series:
        values: dict[str, Any] = {
            "manifest": manifest,
            "backbone": "test_byobnet",
            "positive": "marked",
            "alpha": 0.9,
            "backbone_args": {"output_stride": 8},
            "training": {
                "input_size": 32,
                "epochs": 6,
                "batch_size": 8,
                "optimizer": "adamw",
                "lr": 0.003,
                "schedule": "constant",
                "consistency": weight,
                "augmentation": {"outside": "noise", "outside_rate": 1.0, "outside_strength": 1.0},
            },
        }
        run = train(RunConfig.model_validate(values), tmp_path / "runs")
        return pd.read_csv(run.folder / "metrics.csv").iloc[-1]

    weak, strong = last(1e-6), last(10.0)
    assert 0 < strong["inconsistency"] < 0.5 * weak["inconsistency"]
    total = 0.1 * strong["guidance"] * strong["guided"] / strong["images"]
    total += 0.9 * strong["classification"] + 10 * strong["inconsistency"]
    assert strong["loss"] == pytest.approx(total, rel=1e-4)
    assert "inconsistency" not in last(0.0)
    with pytest.raises(ValidationError, match=r"augmentation\.outside is none: there are no two"):
        Training(consistency=0.1)
