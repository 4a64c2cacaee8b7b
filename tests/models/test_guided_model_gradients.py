"""Maps differentiated only from the logits to the features, and the gradients of such maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from preceptor.losses.guided import GuidedLoss
from preceptor.saliency.cam import grad_cam
from tests.models.toys import Counted, Toy, ToyTokens, small, toy

TOYS = [(Toy, ""), (ToyTokens, "last_block")]


@pytest.mark.parametrize(("make", "tap"), TOYS)
@pytest.mark.parametrize("of", ["labels", "predicted", "every"])
def test_the_trunk_is_differentiated_once_a_step(make: type[Toy], tap: str, of: str) -> None:
    torch.manual_seed(0)
    model = toy(make(), tap)
    images, labels = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 1])
    wanted: Any = labels if of == "labels" else of
    Counted.backwards = 0
    out = model(images, wanted)
    assert Counted.backwards == 0  # saliency does not enter the trunk
    (out.saliency.square().sum() + functional.cross_entropy(out.logits, labels)).backward()
    assert Counted.backwards == 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    model.zero_grad()
    model.eval()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            model(images, wanted)
    assert Counted.backwards == 1
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("make", "tap"), TOYS)
def test_a_loss_on_the_map_has_the_true_gradient(make: type[Toy], tap: str) -> None:
    """Of head and trunk, by finite differences in float64."""
    torch.manual_seed(0)
    model = toy(make(), tap).double()
    images, of = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1])
    names = [name for name, _ in model.named_parameters()]
    target = torch.rand(2, 2, 2, dtype=torch.float64)

    def loss(*values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(model, state, (images, of))
        guided: Tensor = GuidedLoss(0.3)(out.logits, of, out.saliency, target)
        return guided

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert any("stem" in name for name in names)
    assert torch.autograd.gradcheck(loss, values)


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_the_gradient_of_real_networks_along_a_direction(backbone: str) -> None:
    model = small(backbone).double()
    images, of = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1])
    target = torch.rand(2, *model.grid(), dtype=torch.float64)
    parameters = [p for p in model.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) * p.detach().std().nan_to_num(1.0) for p in parameters]

    def loss() -> Tensor:
        maps = model(images, of).saliency
        return (maps / maps.detach().std() - target).square().sum()

    def at(step: float, scale: Tensor) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
            value = (model(images, of).saliency / scale - target).square().sum()
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step)
        return float(value)

    scale = model(images, of).saliency.detach().std()
    grads = torch.autograd.grad(loss(), parameters, allow_unused=True)
    slope = sum(
        float((g * d).sum()) for g, d in zip(grads, directions, strict=True) if g is not None
    )
    step = 1e-6
    measured = (at(step, scale) - at(-step, scale)) / (2 * step)
    assert measured == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-6


def test_a_frozen_trunk_stays_as_it_is() -> None:
    for backbone in ("test_convnext", "test_vit"):
        model = small(backbone).train()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        head = model.head.requires_grad_()
        images, of = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
        model(images, of).saliency.square().sum().backward()
        assert head.weight.grad is not None
        assert head.weight.grad.any()
        assert all(p.grad is None for p in model.backbone.parameters() if not p.requires_grad)


def test_the_toy_is_what_it_seems() -> None:
    """The counting trunk is a function like any other: its map is Grad-CAM's."""
    torch.manual_seed(0)
    network = Toy()
    model = toy(network, "")
    images, of = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    features = network.forward_features(images).detach().requires_grad_()
    expected = grad_cam(network.forward_head(features), features, of, trainable=False)
    torch.testing.assert_close(model(images, of).saliency.detach(), expected)
