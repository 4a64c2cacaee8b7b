"""Batch norm between features and logits: a map in training is that of its image alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import check_grad_cam
from tests.models.toys import Block, Toy, ToyTokens, toy


class ToyNormed(Toy):
    """Its head has a batch norm, through which images meet in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(features.mean((2, 3))))
        return out


class NormedBlock(Block):
    """A block in which images meet in training."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(self.norm(tokens.transpose(1, 2)).transpose(1, 2))


class ToyNormedTokens(ToyTokens):
    """The block before which its map is taken has a batch norm, and so has the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(NormedBlock(4), NormedBlock(4))


NORMED_TOYS = [
    (ToyNormed, "", ["norm"], []),
    (ToyNormedTokens, "last_block", ["blocks.1.norm"], ["blocks.0.norm"]),
]


def normed_toy(make: type[Toy], tap: str) -> GuidedModel:
    """With running statistics of its own."""
    torch.manual_seed(0)
    model = toy(make(), tap).double().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 8, 8, dtype=torch.float64) + 0.5)
    return model


@pytest.mark.parametrize(("make", "tap", "after", "before"), NORMED_TOYS)
def test_a_map_in_training_is_that_of_its_image_alone(
    make: type[Toy], tap: str, after: list[str], before: list[str]
) -> None:
    model = normed_toy(make, tap)
    assert model.norms_after_features() == after
    for name in before:  # what the features are made of is not in question
        model.backbone.get_submodule(name).eval()
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    for of in (torch.tensor([0, 1, 1, 0, 1, 0]), torch.ones(6, dtype=torch.int64)):
        twin = copy.deepcopy(model).eval()
        alone = [twin(images[k : k + 1], of[k : k + 1]).saliency[0] for k in range(6)]
        wanted = torch.stack(alone).detach()
        for images_and_classes in (slice(0, 6), slice(0, 3)):
            part = copy.deepcopy(model)
            maps = part(images[images_and_classes], of[images_and_classes]).saliency
            torch.testing.assert_close(maps.detach(), wanted[images_and_classes])
        # In a batch of one class too it is no rounding noise.
        assert wanted.flatten(1).std(1).min() > 1e-3


@pytest.mark.parametrize(("make", "tap", "after", "before"), NORMED_TOYS)
@pytest.mark.parametrize("trainable", [True, False])
def test_the_forward_beside_the_map_is_that_of_training(
    make: type[Toy], tap: str, after: list[str], before: list[str], trainable: bool
) -> None:
    """Logits, features and running statistics are as without a map; the statistics move once."""
    plain = normed_toy(make, tap)
    guided = copy.deepcopy(plain)
    images, of = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    with torch.set_grad_enabled(trainable):
        expected, out = plain(images), guided(images, of)
    torch.testing.assert_close(out.logits, expected.logits)
    torch.testing.assert_close(out.features, expected.features)
    for (name, value), other in zip(plain.named_buffers(), guided.buffers(), strict=True):
        assert torch.equal(value, other), name
    assert all(guided.backbone.get_submodule(name).training for name in after + before)
    every = guided(images, "every")
    assert every.saliency.shape[1] == 2


def test_batch_norm_without_running_statistics_in_a_head_is_refused() -> None:
    network = ToyNormed()
    network.norm = nn.BatchNorm1d(4, track_running_stats=False)
    found = check_grad_cam(toy(network, ""))
    assert found == "its norm is batch norm without running statistics, where images meet"
