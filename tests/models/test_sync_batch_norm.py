"""Batch norm over several devices: the same model for whoever saves or loads it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import EvoNorm2dB0, FrozenBatchNormAct2d
from torch import nn

from preceptor.errors import InputError
from preceptor.models.build import build_model
from preceptor.models.sync_batch_norm import has_batch_norm, synchronise

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_byobnet", {}),
        ("test_efficientnet", {}),
        ("test_resnet", {"cam_source": "cyborg"}),
        ("densenet121", {"cam_source": "cyborg"}),
    ],
)
def test_a_synchronised_model_is_the_same_model(backbone: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b"], input_size=64, **options)
    for module in model.modules():  # running statistics as after some training
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_()
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(images, "predicted")
    keys, weights = list(model.state_dict()), [id(weight) for weight in model.parameters()]
    synchronise(model, GPU, backbone)
    kinds = [type(module) for module in model.modules()]
    assert any(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
    assert list(model.state_dict()) == keys
    assert [id(weight) for weight in model.parameters()] == weights
    with torch.no_grad():
        after = model(images, "predicted")
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_who_has_batch_norm() -> None:
    assert has_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert has_batch_norm(nn.Sequential(EvoNorm2dB0(4)))
    for norm in (nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4)):
        assert not has_batch_norm(nn.Sequential(norm))
    assert not has_batch_norm(nn.Sequential(FrozenBatchNormAct2d(4)))


def test_what_cannot_be_synchronised_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs GPUs .* set training\.devices: 1"):
        synchronise(nn.Sequential(nn.BatchNorm2d(4)), CPU, "toy")
    with pytest.raises(InputError, match="toy: EvoNorm2dB0 cannot be synchronized"):
        synchronise(nn.Sequential(EvoNorm2dB0(4), nn.BatchNorm2d(4)), GPU, "toy")
    plain = nn.Sequential(nn.GroupNorm(2, 4))
    synchronise(plain, CPU, "toy")
    assert isinstance(plain[0], nn.GroupNorm)
