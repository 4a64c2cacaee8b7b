"""Soft targets: distillation against a loop over samples, and its share of the guided loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from preceptor.losses.guided import Targets, combine, gradient_norms, guided_loss_terms
from preceptor.losses.predictions import SoftTargets, distillation
from tests.losses.batches import NAN, batch, odd_batch


def slow_distillation(logits: list[float], targets: list[float], temperature: float) -> float:
    powers = [p ** (1 / temperature) for p in targets]
    q = [power / sum(powers) for power in powers]
    softened = [x / temperature for x in logits]
    total = math.log(sum(math.exp(x) for x in softened))
    return -(temperature**2) * sum(a * (x - total) for a, x in zip(q, softened, strict=True))


def soft_batch(seed: int = 0, size: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    logits = torch.randn(size, classes, **options)
    return logits, (2 * torch.randn(size, classes, **options)).softmax(1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 9999),
    classes=st.integers(2, 6),
    temperature=st.floats(0.3, 20),
)
def test_distillation_is_the_loop(seed: int, classes: int, temperature: float) -> None:
    logits, targets = soft_batch(seed, 4, classes)
    found = distillation(logits, targets, temperature)
    for row in range(4):
        slow = slow_distillation(logits[row].tolist(), targets[row].tolist(), temperature)
        assert found[row].item() == pytest.approx(slow, rel=1e-9)


def test_distillation_of_sure_targets_is_cross_entropy() -> None:
    logits, labels, _, _ = batch()
    sure = torch.nn.functional.one_hot(labels, 3).double()
    for temperature in (0.01, 1.0, 4.0):  # 0 and 1 stay what they are at every temperature
        expected = torch.nn.functional.cross_entropy(logits / temperature, labels, reduction="none")
        found = distillation(logits, sure, temperature)
        torch.testing.assert_close(found, temperature**2 * expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_gradient_of_distillation(temperature: float) -> None:
    """By finite differences; T (p_T − q); and none where the two agree."""
    logits, targets = soft_batch(1)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distillation(x, targets, temperature), logits)
    (found,) = torch.autograd.grad(distillation(logits, targets, temperature).sum(), logits)
    softened = targets ** (1 / temperature)
    softened = softened / softened.sum(1, keepdim=True)
    expected = temperature * ((logits / temperature).softmax(1) - softened)
    torch.testing.assert_close(found, expected.detach())
    same = targets.log().requires_grad_()
    (found,) = torch.autograd.grad(distillation(same, targets, temperature).sum(), same)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_distillation_at_the_edges_of_float32() -> None:
    targets = torch.tensor([[1e-38, 1.0, 0.0], [0.0, 0.0, 1.0]])
    logits = torch.tensor([[90.0, -90.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    for temperature in (0.01, 1.0, 100.0):
        found = distillation(logits, targets, temperature)
        assert found.isfinite().all()
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert gradient.isfinite().all()
    with pytest.raises(ValueError, match=r"must both be \(B, C\)"):
        distillation(logits, targets[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"must both be \(B, C\)"):
        distillation(logits, targets[:1], 1.0)


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_soft_targets_are_a_share_of_the_classification_term(
    weight: float, alpha: float, temperature: float
) -> None:
    logits, labels, cam, maps, w, v = odd_batch()
    _, targets = soft_batch(2, 8)
    targets[[2, 5]] = NAN  # images that the Teacher did not mark
    targets[6, 1] = NAN
    soft = SoftTargets(targets, weight, temperature)
    terms = guided_loss_terms(logits, cam, Targets(labels, maps, w, v, soft=soft))
    plain = guided_loss_terms(logits, cam, Targets(labels, maps, w, v))
    for row in range(8):
        expected = plain.classification[row].item()
        if row not in (2, 5, 6):
            distilled = slow_distillation(logits[row].tolist(), targets[row].tolist(), temperature)
            expected = (1 - weight) * expected + weight * v[row].item() * distilled
        assert terms.classification[row].item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(terms.guidance, plain.guidance)
    loss = combine(terms, alpha)
    expected_loss = ((1 - alpha) * terms.guidance + alpha * terms.classification).mean()
    torch.testing.assert_close(loss, expected_loss)


def test_gradients_with_soft_targets_are_finite_differences() -> None:
    logits, labels, cam, maps, w, v = odd_batch(3)
    _, targets = soft_batch(2, 8)
    targets[2] = NAN
    soft = SoftTargets(targets, 0.6, 2.0)
    logits.requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return combine(guided_loss_terms(x, cam, Targets(labels, maps, w, v, soft)), 0.4)

    assert torch.autograd.gradcheck(loss, logits)


def test_no_known_soft_target_is_plain_cross_entropy() -> None:
    logits, labels, _, _ = batch()
    soft = SoftTargets(torch.full((6, 3), NAN), 0.7, 2.0)
    terms = guided_loss_terms(logits, None, Targets(labels, soft=soft))
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(terms.classification, expected)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradient_norms_with_soft_targets_are_autograds(alpha: float, temperature: float) -> None:
    logits, labels, cam, maps, w, v = odd_batch()
    _, targets = soft_batch(2, 8)
    targets[2] = NAN
    soft = SoftTargets(targets, 0.6, temperature)
    logits.requires_grad_()
    targets = Targets(labels, maps, w, v, soft=soft)
    terms = guided_loss_terms(logits, cam, targets)
    combine(terms, alpha).backward()
    assert logits.grad is not None
    at_logits, _ = gradient_norms(logits.detach(), terms, targets, alpha=alpha, distance="l2")
    torch.testing.assert_close(at_logits, 8 * logits.grad.norm(dim=1))
