"""CAM and Grad-CAM: their loops, and the identity with the logit on real backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.models.build import build_model
from preceptor.saliency.cam import class_activation_map, decision_map, grad_cam

BACKBONES: list[tuple[str, int, dict[str, Any]]] = [
    ("test_byobnet", 64, {"output_stride": 8}),
    ("densenet121", 64, {}),
    ("resnet50", 64, {}),
    ("legacy_xception", 64, {}),
    ("inception_v3", 96, {}),
]


def test_a_cam_is_the_weighted_sum_of_its_class() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 7, 3, 4, generator=generator)
    weight = torch.randn(6, 7, generator=generator)
    classes = torch.tensor([5, 0, 2, 2, 1])
    got = class_activation_map(features, weight, classes)
    for b in range(5):
        slow = sum(weight[classes[b], c] * features[b, c] for c in range(7))
        torch.testing.assert_close(got[b], slow)
    expected = torch.einsum("bc,bchw->bhw", weight[classes], features)
    torch.testing.assert_close(got, expected)
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(class_activation_map(last, weight, classes), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("within", [False, True])
def test_maps_are_float32_or_wider(layout: torch.memory_format, within: bool) -> None:
    """Also of features or weights in half precision, and where autocast would compute in it."""
    torch.manual_seed(0)
    features, weight = torch.randn(2, 6, 3, 4), torch.randn(2, 6)
    classes = torch.tensor([0, 1])
    for kinds in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16),
                  (torch.bfloat16, torch.bfloat16), (torch.float64, torch.float32)):  # fmt: skip
        f, w = features.to(kinds[0], memory_format=layout), weight.to(kinds[1])
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            found = class_activation_map(f, w, classes)
            decision = decision_map(f, w, torch.zeros(2, 2), classes)
        wide = torch.float64 if torch.float64 in kinds else torch.float32
        expected = torch.einsum("bc,bchw->bhw", w.to(wide), f.to(wide))
        torch.testing.assert_close(found, expected)
        other = torch.einsum("bc,bchw->bhw", w.to(wide).flip(0), f.to(wide))
        torch.testing.assert_close(decision, expected - other)


@pytest.mark.parametrize(("backbone", "size", "arguments"), BACKBONES, ids=lambda v: str(v))
def test_the_mean_cam_and_bias_are_the_logit(
    backbone: str, size: int, arguments: dict[str, Any]
) -> None:
    model = build_model(backbone, ["a", "b", "c"], input_size=size, backbone_args=arguments).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    with torch.inference_mode():
        logits, features = model(torch.randn(2, 3, size, size))
        assert features.shape[2:] == model.grid()
        for wanted in range(3):
            cam = class_activation_map(features, model.head.weight, torch.tensor([wanted] * 2))
            error = (cam.mean((1, 2)) + model.head.bias[wanted] - logits[:, wanted]).abs().max()
            assert error <= 1e-4 * logits.abs().max()
    if arguments:
        assert model.grid() == (8, 8)


CLASSES = torch.tensor([2, 0, 1, 1])
CHANNELS, GRID = 5, (3, 4)


def linear() -> Callable[[Tensor], Tensor]:
    head = nn.Linear(CHANNELS, 3).double()
    return lambda features: head(features.mean((2, 3)))


def curved() -> Callable[[Tensor], Tensor]:
    """Not linear at every place: places have slopes of their own."""
    conv, head = nn.Conv2d(CHANNELS, 7, 3).double(), nn.Linear(7, 3).double()
    return lambda features: head(conv(functional.gelu(features)).tanh().mean((2, 3)))


HEADS = [linear, curved]


@pytest.fixture
def features() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, CHANNELS, *GRID, generator=generator, dtype=torch.float64)


def slow(head: Callable[[Tensor], Tensor], features: Tensor, classes: Tensor) -> Tensor:
    """An image at a time on a copy, a channel at a time, a place at a time."""
    maps = torch.zeros(len(features), *features.shape[2:], dtype=features.dtype)
    for b in range(len(features)):
        alone = features[b : b + 1].clone().detach().requires_grad_()
        head(alone)[0, classes[b]].backward()
        assert alone.grad is not None
        for channel in range(features.shape[1]):
            total = 0.0
            for y in range(features.shape[2]):
                for x in range(features.shape[3]):
                    total += float(alone.grad[0, channel, y, x])
            mean = total / (features.shape[2] * features.shape[3])
            maps[b] += mean * alone[0, channel].detach()
    return maps


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("trainable", [False, True])
def test_it_is_the_loop_over_images_and_channels(
    make: Callable[[], Callable[[Tensor], Tensor]], features: Tensor, trainable: bool
) -> None:
    torch.manual_seed(0)
    head = make()
    leaf = features.clone().requires_grad_()
    got = grad_cam(head(leaf), leaf, CLASSES, trainable=trainable)
    torch.testing.assert_close(got.detach(), slow(head, features, CLASSES))
    assert got.requires_grad == trainable
    assert leaf.grad is None


@pytest.mark.parametrize("make", HEADS)
def test_its_derivative_is_the_true_one(
    make: Callable[[], Callable[[Tensor], Tensor]], features: Tensor
) -> None:
    """Second derivatives by torch against finite differences, also where the slope moves."""
    torch.manual_seed(0)
    head = make()
    leaf = features[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: grad_cam(head(f), f, CLASSES[:2]), leaf)


def test_it_is_float32_whatever_the_precision_around_it(features: Tensor) -> None:
    head = nn.Linear(CHANNELS, 3)
    leaf = features.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(leaf.mean((2, 3)))
        got = grad_cam(logits, leaf, CLASSES)
    assert logits.dtype == torch.bfloat16
    assert got.dtype == torch.float32
    slope = (head.weight.bfloat16().float() / (GRID[0] * GRID[1])).bfloat16().float()
    expected = class_activation_map(leaf.float(), slope, CLASSES)
    # Of float32 products, not of bfloat16 ones, which would be 3e-3 off.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
