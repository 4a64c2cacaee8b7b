"""Grad-CAM for heads that are not linear on pooled features (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from preceptor.saliency.cam import log_odds_slopes


def grad_cam(
    logits: Tensor,
    features: Tensor,
    classes: Tensor,
    *,
    decision: bool = False,
    trainable: bool = True,
) -> Tensor:
    """Grad-CAM of one class per image, differentiated from the logits to the features only.

        g_ch = mean over positions of ∂logit_c / ∂feature[ch],   map = Σ_ch g_ch · feature[ch]

    For a linear head over mean-pooled features it is the CAM divided by h·w. No ReLU is applied: a
    guided map must be able to show evidence against the class, and min-max normalization follows.

    Args:
        logits: (B, C), computed from `features`; their graph must not have been freed.
        features: (B, Ch, h, w), ancestors of the logits. The trunk is not differentiated.
        classes: (B,) class of each map, int64 in [0, C).
        decision: Differentiate the log-odds of the class instead of its logit, with the softmax
            over the other classes taken as constant; see `cam.decision_map`.
        trainable: Keep the graph of the derivative, so that a loss on the map reaches the head and,
            through the features, the trunk.

    Returns:
        (B, h, w), not normalized, float32 or wider.

    Raises:
        ValueError: `classes` does not have one class per image.

    Reference:
        R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", ICCV 2017.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]], requires_grad=True)
        >>> logits = features.mean((2, 3)) @ torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> grad_cam(logits, features, torch.tensor([0]), trainable=False)
        tensor([[[0.5000, 1.5000]]])
    """
    if classes.shape != (logits.shape[0],):
        raise ValueError(f"classes {tuple(classes.shape)} must be (B,) with B = {len(logits)}")
    # Without autocast, as for the CAM: otherwise the last product would be in bfloat16.
    with torch.autocast(features.device.type, enabled=False):
        # The derivative of the sum of the chosen logits, which is that of each image's own where
        # images do not meet in the head; in training they do where it has batch norm.
        if decision:
            chosen = log_odds_slopes(logits, classes).to(logits.dtype)
        else:
            chosen = torch.zeros_like(logits).scatter(1, classes[:, None], 1.0)
        (slope,) = torch.autograd.grad(
            logits, features, chosen, create_graph=trainable, retain_graph=True
        )
        wide = torch.promote_types(features.dtype, torch.float32)
        weight = slope.to(wide).mean((2, 3))  # (B, Ch)
        kept = features if trainable else features.detach()
        return torch.einsum("bc,bchw->bhw", weight, kept.to(wide))
