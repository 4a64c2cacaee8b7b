"""Class activation maps: the loop, and the identity on real backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from preceptor.models.build import build_model
from preceptor.saliency.cam import class_activation_map

BACKBONES: list[tuple[str, int, dict[str, Any]]] = [
    ("test_byobnet", 64, {"output_stride": 8}),
    ("test_resnet", 64, {}),
    ("test_efficientnet", 64, {}),
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


@pytest.mark.parametrize("classes", [torch.tensor([1]), torch.tensor([[0], [1]]), torch.tensor(1)])
def test_one_class_an_image(classes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B,\)"):
        class_activation_map(torch.ones(2, 3, 2, 2), torch.ones(2, 3), classes)


def test_gradients_reach_features_and_weight() -> None:
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([3, 1])
    assert torch.autograd.gradcheck(
        lambda f, w: class_activation_map(f, w, classes), (features, weight)
    )


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
