"""Batch norms fused into convolutions: the same network, or it is left as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from preceptor.models.build import build_model
from preceptor.saliency.masked_scores import fused

EXAMPLE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def trained(network: nn.Module) -> nn.Module:
    """The network with running statistics, weights and biases of batch norms of its own."""
    generator = torch.Generator().manual_seed(1)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, 64, 64, generator=generator) + 0.3)
        for norm in norms(network):
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (part for part in network.modules() if isinstance(part, nn.BatchNorm2d))


def count(network: nn.Module) -> int:
    return len(list(norms(network)))


def first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def assert_same(network: nn.Module, found: nn.Module) -> None:
    """Equal on images that the folding has not seen."""
    with torch.no_grad():
        for scale in (1.0, 0.1, 4.0):
            images = scale * EXAMPLE.flip(0, 2) + 0.2
            expected = first(network(images))
            gap = (first(found(images)) - expected).abs().max() / expected.abs().max()
            assert gap < 1e-4


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_timms_networks_are_the_same_without_batch_norms(name: str) -> None:
    torch.manual_seed(0)
    network = trained(timm.create_model(name, num_classes=3))
    state = copy.deepcopy(network.state_dict())
    found = fused(network, EXAMPLE[:1])
    assert count(found) == 0 < count(network)
    assert_same(network, found)
    for layout in (torch.channels_last, torch.contiguous_format):
        assert_same(network, found.to(memory_format=layout))  # type: ignore[call-overload]
    assert not any(part.training for part in found.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])
    shared = {value.data_ptr() for value in network.parameters()}
    assert not shared & {value.data_ptr() for value in found.parameters()}


class Net(nn.Module):
    """Two convolutions, two batch norms, and a way through them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Any:
        x = self.one(images)
        if self.way == "twice":
            x = self.norm(x) + self.two(x)
        elif self.way == "after":
            x = self.norm(x)
            x = self.two(x).relu() + x
        elif self.way == "shared convolution":
            x = self.other(self.two(self.norm(self.two(x)).relu()))
        elif self.way == "changed in place":
            x = self.norm(x.relu_())
        elif self.way == "norm first":
            x = self.two(self.norm(x.relu())).relu()
        elif self.way == "tuple":
            return self.head(self.norm(x).relu().mean((2, 3))), x
        return self.head(x.relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("way", "left"),
    [
        ("after", 1),
        ("tuple", 1),  # one of the two is never called
        ("twice", 2),
        ("shared convolution", 2),
        ("changed in place", 2),
        ("norm first", 2),
    ],
)
def test_what_cannot_be_folded_comes_back_right(way: str, left: int) -> None:
    torch.manual_seed(0)
    network = trained(Net(way))
    found = fused(network, EXAMPLE)
    assert count(found) == left
    assert_same(network, found)


def small(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        *middle,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def test_the_taps_of_a_guidable_model_stay_its_own() -> None:
    torch.manual_seed(0)
    model = build_model(
        "test_resnet", ("a", "b"), positive="b", input_size=64, cam_source="cyborg"
    ).eval()
    found = fused(model.backbone, EXAMPLE)
    assert_same(model.backbone, found)
    model(EXAMPLE)  # its tap is there
    assert not any(part._forward_hooks for part in found.modules())


def test_a_network_that_cannot_be_copied_is_used_as_it_is() -> None:
    network = trained(small(nn.BatchNorm2d(4)))
    prune.l1_unstructured(network[0], "weight", 0.5)
    network(EXAMPLE)  # its weight is in a graph
    assert fused(network, EXAMPLE) is network
