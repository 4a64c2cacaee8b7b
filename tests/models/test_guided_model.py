"""One forward for logits, features and saliency: whose, in which mode and precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.precision import in_precision
from preceptor.models.probes import check_cam_identity
from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.maps import normalize
from tests.models.toys import small

# Whose map, in which mode.

EVERY_KIND = ["test_efficientnet", "test_vit"]


@pytest.mark.parametrize("backbone", EVERY_KIND)
@pytest.mark.parametrize("training", [False, True])
def test_every_class_is_each_by_itself(backbone: str, training: bool) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, ["a", "b", "c"], input_size=64).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.set_grad_enabled(training):
        every = model(images, "every")
        assert every.saliency.shape == (4, 3, *model.grid())
        assert torch.equal(every.classes, torch.arange(3).expand(4, 3))
        assert every.saliency.requires_grad == training
        for wanted in range(3):
            alone = model(images, torch.full((4,), wanted))
            torch.testing.assert_close(every.saliency[:, wanted], alone.saliency)
        predicted = model(images, "predicted")
        assert torch.equal(predicted.classes, predicted.logits.argmax(1))
        chosen = every.saliency[torch.arange(4), predicted.classes]
        torch.testing.assert_close(predicted.saliency, chosen)
        assert torch.equal(model(images).logits, predicted.logits)


@pytest.mark.parametrize("backbone", EVERY_KIND)
def test_the_map_is_the_same_with_and_without_a_graph(backbone: str) -> None:
    model = small(backbone)
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([1, 0, 1])
    trained = model(images, of)
    assert trained.saliency.requires_grad
    assert trained.logits.requires_grad
    with torch.no_grad():
        off = model(images, of)
        assert not torch.is_grad_enabled()  # a tap switches them on for a while
    with torch.inference_mode():
        inference = model(images, of)
        of_inference = model(images.clone(), torch.tensor([1, 0, 1]))
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    for out in (off, inference, of_inference):
        for part, expected in zip(out, trained, strict=True):
            assert not part.requires_grad
            assert part.grad_fn is None
            torch.testing.assert_close(part, expected.detach())


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit2", "test_convnext", "test_nfnet"])
def test_evaluation_and_training_give_the_same_map(backbone: str) -> None:
    """On networks without dropout and batch norm the modes are the same function."""
    model = small(backbone)
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([1, 0, 1])
    with torch.inference_mode():
        evaluated = model.eval()(images, of)
    trained = model.train()(images, of)
    torch.testing.assert_close(evaluated.saliency, trained.saliency.detach())
    torch.testing.assert_close(evaluated.logits, trained.logits.detach())


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit", "test_vit2"])
def test_the_models_map_is_that_of_the_slow_way(backbone: str) -> None:
    """An image at a time, one derivative a channel, on the network run by hand."""
    model = small(backbone)
    network: Any = model.backbone
    images, classes = torch.randn(3, 3, 64, 64), [1, 0, 1]
    with torch.no_grad():
        got = model(images, torch.tensor(classes)).saliency
    for b, wanted in enumerate(classes):
        if backbone == "test_vit":  # tokens that enter the last block, one class token before
            seen: list[Tensor] = []
            handle = network.blocks[-1].register_forward_pre_hook(lambda _, a: seen.append(a[0]))  # noqa: B023
            network(images[b : b + 1])
            handle.remove()
            raw = seen[0].detach().requires_grad_()
            logits = network.head(network.fc_norm(network.norm(network.blocks[-1](raw))[:, 0]))
            tokens = slice(1, None)
        elif backbone == "test_vit2":
            raw = network.forward_features(images[b : b + 1]).detach().requires_grad_()
            logits, tokens = network.forward_head(raw), slice(network.num_prefix_tokens, None)
        else:
            raw = network.forward_features(images[b : b + 1]).detach().requires_grad_()
            logits = network.forward_head(raw)
        (slope,) = torch.autograd.grad(logits[0, wanted], raw)
        height, width = model.grid()
        slow = torch.zeros(height, width)
        for channel in range(raw.shape[1] if raw.ndim == 4 else raw.shape[2]):
            if raw.ndim == 4:
                slow += slope[0, channel].mean() * raw[0, channel].detach()
            else:
                values = raw[0, tokens, channel].detach().view(height, width)
                slow += slope[0, tokens, channel].mean() * values
        torch.testing.assert_close(got[b], slow, rtol=1e-4, atol=1e-5)


def test_what_saliency_for_may_be() -> None:
    model = small("test_resnet")
    images = torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match="'label' is not classes, predicted or every"):
        model(images, "label")
    for wrong in (torch.tensor([0]), torch.tensor([[0], [1]]), torch.tensor(0)):
        with pytest.raises(ValueError, match=r"must be \(B,\) with B = 2"):
            model(images, wrong)


# Precision.


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_guided_steps_in_each_precision(backbone: str, precision: Any) -> None:
    torch.manual_seed(0)
    model = small(backbone)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 2
    with torch.no_grad():
        plain = model(images, labels).saliency
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wrapped = in_precision(model, precision)
    maps = torch.rand(8, *model.grid())
    with torch.inference_mode():
        out = wrapped(images, labels)
        assert out.saliency.dtype == torch.float32
        gap = (normalize(out.saliency) - normalize(plain)).abs().max()
        assert float(gap) < (1e-4 if precision == "32-true" else 0.2)
    losses = []
    model.train()
    for _ in range(8):
        logits, _, cam, *_ = wrapped(images, labels)
        assert cam.dtype == torch.float32
        loss = GuidedLoss(0.1)(logits, labels, cam, maps)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


# Sigmoid heads and grey images.


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_one_logit_is_two_classes(backbone: str, in_chans: int) -> None:
    model = small(backbone, head="sigmoid", in_chans=in_chans)
    assert model.head.out_features == 1
    images, labels = torch.randn(6, in_chans, 64, 64), torch.arange(6) % 2
    z: Tensor = model.backbone(images)[:, 0]
    out = model(images, labels)
    torch.testing.assert_close(out.logits, torch.stack([-z / 2, z / 2], 1))
    torch.testing.assert_close(out.logits.softmax(1)[:, 1], z.sigmoid())
    torch.testing.assert_close(
        functional.cross_entropy(out.logits, labels, reduction="none"),
        functional.binary_cross_entropy_with_logits(z, labels.float(), reduction="none"),
    )
    one, other = out.logits[:, 1] - out.logits[:, 0], z
    torch.testing.assert_close(one, other)
    # The two classes look at the same evidence, for and against.
    every = model(images, "every")
    torch.testing.assert_close(every.saliency[:, 0], -every.saliency[:, 1])


def test_the_cam_of_a_sigmoid_head_adds_up_for_both_classes() -> None:
    model = small("test_resnet", head="sigmoid")
    assert model.spec.cam == "cam"
    assert check_cam_identity(model) <= 1e-4
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        out = model(images, "every")
        for wanted, sign in ((0, -0.5), (1, 0.5)):
            bias = sign * model.head.bias
            gap = out.saliency[:, wanted].mean((1, 2)) + bias - out.logits[:, wanted]
            assert float(gap.abs().max()) <= 1e-4 * float(out.logits.abs().max())
            alone = class_activation_map(out.features, model.head.weight, torch.full((3,), wanted))
            torch.testing.assert_close(alone, out.saliency[:, wanted])
            slow = sign * torch.einsum("c,bchw->bhw", model.head.weight[0], out.features)
            torch.testing.assert_close(alone, slow)
    assert model.class_weight.shape == (2, model.head.in_features)


def test_a_sigmoid_head_is_guided_through_grad_cam_as_through_the_cam() -> None:
    exact = small("test_resnet", head="sigmoid")
    through = GuidedModel(exact.backbone, replace(exact.spec, cam="gradcam"))
    images, of = torch.randn(3, 3, 64, 64), torch.tensor([0, 1, 1])
    places = exact.grid()[0] * exact.grid()[1]
    with torch.inference_mode():
        torch.testing.assert_close(
            through(images, of).saliency * places, exact(images, of).saliency
        )


# What else a model is asked.


def test_a_head_that_is_not_one_linear_layer_is_named() -> None:
    model = small("deit_tiny_distilled_patch16_224")
    with pytest.raises(InputError, match="its classifier is Linear, Linear, not one linear layer"):
        _ = model.head


def test_too_coarse_a_grid_is_refused() -> None:
    with pytest.raises(InputError, match="1 × 1 feature grid, too coarse"):
        small("test_convnext", input_size=32).guidable_grid()
