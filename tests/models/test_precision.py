"""The scale of 16-bit gradients, over interruptions and steps that broke off."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from preceptor.config.training import Precision
from preceptor.models.precision import gradient_scaler

CPU = torch.device("cpu")


def test_it_is_kept_and_goes_on() -> None:
    scaler = gradient_scaler(CPU, "16-mixed", {})
    scaler.scale(torch.ones(1))
    scaler.update(1024.0)
    state = json.loads(json.dumps(scaler.state_dict()))
    other = gradient_scaler(CPU, "16-mixed", state)
    assert other.state_dict() == scaler.state_dict()
    assert state["scale"] == 1024.0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_nothing_is_scaled_elsewhere(precision: Precision) -> None:
    scaler = gradient_scaler(CPU, precision, {})
    loss = torch.ones(1)
    assert scaler.scale(loss) is loss
    assert scaler.state_dict() == {}


def test_a_step_that_broke_off_leaves_no_scaled_gradients() -> None:
    """Between the unscaling and the step, as one does that has no room for momentum."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    scaler = gradient_scaler(CPU, "16-mixed", {})
    scaler.scale(layer(torch.ones(1, 1)).sum()).backward()
    scaler.unscale_(optimizer)
    optimizer.zero_grad()
    scaler = gradient_scaler(CPU, "16-mixed", {})
    scaler.scale(layer(torch.ones(1, 1)).sum()).backward()
    scaler.step(optimizer)
    assert layer.weight.item() == -1.0
