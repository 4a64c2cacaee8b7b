"""Grad-CAM through a head: the loops it stands for, and its own derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.gradcam import grad_cam

CLASSES = torch.tensor([2, 0, 1, 1])
CHANNELS, GRID = 5, (3, 4)


def linear() -> Callable[[Tensor], Tensor]:
    head = nn.Linear(CHANNELS, 3).double()
    return lambda features: head(features.mean((2, 3)))


def normed() -> Callable[[Tensor], Tensor]:
    norm, head = nn.LayerNorm(CHANNELS).double(), nn.Linear(CHANNELS, 3).double()
    return lambda features: head(norm(features.mean((2, 3))))


def curved() -> Callable[[Tensor], Tensor]:
    """Not linear at every place: places have slopes of their own."""
    conv, head = nn.Conv2d(CHANNELS, 7, 3).double(), nn.Linear(7, 3).double()
    return lambda features: head(conv(functional.gelu(features)).tanh().mean((2, 3)))


def attending() -> Callable[[Tensor], Tensor]:
    """Places meet, as in the attention of a class token."""
    query, head = nn.Linear(CHANNELS, CHANNELS).double(), nn.Linear(CHANNELS, 3).double()

    def run(features: Tensor) -> Tensor:
        tokens = features.flatten(2).transpose(1, 2)
        weights = (query(tokens.mean(1, keepdim=True)) * tokens).sum(2).softmax(1)
        out: Tensor = head((weights[:, :, None] * tokens).sum(1))
        return out

    return run


HEADS = [linear, normed, curved, attending]


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


def test_on_a_linear_head_it_is_the_cam_divided_by_the_places(features: Tensor) -> None:
    weight = torch.randn(3, CHANNELS, dtype=torch.float64)
    leaf = features.clone().requires_grad_()
    got = grad_cam(leaf.mean((2, 3)) @ weight.T, leaf, CLASSES, trainable=False)
    cam = class_activation_map(features, weight, CLASSES)
    torch.testing.assert_close(got * GRID[0] * GRID[1], cam)


@pytest.mark.parametrize("make", HEADS)
def test_its_derivative_is_the_true_one(
    make: Callable[[], Callable[[Tensor], Tensor]], features: Tensor
) -> None:
    """Second derivatives by torch against finite differences, also where the slope moves."""
    torch.manual_seed(0)
    head = make()
    leaf = features[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: grad_cam(head(f), f, CLASSES[:2]), leaf)


def test_the_head_is_reached_through_the_slope(features: Tensor) -> None:
    bias = torch.randn(CHANNELS, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(CHANNELS, 3, dtype=torch.float64, requires_grad=True)

    def maps(weight: Tensor, bias: Tensor) -> Tensor:
        leaf = features.clone().requires_grad_()
        return grad_cam((leaf.mean((2, 3)) + bias).tanh() @ weight, leaf, CLASSES)

    assert torch.autograd.gradcheck(maps, (weight, bias))


def test_it_works_where_gradients_are_off(features: Tensor) -> None:
    torch.manual_seed(0)
    head = curved()
    leaf = features.clone().requires_grad_()
    logits = head(leaf)
    with torch.no_grad():
        got = grad_cam(logits, leaf, CLASSES, trainable=False)
    torch.testing.assert_close(got, slow(head, features, CLASSES))


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


@pytest.mark.parametrize("classes", [torch.tensor([1]), torch.tensor([[0], [1]]), torch.tensor(1)])
def test_one_class_an_image(classes: Tensor) -> None:
    features = torch.ones(2, 3, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r"\(B,\)"):
        grad_cam(features.mean((2, 3)), features, classes)
