"""Guided loss: cross-entropy plus the distance of the model's saliency from a map (CYBORG).

    L = 1/K Σ_k v_k [ (1 − α) · w_k · d(s_k_map, s_k_model) − α · log p_model(y_k) ]

A. Boyd, P. Tinsley, K. Bowyer, A. Czajka, "CYBORG: Blending Human Saliency Into the Loss Improves
Deep Learning-Based Synthetic Face Detection", WACV 2023.

K is the number of images of the batch, v_k the weight of an image, w_k the weight of its map
(0 = no guidance), y_k its label, and d the distance of the model's map from the target: of maps
scaled to [0, 1] by their minimum and maximum, of signed evidence from a mask, or a weighted sum of
several (`preceptor.losses.distances`). Training calls `guided_loss_terms` and `combine`;
`GuidedLoss` is the interface for other training loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.config.training import (
    DISTANCE_NAMES,
    Distance,
    Distances,
    distance_weights,
    takes_masks,
)
from preceptor.losses.distances import (
    DISTANCES,
    EVIDENCE_DISTANCES,
    WHOLE_MASKS,
    cells,
)
from preceptor.saliency.cam import binary_logits
from preceptor.saliency.maps import informative, normalize

MARK_WEIGHT = 9.0  # additional weight of a marked cell in the distance cells


def guidance(cam: Tensor, maps: Tensor, distance: Distances = "l2") -> Tensor:
    """Distance of each image's saliency from its map.

    l2 is the norm of the flattened difference of the normalized maps, as in the CYBORG paper; mse
    is the mean square, as in the authors' released code. Their gradients differ in size: per image,
    l2 has gradient norm 1, mse 2‖d‖ ÷ (h·w).

    Args:
        cam: (B, h, w) raw saliency of the model; gradients flow into it. For cells, evidence,
            energy and cosine: the evidence of the cells, which is the decision map plus the bias.
        maps: (B, h, w) on the same grid. Of any scale for distances between normalized maps; in
            [0, 1] for the others.
        distance: l2, mse, l1, kl, dice, cells, evidence, energy or cosine
            (`preceptor.losses.distances`); or several with their weights.

    Returns:
        (B,) distances ≥ 0.

    Raises:
        ValueError: The shapes differ (nothing is broadcast), the distance is unknown, or a mask
            has values outside [0, 1].

    Example:
        >>> a = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
        >>> guidance(a, a.flip(2))
        tensor([1.4142])
        >>> guidance(a, a.flip(2), {"l2": 0.5, "energy": 2.0})
        tensor([2.7071])
    """
    check_masks(maps, distance)
    pair = paired(cam, maps)
    every = torch.ones(len(cam), dtype=torch.bool, device=cam.device)
    return distance_of(pair, distance, dict.fromkeys(parts_of(distance), every), MARK_WEIGHT)


class MapPair(NamedTuple):
    """Saliency of the model and target maps, as the distances take them."""

    model: Tensor  # (B, h, w) normalized saliency in [0, 1]; gradients flow through it into the CAM
    target: Tensor  # (B, h, w) normalized maps in [0, 1]; zeros for images without guidance
    evidence: Tensor  # (B, h, w) raw saliency of the model
    mask: Tensor  # (B, h, w) maps as given; zeros for images without guidance


def paired(cam: Tensor, maps: Tensor) -> MapPair:
    """Saliency and maps, (B, h, w) each, as the distances take them."""
    if cam.shape != maps.shape or cam.ndim != 3:
        raise ValueError(
            f"cam {tuple(cam.shape)} and maps {tuple(maps.shape)} must have one shape (B, h, w); "
            "reduce maps, such as by adaptive_avg_pool2d(maps[:, None], cam.shape[-2:])[:, 0]"
        )
    maps = maps if maps.is_floating_point() else maps.to(cam.dtype)
    return MapPair(normalize(cam), normalize(maps), cam, maps)


def parts_of(distance: Distances) -> dict[Distance, float]:
    """Weight of each distance."""
    parts = distance_weights(distance)
    if not parts or not all(0 < weight < math.inf for weight in parts.values()):
        raise ValueError(f"distance {distance}: write names with weights above 0")
    for name in parts:
        if name not in DISTANCE_NAMES:
            raise ValueError(f"distance {name!r} is not one of {', '.join(DISTANCE_NAMES.own)}")
    return parts


def usable_by(name: Distance, maps: Tensor) -> Tensor:
    """(B,) whether each map can guide by this distance: finite, and not constant.

    For cells and evidence, a mask that is constant but not zero can: evidence for the label lies
    everywhere. Zeros cannot: a crop without the mark does not refute the label.
    """
    if name in WHOLE_MASKS:
        maps = maps if maps.is_floating_point() else maps.float()
        highest = maps.amax((-2, -1))
        return (highest > 0) & torch.isfinite(highest - maps.amin((-2, -1)))
    return informative(maps)


def distance_of(
    pair: MapPair, distance: Distances, usable: Mapping[Distance, Tensor], mark_weight: float
) -> Tensor:
    """(B,) weighted sum of the distances; 0 where the map cannot guide by a distance."""
    total: Tensor | None = None
    for name, weight in parts_of(distance).items():
        if name == "cells":
            apart = cells(pair.evidence, pair.mask, mark_weight)
        elif name in EVIDENCE_DISTANCES:
            apart = EVIDENCE_DISTANCES[name](pair.evidence, pair.mask)
        else:
            apart = DISTANCES[name](pair.model, pair.target)
        if weight != 1:
            apart = apart * weight
        apart = torch.where(usable[name], apart, 0)
        total = apart if total is None else total + apart
    assert total is not None
    return total


def check_masks(maps: Tensor, distance: Distances, map_weight: Tensor | None = None) -> None:
    """Check that masks are in [0, 1]; other maps may have any scale.

    Maps of weight 0 may have any value. Compiled code does not check: a condition on values would
    divide its graph.
    """
    if not takes_masks(distance) or torch.compiler.is_compiling():
        return
    if map_weight is not None:
        maps = maps[map_weight > 0]
    if maps.numel() and (maps.amin() < -1e-4 or maps.amax() > 1.0001):  # resizing overshoots
        raise ValueError(
            f"maps have values from {maps.amin():g} to {maps.amax():g}, and distance {distance} "
            "takes masks in [0, 1]; divide them by their maximum"
        )


class Targets(NamedTuple):
    """Training targets of a batch of B images, on the device of the model."""

    labels: Tensor  # (B,) int64
    maps: Tensor | None = None  # (B, h, w) target maps on the grid of the CAM, any scale
    map_weight: Tensor | None = None  # (B,) w_k ≥ 0, 0 = no map (the content is ignored); None = 1
    sample_weight: Tensor | None = None  # (B,) v_k > 0; None = 1


class LossTerms(NamedTuple):
    """Terms of the guided loss for each image, before weighting by α and averaging."""

    classification: Tensor  # (B,) v_k · −log p(y_k)
    guidance: Tensor  # (B,) v_k · w_k · d_k; exactly 0 for images without guidance
    guided: Tensor  # (B,) bool, images with a map weight > 0 and an informative map
    uninformative: Tensor  # (B,) bool, images with a map weight > 0 and no informative map
    pair: MapPair | None = None  # maps of the guidance term; None without a CAM or maps
    usable: Mapping[Distance, Tensor] = {}  # (B,) bool by distance, see `usable_by`


def guided_loss_terms(
    logits: Tensor,
    cam: Tensor | None,
    targets: Targets,
    distance: Distances = "l2",
    mark_weight: float = MARK_WEIGHT,
) -> LossTerms:
    """Classification and guidance term of the guided loss for each image.

    Raises ValueError for shapes that differ, and for an unknown distance.
    """
    labels, maps, map_weight, sample_weight = targets
    _check_shapes(logits, labels, cam, maps, map_weight, sample_weight)
    logits = binary_logits(logits)
    classification = functional.cross_entropy(logits, labels, reduction="none")
    nothing = torch.zeros_like(labels, dtype=torch.bool)
    if cam is None or maps is None:
        terms = LossTerms(classification, torch.zeros_like(classification), nothing, nothing)
    else:
        weighted = nothing.logical_not() if map_weight is None else map_weight > 0
        usable = {name: usable_by(name, maps) for name in parts_of(distance)}
        guided = weighted & torch.stack(tuple(usable.values())).any(0)
        # Maps without weight may contain anything, and NaN times 0 is NaN: they are replaced by
        # zeros before any arithmetic.
        finite = torch.where(guided[:, None, None], maps, torch.zeros((), dtype=maps.dtype))
        pair = paired(cam, finite.to(cam.dtype))
        distances = distance_of(pair, distance, usable, mark_weight)
        if map_weight is not None:
            distances = distances * torch.where(guided, map_weight, 0).to(distances.dtype)
        terms = LossTerms(
            classification,
            torch.where(guided, distances, 0),
            guided,
            weighted & ~guided,
            pair,
            usable,
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

    Computed in float32 or wider, also from logits and maps in half precision. `torch.compile`
    makes one graph of it.

    Args:
        alpha: α in [0, 1]: 1 is plain cross-entropy, 0 guidance only. Comparable only within one
            distance.
        distance: l2 (the paper), mse (the authors' code) or another one, see `guidance`, or several
            with their weights.
        mark_weight: Additional weight of a marked cell in the distance cells.

    Raises:
        ValueError: α outside [0, 1], a negative weight, or an unknown distance.

    Example:
        >>> loss = GuidedLoss(alpha=1.0)
        >>> round(loss(torch.zeros(2, 2), torch.tensor([0, 1]), None, None).item(), 4)
        0.6931
    """

    def __init__(
        self, alpha: float, distance: Distances = "l2", mark_weight: float = MARK_WEIGHT
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}, not in [0, 1]")
        if not 0 <= mark_weight < math.inf:
            raise ValueError(f"mark_weight is {mark_weight}, not a number ≥ 0")
        parts_of(distance)
        self.alpha = alpha
        self.distance: Distances = distance
        self.mark_weight = mark_weight

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
            cam: (B, h, w) raw saliency of the model, see `guidance`; may be None at α = 1.
            maps: (B, h, w) target maps on the same grid, see `guidance`; may be None at α = 1.
            map_weight: (B,) w_k ≥ 0, 0 = no map (the content is ignored); None = 1.
            sample_weight: (B,) v_k > 0; None = 1. The divisor stays B.

        Returns:
            Scalar.

        Raises:
            ValueError: cam or maps missing at α < 1, shapes that differ, or a mask with values
                outside [0, 1], which compiled code does not check.
        """
        if self.alpha < 1 and (cam is None or maps is None):
            raise ValueError("cam and maps may be None only at alpha = 1")
        if self.alpha == 1:
            cam = maps = None
        targets = Targets(labels, maps, map_weight, sample_weight)
        logits, cam = _widened(logits), None if cam is None else _widened(cam)
        terms = guided_loss_terms(logits, cam, targets, self.distance, self.mark_weight)
        if maps is not None:
            check_masks(maps, self.distance, map_weight)
        return combine(terms, self.alpha)


def _widened(values: Tensor) -> Tensor:
    """Values in float32 or wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def combine(terms: LossTerms, alpha: float | Tensor) -> Tensor:
    """Guided loss of a batch: the mean of (1 − α) · guidance + α · classification.

    A term with factor 0 is omitted, so that an infinite term does not give NaN.
    """
    if not isinstance(alpha, Tensor):
        if alpha == 1:
            return terms.classification.mean()
        if alpha == 0:
            return terms.guidance.mean()
    return ((1 - alpha) * terms.guidance + alpha * terms.classification).mean()


