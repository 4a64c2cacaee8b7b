"""Guided loss: cross-entropy plus the distance of the model's saliency from a map (CYBORG).

    L = 1/K Σ_k v_k [ (1 − α) · w_k · d(s_k_map, s_k_model) − α · log p_model(y_k) ]

A. Boyd, P. Tinsley, K. Bowyer, A. Czajka, "CYBORG: Blending Human Saliency Into the Loss Improves
Deep Learning-Based Synthetic Face Detection", WACV 2023.

K is the number of images of the batch, v_k the weight of an image, w_k the weight of its map
(0 = no guidance), y_k its label, and d the distance of two maps, both scaled to [0, 1] by their
minimum and maximum. Training calls `guided_loss_terms` and `combine`; `GuidedLoss` and `guidance`
are the public interface for other training loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.config.run import Distance
from preceptor.losses.distances import DISTANCES
from preceptor.losses.distillation import SoftTargets, distillation, softened
from preceptor.saliency.cam import binary_logits
from preceptor.saliency.normalise import informative, normalise


def guidance(cam: Tensor, maps: Tensor, distance: Distance = "l2") -> Tensor:
    """Distance of each image's normalized saliency from its normalized map.

    l2 is the norm of the flattened difference, as in the CYBORG paper; mse is the mean square, as
    in the authors' released code; the others are in `preceptor.losses.distances`. Their gradients
    differ in size: per image, l2 has gradient norm 1, mse 2‖d‖ ÷ (h·w).

    Args:
        cam: (B, h, w) raw saliency of the model; gradients flow into it.
        maps: (B, h, w) on the same grid, any scale.
        distance: l2, mse, l1, kl or dice.

    Returns:
        (B,) distances ≥ 0.

    Raises:
        ValueError: The shapes differ (nothing is broadcast), or the distance is unknown.

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
        >>> guidance(a, a.flip(2))
        tensor([1.4142])
    """
    pair = _normalised(cam, maps)
    return _distance(distance)(pair.model, pair.target)


class MapPair(NamedTuple):
    """Normalized saliency of the model and normalized target maps.

    Args:
        model: (B, h, w) in [0, 1]; gradients flow through it into the CAM.
        target: (B, h, w) in [0, 1]; zeros for images without guidance.
    """

    model: Tensor
    target: Tensor


def _normalised(cam: Tensor, maps: Tensor) -> MapPair:
    if cam.shape != maps.shape or cam.ndim != 3:
        raise ValueError(
            f"cam {tuple(cam.shape)} and maps {tuple(maps.shape)} must both be (B, h, w)"
        )
    return MapPair(normalise(cam), normalise(maps))


def _distance(name: Distance) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in DISTANCES:
        raise ValueError(f"distance {name!r} is not one of {', '.join(DISTANCES)}")
    return DISTANCES[name]


class Targets(NamedTuple):
    """Training targets of a batch of B images, on the device of the model.

    Args:
        labels: (B,) int64.
        maps: (B, h, w) target maps on the grid of the CAM, any scale; None = no guidance.
        map_weight: (B,) w_k ≥ 0, 0 = no map (the content is ignored); None = 1.
        sample_weight: (B,) v_k > 0; None = 1.
        soft: Soft targets of the classification term; None = labels only.
    """

    labels: Tensor
    maps: Tensor | None = None
    map_weight: Tensor | None = None
    sample_weight: Tensor | None = None
    soft: SoftTargets | None = None


class LossTerms(NamedTuple):
    """Terms of the guided loss for each image, before weighting by α and averaging.

    Args:
        classification: (B,) v_k · −log p(y_k), or its mixture with soft targets.
        guidance: (B,) v_k · w_k · d_k; exactly 0 for images without guidance.
        guided: (B,) bool, images with a map weight > 0 and an informative map.
        uninformative: (B,) bool, images with a map weight > 0 and a constant or non-finite map.
        pair: Normalized maps of the guidance term; None without a CAM or maps.
    """

    classification: Tensor
    guidance: Tensor
    guided: Tensor
    uninformative: Tensor
    pair: MapPair | None = None


def guided_loss_terms(
    logits: Tensor, cam: Tensor | None, targets: Targets, distance: Distance = "l2"
) -> LossTerms:
    """Classification and guidance term of the guided loss for each image.

    With `targets.soft` of weight s, the classification term of an image is (1 − s) · −log p(y) +
    s · `distillation`.

    Args:
        logits: (B, C); (B, 1) are single logits of class 1 against class 0.
        cam: (B, h, w) raw saliency of the model; None = no guidance.
        targets: Labels, maps and weights.
        distance: l2, mse, l1, kl or dice.

    Raises:
        ValueError: The shapes differ, or the distance is unknown.
    """
    labels, maps, map_weight, sample_weight, soft = targets
    _check_shapes(logits, labels, cam, maps, map_weight, sample_weight)
    logits = binary_logits(logits)
    classification = functional.cross_entropy(logits, labels, reduction="none")
    if soft is not None:
        probabilities, share = soft.known()
        distilled = distillation(logits, probabilities, soft.temperature)
        classification = (1 - share) * classification + share * distilled
    nothing = torch.zeros_like(labels, dtype=torch.bool)
    if cam is None or maps is None:
        terms = LossTerms(classification, torch.zeros_like(classification), nothing, nothing)
    else:
        weighted = nothing.logical_not() if map_weight is None else map_weight > 0
        guided = weighted & informative(maps)
        # Maps without weight may contain anything, and NaN times 0 is NaN: they are replaced by
        # zeros before any arithmetic.
        known = torch.where(guided[:, None, None], maps, torch.zeros((), dtype=maps.dtype))
        pair = _normalised(cam, known.to(cam.dtype))
        distances = _distance(distance)(*pair)
        if map_weight is not None:
            distances = distances * torch.where(guided, map_weight, 0).to(distances.dtype)
        terms = LossTerms(
            classification, torch.where(guided, distances, 0), guided, weighted & ~guided, pair
        )
    if sample_weight is not None:
        terms = terms._replace(
            classification=terms.classification * sample_weight,
            guidance=terms.guidance * sample_weight,
        )
    return terms


def _check_shapes(logits: Tensor, labels: Tensor, *others: Tensor | None) -> None:
    """Check shapes, since a (B, 1) weight would broadcast to B × B products without an error."""
    batch = len(logits)
    if logits.ndim != 2 or labels.shape != (batch,):
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} must be (B, C) and (B,)"
        )
    expected = (("cam", 3), ("maps", 3), ("map_weight", 1), ("sample_weight", 1))
    for (name, axes), value in zip(expected, others, strict=True):
        if value is not None and (value.ndim != axes or len(value) != batch):
            wanted = "(B, h, w)" if axes == 3 else "(B,)"
            raise ValueError(f"{name} {tuple(value.shape)} must be {wanted} with B = {batch}")


class GuidedLoss(nn.Module):
    """Guided loss: (1 − α) · guidance + α · cross-entropy, averaged over the batch.

    Args:
        alpha: α in [0, 1]: 1 is plain cross-entropy, 0 guidance only. Comparable only within one
            distance.
        distance: l2 (the paper), mse (the authors' code), l1, kl or dice.

    Raises:
        ValueError: α outside [0, 1], or an unknown distance.

    Example:
        >>> loss = GuidedLoss(alpha=1.0)
        >>> round(loss(torch.zeros(2, 2), torch.tensor([0, 1]), None, None).item(), 4)
        0.6931
    """

    def __init__(self, alpha: float, distance: Distance = "l2") -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}, not in [0, 1]")
        _distance(distance)
        self.alpha = alpha
        self.distance: Distance = distance

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        cam: Tensor | None,
        maps: Tensor | None,
        map_weight: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of one batch.

        Args:
            logits: (B, C); (B, 1) are single logits of class 1 against class 0.
            labels: (B,) int64.
            cam: (B, h, w) raw saliency of the model; may be None at α = 1.
            maps: (B, h, w) target maps on the same grid; may be None at α = 1.
            map_weight: (B,) w_k ≥ 0, 0 = no map (the content is ignored); None = 1.
            sample_weight: (B,) v_k > 0; None = 1. The divisor stays B.

        Returns:
            Scalar.

        Raises:
            ValueError: cam or maps missing at α < 1, or shapes that differ.
        """
        if self.alpha < 1 and (cam is None or maps is None):
            raise ValueError("cam and maps may be None only at alpha = 1")
        if self.alpha == 1:
            cam = maps = None
        targets = Targets(labels, maps, map_weight, sample_weight)
        return combine(guided_loss_terms(logits, cam, targets, self.distance), self.alpha)


def combine(terms: LossTerms, alpha: float) -> Tensor:
    """Guided loss of a batch: the mean of (1 − α) · guidance + α · classification.

    A term with factor 0 is omitted, so that an infinite term does not give NaN.
    """
    if alpha == 1:
        return terms.classification.mean()
    if alpha == 0:
        return terms.guidance.mean()
    return ((1 - alpha) * terms.guidance + alpha * terms.classification).mean()


def gradient_norms(
    logits: Tensor,
    terms: LossTerms,
    targets: Targets,
    *,
    alpha: float,
    distance: Distance = "l2",
) -> tuple[Tensor, Tensor]:
    """Gradient norms of both terms for each image, without the division by the batch size.

    Classification at the logits: α · v ‖p − y‖, with soft targets of share s
    α · v ‖(1 − s)(p − y) + s · T (p_T − q)‖. Guidance at the normalised map s_model:
    (1 − α) · v · w ‖∂d ÷ ∂s_model‖, exactly 0 for images without guidance.

    Also works under `torch.no_grad`, leaves no gradients, and does not synchronize with the device.

    Args:
        logits: (B, C).
        terms: Terms returned by `guided_loss_terms` for the same batch.
        targets: Targets passed to `guided_loss_terms`.
        alpha: α of the step.
        distance: l2, mse, l1, kl or dice.

    Returns:
        (B,) norms at the logits and (B,) norms at the map, detached.

    Example:
        >>> logits, cam = torch.zeros(1, 2), torch.tensor([[[0.0, 1.0]]])
        >>> targets = Targets(torch.tensor([0]), maps=torch.tensor([[[1.0, 0.0]]]))
        >>> terms = guided_loss_terms(logits, cam, targets)
        >>> gradient_norms(logits, terms, targets, alpha=0.25)
        (tensor([0.1768]), tensor([0.7500]))
    """
    labels, _, map_weight, sample_weight, soft = targets
    logits = binary_logits(logits)
    # Not with one_hot, which reads the values of the labels and may synchronize with the device.
    own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    error = logits.softmax(1) - own.to(logits.dtype)
    if soft is not None:
        probabilities, share = soft.known()
        q = softened(probabilities.to(logits.dtype), soft.temperature)
        apart = soft.temperature * ((logits / soft.temperature).softmax(1) - q)
        error = (1 - share)[:, None] * error + share[:, None] * apart
    at_logits = alpha * torch.linalg.vector_norm(error, dim=1)
    if sample_weight is not None:
        at_logits = at_logits * sample_weight
    if terms.pair is None:
        return at_logits, torch.zeros_like(at_logits)
    with torch.enable_grad():  # by autograd on a separate leaf, which works for every distance
        model, target = terms.pair.model.detach().requires_grad_(), terms.pair.target.detach()
        (gradient,) = torch.autograd.grad(_distance(distance)(model, target).sum(), model)
    pull = torch.linalg.vector_norm(gradient.flatten(1), dim=1).to(at_logits.dtype)
    if map_weight is not None:
        pull = pull * map_weight
    if sample_weight is not None:
        pull = pull * sample_weight
    return at_logits, (1 - alpha) * torch.where(terms.guided, pull, 0)
