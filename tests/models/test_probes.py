"""Which saliency a network allows: identities that hold by chance at the start are not enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import check_cam_identity
from preceptor.models.spec import ModelSpec


class Odd(nn.Module):
    """A backbone by hand, with chosen pooling and classifier."""

    def __init__(self, classifier: nn.Module, power: float = 1.0) -> None:
        super().__init__()
        self.classifier, self.power = classifier, power

    def forward_features(self, images: Tensor) -> Tensor:
        return images.abs().repeat(1, 2, 1, 1)

    def forward_head(self, features: Tensor) -> Tensor:
        pooled: Tensor = features.pow(self.power).mean((2, 3)).pow(1 / self.power)
        out: Tensor = self.classifier(pooled)
        return out

    def get_classifier(self) -> nn.Module:
        return self.classifier


def odd(classifier: nn.Module, power: float = 1.0) -> GuidedModel:
    spec = ModelSpec("odd", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3)
    return GuidedModel(Odd(classifier, power), spec)


def test_the_check_is_of_pooling_and_head() -> None:
    assert check_cam_identity(odd(nn.Linear(6, 2))) < 1e-6
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(odd(nn.Linear(6, 2), power=3.0))
    with pytest.raises(InputError, match="its classifier is Sequential, not one linear layer"):
        check_cam_identity(odd(nn.Sequential(nn.Linear(6, 2))))
    zero = nn.Linear(6, 2)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    with pytest.raises(InputError, match="differs from the logits"):  # a zero head hides nothing
        check_cam_identity(odd(zero, power=3.0))
    assert not zero.weight.any()


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = build_model("test_resnet", ["a", "b"], input_size=64).train()
    model.backbone.get_submodule("layer1").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    for trained in (False, True):
        check_cam_identity(model, trained=trained)
    assert modes == [part.training for part in model.modules()]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()


def test_a_check_that_fails_half_way_leaves_the_model_as_it_was() -> None:
    model = odd(nn.Linear(6, 2))
    weight = model.head.weight.detach().clone()

    def fail(*_: Any) -> None:
        raise RuntimeError("half way")

    model.head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="half way"):
        check_cam_identity(model)
    assert torch.equal(model.head.weight, weight)


# Layers that are the identity until the network is trained.


class Scale(nn.Module):
    """A value a channel, as in layer scale or ResMLP's affine."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale


class Between(Odd):
    """A backbone by hand with a layer between pooling and classifier."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__(nn.Linear(6, 2))
        self.between = between

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.between(features.mean((2, 3))))
        return out


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(6, eps=0.0),
        lambda: nn.BatchNorm1d(6, eps=0.0, affine=False),
        lambda: Scale(6),
    ],
    ids=["batch norm", "batch norm without weights", "scale"],
)
def test_a_layer_that_is_the_identity_at_the_start_is_found(make: Callable[[], nn.Module]) -> None:
    spec = ModelSpec("odd", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3)
    model = GuidedModel(Between(make()), spec)
    assert check_cam_identity(model, trained=True) < 1e-6  # as it stands it changes nothing
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(model)


def test_batch_norm_before_the_classifier_means_grad_cam() -> None:
    backbone = "efficientvit_m0"
    with pytest.raises(InputError, match=r"no exact class activation map: .*differs"):
        build_model(backbone, ["a", "b"], input_size=128, cam="cam")
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b"], input_size=128)
    assert model.spec.cam == "gradcam"
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(4, *model.guidable_grid(), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(8):
        images = torch.randn(4, 3, 128, 128, generator=generator)
        labels = torch.randint(0, 2, (4,), generator=generator)
        out = model(images, labels)
        loss = GuidedLoss(0.5)(out.logits, labels, out.saliency, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # What was the CAM of an untrained network no longer adds up to the logits.
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(model, trained=True)
