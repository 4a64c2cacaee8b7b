"""Which kind of saliency a backbone has: that of the paper's four, and one of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel, GuidedOutput, ModelOutput
from preceptor.models.probes import check_cam_identity
from preceptor.saliency.maps import normalize

# The four backbones of the paper at their own sizes.

PAPER = {"densenet121": 7, "resnet50": 7, "legacy_xception": 10, "inception_v3": 8}
# |mean(CAM) + bias − logit| ÷ largest |logit| where the network runs in bfloat16 and the map is
# made in float32: 0.012 at most over three batches of four on each (bfloat16 has 8 bits: 0.004).
BF16_IDENTITY = 0.03


@pytest.fixture(scope="module", params=PAPER)
def paper(request: pytest.FixtureRequest) -> Iterator[tuple[str, GuidedModel]]:
    torch.manual_seed(0)
    model = build_model(request.param, ["real", "fake"]).eval()
    yield request.param, model
    del model


def test_the_papers_backbones_have_an_exact_cam(paper: tuple[str, GuidedModel]) -> None:
    name, model = paper
    assert model.spec.cam == "cam"
    assert model.grid() == (PAPER[name], PAPER[name])
    assert check_cam_identity(model) <= 1e-4
    side = model.spec.input_size
    images = torch.randn(2, 3, side, side)
    smaller = images[:, :, : side // 2, : side // 2]  # a CPU is slow in bfloat16
    with torch.inference_mode():
        for autocast, bound in ((False, 1e-4), (True, BF16_IDENTITY)):
            images = smaller if autocast else images
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = model(images, "every")
            assert out.logits.dtype == (torch.bfloat16 if autocast else torch.float32)
            assert out.saliency.dtype == torch.float32
            logits = out.saliency.mean((2, 3)) + model.head.bias
            gap = (logits - out.logits).abs().max() / out.logits.abs().max()
            assert float(gap) <= bound


def test_grad_cam_is_the_cam_on_the_papers_backbones(paper: tuple[str, GuidedModel]) -> None:
    _, model = paper
    through_head = GuidedModel(model.backbone, replace(model.spec, cam="gradcam")).eval()
    side = model.spec.input_size
    images, classes = torch.randn(2, 3, side, side), torch.tensor([1, 0])
    with torch.inference_mode():
        exact, other = model(images, classes), through_head(images, classes)
    assert torch.equal(exact.logits, other.logits)
    gap = (normalize(exact.saliency) - normalize(other.saliency)).abs().max()
    assert float(gap) <= 1e-4


# Kinds.

KINDS: list[tuple[str, int | None, str, str, tuple[int, int]]] = [
    ("test_resnet", 96, "cam", "", (3, 3)),
    ("swin_tiny_patch4_window7_224", 64, "cam", "", (2, 2)),  # NHWC
    ("mixer_s32_224", 64, "cam", "", (2, 2)),  # tokens
    ("test_mambaout", 64, "gradcam", "", (2, 2)),  # NHWC
    ("test_convnext", 64, "gradcam", "", (2, 2)),
    ("levit_128s", 128, "gradcam", "", (2, 2)),  # tokens, two heads
    ("test_vit2", 32, "gradcam", "", (2, 2)),  # tokens, pooled
    ("vit_tiny_patch16_224", 64, "gradcam", "last_block", (4, 4)),  # class token
    ("cait_xxs24_224", 64, "gradcam", "last_block", (4, 4)),  # class token after the blocks
]
# Fewer blocks of the same kind.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"depth": 2},
    "cait_xxs24_224": {"depth": 2},
}


@pytest.mark.parametrize(("backbone", "size", "cam", "tap", "grid"), KINDS, ids=lambda v: str(v))
def test_kinds(backbone: str, size: int | None, cam: str, tap: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_model(
        backbone, ["a", "b", "c"], input_size=size, backbone_args=ARGUMENTS.get(backbone)
    )
    assert (model.spec.cam, model.spec.tap) == (cam, tap)
    assert model.guidable_grid() == grid
    side = model.spec.input_size
    images, labels = torch.randn(3, 3, side, side), torch.tensor([2, 0, 1])
    for model_mode in (model.train(), model.eval()):
        out = model_mode(images, labels)
        assert isinstance(out, GuidedOutput)
        assert out.saliency.shape == (3, *grid)
        assert out.features.shape[2:] == grid
        assert out.saliency.dtype == torch.float32
        assert torch.equal(out.classes, labels)
        plain = model(images)
        assert isinstance(plain, ModelOutput)
        assert plain.logits.shape == (3, 3)
    torch.testing.assert_close(out.logits, plain.logits)
    torch.testing.assert_close(out.logits, model.backbone(images))
    torch.testing.assert_close(out.features, plain.features)
    # A loss on the map reaches through the whole network, and no parameter gets a NaN.
    model.train().zero_grad()
    images.requires_grad_()
    out = model(images, labels)
    GuidedLoss(0.0)(out.logits, labels, out.saliency, torch.rand(3, *grid)).backward()
    assert images.grad is not None
    assert images.grad.flatten(1).any(1).all()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert len(grads) > len(list(model.parameters())) / 2


def test_attention_that_pools_can_be_trained_through() -> None:
    model = build_model(
        "vit_tiny_patch16_224",
        ["a", "b"],
        input_size=64,
        backbone_args={"global_pool": "map", "depth": 2},
    )
    assert (model.spec.cam, model.spec.tap) == ("gradcam", "")
    model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).saliency.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
