"""Class activation maps: the loop, and the identity on real backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from preceptor.models.build import build_model
from preceptor.saliency.cam import class_activation_map, decision_map

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
