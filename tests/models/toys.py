"""Small models in tests: backbones of timm, and networks that count their backward passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import ModelSpec


def small(backbone: str, **options: Any) -> GuidedModel:
    """A backbone of timm for two classes, in evaluation mode."""
    torch.manual_seed(0)
    return build_model(backbone, ["a", "b"], **{"input_size": 64} | options).eval()


def fresh(backbone: str = "test_resnet", **options: Any) -> GuidedModel:
    """A backbone of timm for two named classes, as it is built for a training."""
    options = {"positive": "fake", "input_size": 64} | options
    return build_model(backbone, ["real", "fake"], **options)


class Counted(torch.autograd.Function):
    """The identity, counting how often it is differentiated."""

    backwards = 0

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        Counted.backwards += 1
        return slope


class Block(nn.Module):
    """Mixes places, as attention does, and keeps what was there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = (self.mix(tokens) @ tokens.transpose(1, 2)).softmax(2)
        return tokens + weights @ tokens


class Toy(nn.Module):
    """A trunk that counts its backward passes, under a head that is not linear."""

    output_fmt = "NCHW"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, stride=2)
        self.head = nn.Linear(4, 2)

    def forward_features(self, images: Tensor) -> Tensor:
        return Counted.apply(self.stem(images).tanh())  # type: ignore[no-any-return, no-untyped-call]

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(functional.gelu(features.mean((2, 3))))
        return out

    def get_classifier(self) -> nn.Module:
        return self.head


class ToyTokens(Toy):
    """Its head sees the first token alone, so that the map is taken before the last block."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(4))

    def forward_features(self, images: Tensor) -> Tensor:
        tokens = super().forward_features(images).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(functional.gelu(features[:, 0]))
        return out


def toy(network: nn.Module, tap: str) -> GuidedModel:
    spec = ModelSpec("toy", ("a", "b"), None, 3, 8, (0.5,) * 3, (0.5,) * 3, cam="gradcam", tap=tap)
    return GuidedModel(network, spec)
