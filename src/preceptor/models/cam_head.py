"""Class activation maps of a linear head: exact, from the weights and the features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from preceptor.models.outputs import GuidedOutput, classes_of_maps
from preceptor.saliency.cam import (
    binary_logits,
    class_activation_map,
    decision_map,
    log_odds_slopes,
    other_entropy,
)


class LinearHead(NamedTuple):
    """Linear map from features to the logits of all classes, in float32 or wider.

    Args:
        weight: (C, Ch).
        bias: (C,); zeros for a classifier without bias.
    """

    weight: Tensor
    bias: Tensor

    def maps(self, features: Tensor) -> Tensor:
        """(B, C, h, w) map of every class, without the bias."""
        return torch.einsum("kc,bchw->bkhw", self.weight, features)


def class_weight(head: nn.Linear) -> Tensor:
    """(C, Ch) weight of the logit of each class; for a sigmoid head ± half of its weight."""
    return binary_logits(head.weight.T).T


def linear_head(head: nn.Linear, features: Tensor) -> tuple[LinearHead, Tensor]:
    """Head of the logits, and the features, both in float32 or wider."""
    wide = torch.promote_types(features.dtype, torch.float32)
    weight = class_weight(head).to(wide)
    bias = weight.new_zeros(len(weight))
    if head.bias is not None:
        bias = binary_logits(head.bias.to(wide))
    return LinearHead(weight, bias), features.to(wide)


def with_cam(
    logits: Tensor,
    features: Tensor,
    head: nn.Linear,
    saliency_for: Tensor | str,
    *,
    decision: bool,
) -> GuidedOutput:
    """Output with the class activation maps, or the decision maps, of a linear head.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w) input of the pooling before the head.
        head: Linear classifier.
        saliency_for: Classes of the maps, see `classes_of_maps`.
        decision: Decision maps instead of class maps.
    """
    # Always in float32: the map is a small product, and min-max normalization amplifies rounding
    # errors.
    with torch.autocast(features.device.type, enabled=False):
        linear, dense = linear_head(head, features)
        classes = classes_of_maps(logits, saliency_for)
        if classes.ndim == 2:
            maps = linear.maps(dense)
            offset = linear.bias.expand(len(maps), -1)
            if decision:
                each = classes.unbind(1)
                slopes = torch.stack([log_odds_slopes(logits, one) for one in each], 1)
                slopes = slopes.to(maps.dtype)
                maps = torch.einsum("bjk,bkhw->bjhw", slopes, maps)
                entropy = torch.stack([other_entropy(logits, one) for one in each], 1)
                offset = slopes @ linear.bias - entropy
        elif decision:
            maps = decision_map(dense, linear.weight, logits, classes)
            offset = log_odds_slopes(logits, classes).to(linear.bias.dtype) @ linear.bias
            offset = offset - other_entropy(logits, classes)
        else:
            maps = class_activation_map(dense, linear.weight, classes)
            offset = linear.bias[classes]
    return GuidedOutput(logits, features, maps, classes, maps + offset[..., None, None])
