"""The scale of 16-bit gradients, over interruptions and steps that broke off."""

from __future__ import annotations

import json

import torch
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from preceptor.models.precision import renew_scaler, scaler_state


def test_it_is_kept_and_goes_on() -> None:
    plugin = MixedPrecision("16-mixed", device="cpu")
    assert plugin.scaler is not None
    plugin.scaler.scale(torch.ones(1))
    plugin.scaler.update(1024.0)
    state = json.loads(json.dumps(scaler_state(plugin)))
    other = MixedPrecision("16-mixed", device="cpu")
    renew_scaler(other, state)
    assert other.scaler is not None
    assert other.scaler.state_dict() == plugin.scaler.state_dict()
    assert scaler_state(other)["scale"] == 1024.0


def test_nothing_is_scaled_elsewhere() -> None:
    plugin = MixedPrecision("bf16-mixed", device="cpu")
    assert scaler_state(plugin) == {}
    renew_scaler(plugin, {})
    assert plugin.scaler is None


def test_a_step_that_broke_off_leaves_no_scaled_gradients() -> None:
    """Between the unscaling and the step, as one does that has no room for momentum."""
    plugin = MixedPrecision("16-mixed", device="cpu")

    def stepped(*, renewed: bool) -> float:
        layer = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            layer.weight.zero_()
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        renew_scaler(plugin, {})
        assert plugin.scaler is not None
        plugin.scaler.scale(layer(torch.ones(1, 1)).sum()).backward()
        plugin.scaler.unscale_(optimizer)
        optimizer.zero_grad()
        if renewed:
            renew_scaler(plugin, {})
        plugin.scaler.scale(layer(torch.ones(1, 1)).sum()).backward()
        plugin.scaler.step(optimizer)
        return layer.weight.item()

    assert stepped(renewed=True) == -1.0
    assert stepped(renewed=False) == -65536.0
