"""Outputs of a guided model, and the classes that its maps are for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ModelOutput(NamedTuple):
    """Output of a forward pass.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), the features from which saliency maps are computed.
    """

    logits: Tensor
    features: Tensor


class GuidedOutput(NamedTuple):
    """Output of a forward pass with saliency maps.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), the features from which the maps are computed.
        saliency: (B, h, w) raw maps of `classes`; (B, C, h, w) for "every" class.
        classes: (B,) class of each map; (B, C) for "every" class.
        evidence: Evidence of each cell, in the shape of `saliency`: the maps with their bias, so
            that their mean is the logit of a head on mean-pooled features; for decision maps, the
            log-odds log p − log(1 − p) of the class, whatever the number of classes. Grad-CAM is
            scaled by the number of cells, as the CAM is, and what its mean lacks counts as the same
            in every cell.
    """

    logits: Tensor
    features: Tensor
    saliency: Tensor
    classes: Tensor
    evidence: Tensor


def classes_of_maps(logits: Tensor, saliency_for: Tensor | str) -> Tensor:
    """Class of each map: (B,), or (B, C) for "every" class.

    Args:
        logits: (B, C).
        saliency_for: (B,) class indices, "predicted" or "every".
    """
    if isinstance(saliency_for, Tensor):
        return saliency_for
    if saliency_for == "predicted":
        return logits.detach().argmax(1)
    return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
