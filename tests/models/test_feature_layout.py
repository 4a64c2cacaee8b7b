"""Layouts of features, and the places where the authors' released code takes its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.models.build import build_model
from preceptor.models.features import Layout, cyborg_taps
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import check_cam_identity

# Layouts.


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_lie_on_the_grid_row_by_row(prefix: int) -> None:
    raw = torch.randn(2, prefix + 6, 4)
    layout = Layout("tokens", prefix, (2, 3))
    assert layout.tokens == prefix + 6
    features = layout.to_grid(raw)
    assert features.shape == (2, 4, 2, 3)
    for y in range(2):
        for x in range(3):
            assert torch.equal(features[:, :, y, x], raw[:, prefix + 3 * y + x])
    assert torch.equal(layout.from_grid(features, raw), raw)


def test_tokens_of_an_image_that_is_not_square_are_refused() -> None:
    """2 × 8 tokens are as many as 4 × 4; 4 × 6 with a class token are 25, a square too."""
    model = build_model(
        "test_vit", ["a", "b"], input_size=64, backbone_args={"dynamic_img_size": True}
    )
    for height, width in ((32, 128), (64, 96)):
        with pytest.raises(InputError, match=f"{height} × {width} pixels: the grid of tokens"):
            model(torch.randn(1, 3, height, width), torch.tensor([0]))


# What the authors' released code takes.


def published(backbone: str, size: int, **options: Any) -> tuple[GuidedModel, Tensor]:
    torch.manual_seed(0)
    model = build_model(
        backbone, ["a", "b"], input_size=size, cam_source="cyborg", **options
    ).eval()
    for part in model.modules():  # statistics that batch norm does not start with
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.weight, 1.0, 0.2)
            nn.init.normal_(part.bias, std=0.2)
    return model, torch.randn(2, 3, size, size)


def normed(network: nn.Module, name: str, values: Tensor) -> Tensor:
    """Batch norm of evaluation by its formula."""
    part = network.get_submodule(name)
    shape = (1, -1, 1, 1)
    mean, variance = part.running_mean.view(shape), part.running_var.view(shape)  # type: ignore[operator, union-attr]
    scale, shift = part.weight.view(shape), part.bias.view(shape)  # type: ignore[operator, union-attr]
    return (values - mean) / (variance + part.eps).sqrt() * scale + shift  # type: ignore[operator]


def resnet50_tap(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    x = network.layer4[:-1](network.layer3(network.layer2(network.layer1(x))))
    state, pre = network.state_dict(), "layer4.2."
    shortcut = x
    x = functional.conv2d(x, state[f"{pre}conv1.weight"])
    x = normed(network, f"{pre}bn1", x).relu()
    x = functional.conv2d(x, state[f"{pre}conv2.weight"], padding=1)
    x = normed(network, f"{pre}bn2", x).relu()
    tap = functional.conv2d(x, state[f"{pre}conv3.weight"])
    return tap, (normed(network, f"{pre}bn3", tap) + shortcut).relu()


def test_resnet_tap() -> None:
    model, images = published("resnet50", 64)
    check_tap(model, images, *resnet50_tap(model.backbone, images))


def densenet_tap(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    x = images
    for name, part in network.features.named_children():
        if name == "norm5":
            break
        x = part(x)
    tap = normed(network, "features.norm5", x)
    return tap, tap.relu()


def test_densenet_tap() -> None:
    model, images = published("densenet121", 64)
    tap, head_input = densenet_tap(model.backbone, images)
    assert (tap < 0).any()  # what a ReLU in place would have overwritten
    check_tap(model, images, tap, head_input)
    # In place again, as a careless change would have it, the tap is what the ReLU left.
    activation = model.backbone.get_submodule("features.norm5.act")
    activation.inplace = True  # type: ignore[assignment]
    with torch.no_grad():
        assert (model(images).features >= 0).all()


def check_tap(model: GuidedModel, images: Tensor, tap: Tensor, head_input: Tensor) -> None:
    """The features are the tap, the logits those of the head's own input, the map the tap's CAM."""
    head = model.head
    with torch.no_grad():
        for of in (torch.tensor([0, 1]), "predicted", "every"):
            out = model(images, of)
            torch.testing.assert_close(out.features, tap, rtol=1e-4, atol=1e-4)
            logits = head(head_input.mean((2, 3)))
            torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-4)
        out = model(images, torch.tensor([1, 0]))
        for image, wanted in enumerate((1, 0)):
            slow = sum(head.weight[wanted, c] * out.features[image, c] for c in range(len(tap[0])))
            torch.testing.assert_close(out.saliency[image], slow, rtol=1e-4, atol=1e-4)
    # It is not the map that adds up to the logits, which is what cam_source: head_input gives.
    with pytest.raises(InputError, match="differs from the logits"):
        check_cam_identity(model)


def test_the_gradient_of_the_map_stops_at_the_tap() -> None:
    """What lies between tap and head learns from the labels alone."""
    model, images = published("test_resnet", 64)
    model.train()
    model(images, torch.tensor([0, 1])).saliency.square().sum().backward()
    block = list(model.backbone.get_submodule("layer4").children())[-1]
    after = "bn3" if hasattr(block, "bn3") else "bn2"
    assert all(p.grad is None for p in block.get_submodule(after).parameters())
    assert model.head.weight.grad is not None
    first = next(model.backbone.parameters())
    assert first.grad is not None
    assert first.grad.any()


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "mobilenetv2_050"])
def test_other_families_are_refused(backbone: str) -> None:
    with pytest.raises(InputError, match=f"^{backbone}: cam_source: cyborg is defined.*head_input"):
        build_model(backbone, ["a", "b"], input_size=64, cam_source="cyborg")
    with pytest.raises(InputError, match="head_input"):
        cyborg_taps(nn.Linear(2, 2), lambda _: None)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {"cam_source": "cyborg"}),
        ("densenet121", {"cam_source": "cyborg"}),
        ("test_vit", {}),
    ],
)
def test_a_copied_model_has_taps_of_its_own(backbone: str, options: dict[str, Any]) -> None:
    model = build_model(backbone, ["a", "b"], input_size=64, **options).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    rebuilt = GuidedModel(copy.deepcopy(twin.backbone), twin.spec).eval()
    images, of = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    with torch.inference_mode():
        out, other = twin(images, of), rebuilt(images, of)
        assert torch.equal(out.saliency, other.saliency)
        assert not torch.equal(out.saliency, model(images, of).saliency)