def balanced_alpha(terms: LossTerms) -> Tensor:
    """α of a batch that follows the losses: classification ÷ (classification + guidance).

    The larger a term, the larger its weight. No gradient flows through α.

    VISER, IJCB 2026, arXiv:2603.17859, whose code lets the gradient flow through α.
    """
    classification, guidance = terms.classification.mean(), terms.guidance.mean()
    total = (classification + guidance).detach()
    return torch.where(total > 0, classification.detach() / torch.where(total > 0, total, 1), 1)


def gradient_norms(
    logits: Tensor,
    terms: LossTerms,
    targets: Targets,
    alpha: float | Tensor,
    distance: Distances = "l2",
    mark_weight: float = MARK_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Gradient norms of both terms for each image, without the division by the batch size.

    (B,) at the logits: α · v ‖p − y‖. (B,) at the map m that the distance takes, the normalized map
    or the evidence: (1 − α) · v · w ‖∂d ÷ ∂m‖, exactly 0 without guidance; for several distances
    that take both, the norm of both gradients together. Works under `torch.no_grad`, and does not
    synchronize with the device.
    """
    labels, _, map_weight, sample_weight = targets
    logits = binary_logits(logits)
    # Not with one_hot, which reads the values of the labels and may synchronize with the device.
    own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    error = logits.softmax(1) - own.to(logits.dtype)
    at_logits = alpha * torch.linalg.vector_norm(error, dim=1)
    if sample_weight is not None:
        at_logits = at_logits * sample_weight
    if terms.pair is None:
        return at_logits, torch.zeros_like(at_logits)
    with torch.enable_grad():  # by autograd on separate leaves, which works for every distance
        pair = MapPair(*(part.detach() for part in terms.pair))
        leaves = [pair.model.requires_grad_(), pair.evidence.requires_grad_()]
        total = distance_of(pair, distance, terms.usable, mark_weight).sum()
        slopes = torch.autograd.grad(total, leaves, allow_unused=True)
    gradients = torch.cat([slope.flatten(1) for slope in slopes if slope is not None], 1)
    pull = torch.linalg.vector_norm(gradients, dim=1).to(at_logits.dtype)
    if map_weight is not None:
        pull = pull * map_weight
    if sample_weight is not None:
        pull = pull * sample_weight
    return at_logits, (1 - alpha) * torch.where(terms.guided, pull, 0)


def inconsistency(
    unchanged: Tensor, changed: Tensor, which: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """(B,) divergence D_KL(p(x_k) ‖ p(x'_k)) of predictions, of images changed outside their maps.

    x' is the image in which what the map leaves out was changed. Exactly 0 for images that were not
    changed. The gradient flows through both predictions, since the one for the unchanged image must
    not depend on the changed part either. Unlike a squared difference of logits, the divergence
    does not depend on their common offset, and it is the same for heads with one logit.

    Divergence: A. A. Ismail, H. Corrada Bravo, S. Feizi, "Improving Deep Learning Interpretability
    by Saliency Guided Training", NeurIPS 2021. Features are compared by J. Viviano et al.,
    "Saliency is a Possible Red Herring When Diagnosing Poor Generalization", ICLR 2021 (ActDiff);
    embeddings with and without what the map marks by C. R. Crum et al., arXiv 2511.12744 (SAGE).
    """
    if unchanged.shape != changed.shape or which.shape != unchanged.shape[:1]:
        raise ValueError(
            f"logits {tuple(unchanged.shape)} and {tuple(changed.shape)} must be equal in shape, "
            f"and which {tuple(which.shape)} (B,)"
        )
    kind = torch.promote_types(unchanged.dtype, torch.float32)
    log_p, log_q = (binary_logits(part.to(kind)).log_softmax(1) for part in (unchanged, changed))
    divergence = torch.where(which, (log_p.exp() * (log_p - log_q)).sum(1).clamp_min(0), 0)
    return divergence if sample_weight is None else divergence * sample_weight
