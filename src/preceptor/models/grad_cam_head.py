"""Grad-CAM of a head of any kind, scaled as class activation maps are."""

from __future__ import annotations

import torch
from torch import Tensor

from preceptor.models.outputs import GuidedOutput, classes_of_maps
from preceptor.saliency.cam import log_odds_slopes, other_entropy
from preceptor.saliency.gradcam import grad_cam


def with_grad_cam(
    logits: Tensor,
    features: Tensor,
    alone: Tensor,
    saliency_for: Tensor | str,
    *,
    decision: bool,
    trainable: bool,
) -> GuidedOutput:
    """Output with Grad-CAM.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), of which the logits are a differentiable function.
        alone: (B, C) logits for differentiation, which are independent between images.
        saliency_for: Classes of the maps, see `classes_of_maps`.
        decision: Decision maps instead of class maps.
        trainable: Whether gradients flow through the maps.
    """
    classes = classes_of_maps(logits, saliency_for)
    each = classes.unbind(1) if classes.ndim == 2 else (classes,)
    found = [grad_cam(alone, features, one, decision=decision, trainable=trainable) for one in each]
    values = [
        (log_odds_slopes(logits, one).to(logits.dtype) * logits).sum(1) - other_entropy(logits, one)
        if decision
        else logits.gather(1, one[:, None])[:, 0]
        for one in each
    ]
    cells = features.shape[-2] * features.shape[-1]
    shown = [
        cells * one + (value - cells * one.mean((-2, -1))).detach()[:, None, None]
        for value, one in zip(values, found, strict=True)
    ]
    maps, evidence = (
        torch.stack(part, 1) if classes.ndim == 2 else part[0] for part in (found, shown)
    )
    if not trainable:
        logits, features = logits.detach(), features.detach()
    return GuidedOutput(logits, features, maps, classes, evidence)
