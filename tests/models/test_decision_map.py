"""Decision maps: both kinds of CAM, both heads, two to a hundred classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.cam import decision_map, log_odds_slopes

# Exact CAMs and Grad-CAMs.
BACKBONES = ["test_resnet", "test_efficientnet_evos", "densenet121", "test_convnext", "test_vit"]


def odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y − log(1 − p_y), in float64."""
    p = logits.double().softmax(1)[torch.arange(len(labels)), labels]
    return p.log() - (1 - p).log()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_decision_map_is_the_loop(classes: int) -> None:
    features, weight = torch.randn(4, 6, 2, 3).double(), torch.randn(classes, 6).double()
    logits, labels = torch.randn(4, classes).double(), torch.arange(4) % classes
    found = decision_map(features, weight, logits, labels)
    for image in range(4):
        cams = torch.einsum("kc,chw->khw", weight, features[image])
        y = int(labels[image])
        others = [c for c in range(classes) if c != y]
        total = sum(logits[image, c].exp() for c in others)
        rest = sum(logits[image, c].exp() / total * cams[c] for c in others)
        torch.testing.assert_close(found[image], cams[y] - rest)


@pytest.mark.parametrize("classes", [2, 5])
def test_slopes_are_the_derivative_of_the_log_odds(classes: int) -> None:
    logits = torch.randn(6, classes, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % classes
    (expected,) = torch.autograd.grad(odds(logits, labels).sum(), logits)
    found = log_odds_slopes(logits, labels)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
    assert not found.requires_grad


def shift(model: GuidedModel, by: float) -> None:
    """Add the same random weights and the same bias to all classes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        row = torch.randn(model.head.weight.shape[1], generator=generator)
        model.head.weight += by * row
        model.head.bias += by


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("classes", [2, 5])
def test_a_change_that_leaves_all_probabilities_leaves_the_decision_map(
    backbone: str, classes: int
) -> None:
    names = ["a", "b", "c", "d", "e"][:classes]
    torch.manual_seed(0)
    model = build_model(backbone, names, input_size=64).eval()
    images, labels = torch.randn(3, 3, 64, 64), torch.tensor([0, 1, classes - 1])
    before, own = model(images, labels, decision=True), model(images, labels)
    shift(model, 0.5)
    after, moved = model(images, labels, decision=True), model(images, labels)
    torch.testing.assert_close(after.logits.softmax(1), before.logits.softmax(1), atol=1e-4, rtol=0)
    scale = before.saliency.abs().max()
    torch.testing.assert_close(after.saliency / scale, before.saliency / scale, atol=2e-3, rtol=0)
    assert (moved.saliency - own.saliency).abs().max() > 0.05 * own.saliency.abs().max()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_the_mean_of_the_evidence_is_the_log_odds(backbone: str, classes: int) -> None:
    model = build_model(backbone, [f"{k}" for k in range(classes)], input_size=64).eval()
    images = torch.randn(4, 3, 64, 64)
    labels = torch.tensor([0, 1, classes - 1, classes // 2])
    out = model(images, labels, decision=True)
    expected = odds(out.logits, labels)
    torch.testing.assert_close(out.evidence.mean((1, 2)).double(), expected, atol=1e-3, rtol=1e-3)
    every = model(images, "every", decision=True).evidence.mean((2, 3)).double()
    each = [odds(out.logits, torch.full((4,), label)) for label in range(classes)]
    torch.testing.assert_close(every, torch.stack(each, 1), atol=1e-3, rtol=1e-3)


def test_for_two_classes_the_evidence_is_the_map_plus_the_difference_of_the_biases() -> None:
    model = build_model("test_resnet", ["a", "b"], input_size=64).eval()
    torch.nn.init.normal_(model.head.bias)
    labels = torch.tensor([0, 1])
    out, bias = model(torch.randn(2, 3, 64, 64), labels, decision=True), model.head.bias
    offset = torch.stack((bias[0] - bias[1], bias[1] - bias[0]))
    assert torch.equal(out.evidence, out.saliency + offset[:, None, None])


def test_the_gradient_of_the_mean_evidence_is_that_of_the_log_odds() -> None:
    model = build_model("test_resnet", ["a", "b", "c"], input_size=64).eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
    out = model(images, labels, decision=True)
    (found,) = torch.autograd.grad(out.evidence.mean((1, 2)).sum(), model.head.weight)
    (expected,) = torch.autograd.grad(odds(model(images).logits, labels).sum(), model.head.weight)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_one_logit_it_is_twice_the_labels_map(backbone: str) -> None:
    model = build_model(backbone, ["a", "b"], input_size=64, head="sigmoid").eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    decision, own = model(images, labels, decision=True), model(images, labels)
    scale = own.saliency.abs().max()
    torch.testing.assert_close(
        decision.saliency / scale, 2 * own.saliency / scale, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("backbone", ["test_byobnet", "test_vit"])
def test_every_class_is_each_by_itself(backbone: str) -> None:
    model = build_model(backbone, ["a", "b", "c"], input_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    every = model(images, "every", decision=True)
    for label in range(3):
        one = model(images, torch.full((2,), label), decision=True)
        torch.testing.assert_close(every.saliency[:, label], one.saliency, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(every.evidence[:, label], one.evidence, atol=1e-5, rtol=1e-4)
