"""Class activation maps (Zhou et al., CVPR 2016) and Grad-CAM (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Class activation map of one class per image: cam_c = Σ_ch weight[c, ch] · feature[ch].

    `features` is the input of the pooled linear head, so that mean(cam_c) + bias_c = logit_c.

    Args:
        features: (B, Ch, h, w).
        weight: (C, Ch) weight of the linear head; (1, Ch) for a head with a single logit, whose
            CAMs of the classes 0 and 1 are those of its `binary_logits`.
        classes: (B,) class of each map, int64 in [0, C).

    Returns:
        (B, h, w), not normalized, float32 or wider.

    Raises:
        ValueError: `classes` does not have one class per image.

    Reference:
        B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba, "Learning Deep Features for
        Discriminative Localization", CVPR 2016.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])
        >>> class_activation_map(features, torch.eye(2), torch.tensor([1]))
        tensor([[[0., 4.]]])
    """
    batch = features.shape[0]
    if classes.shape != (batch,):
        raise ValueError(f"classes {tuple(classes.shape)} must be (B,) with B = {batch}")
    return _weighted_sum(features, binary_logits(weight.T).T[classes])


def decision_map(features: Tensor, weight: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Decision map: the class activation map of the log-odds of one class per image.

        cam_y − Σ_{c≠y} q_c cam_c,   q = softmax of the logits of the classes c ≠ y, detached

    The derivative of the log-odds log p_y − log(1 − p_y) with respect to the logits, applied to the
    CAMs. A change of all CAMs by the same map changes no probability, and leaves it unchanged. For
    two classes it is cam_y minus the CAM of the other class.

    Args:
        features: (B, Ch, h, w).
        weight: (C, Ch) weight of the linear head; (1, Ch) for a head with a single logit.
        logits: (B, C), which determine q.
        labels: (B,) class y of each map, int64 in [0, C).

    Returns:
        (B, h, w), not normalized, float32 or wider.

    Raises:
        ValueError: `labels` does not have one class per image.

    Reference:
        J. Piland, C. Sweet, A. Czajka, "DiffGradCAM", arXiv:2506.08514, for two classes.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])
        >>> decision_map(features, torch.eye(2), torch.zeros(1, 2), torch.tensor([1]))
        tensor([[[-1.,  2.]]])
    """
    slopes = log_odds_slopes(logits, labels)
    with torch.autocast(features.device.type, enabled=False):
        each = binary_logits(weight.to(torch.promote_types(weight.dtype, torch.float32)).T).T
        return _weighted_sum(features, slopes.to(each.dtype) @ each)


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
            over the other classes taken as constant; see `decision_map`.
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
        >>> import torch
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


def log_odds_slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C) derivative of the log-odds of one class per image by the logits (B, C), detached.

    It is 1 for the class of the image and minus the softmax over the others elsewhere.
    """
    if labels.shape != (logits.shape[0],):
        raise ValueError(f"labels {tuple(labels.shape)} must be (B,) with B = {len(logits)}")
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    return torch.where(own, 1, -logits.masked_fill(own, -torch.inf).softmax(1))


def other_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) entropy H(q) of the softmax q over the classes c ≠ y of each image, detached.

    The log-odds of y are z_y − Σ_{c≠y} q_c z_c − H(q); for two classes H is exactly 0.
    """
    others = log_odds_slopes(logits, labels).neg().clamp_min(0)
    entropy: Tensor = torch.special.entr(others).sum(1)
    return entropy


def _weighted_sum(features: Tensor, chosen: Tensor) -> Tensor:
    """(B, h, w) weighted sum of channels (B, Ch, h, w) by weights (B, Ch), float32 or wider."""
    wide = torch.promote_types(torch.promote_types(features.dtype, chosen.dtype), torch.float32)
    features, chosen = features.to(wide), chosen.to(wide)
    batch, channels, height, width = features.shape
    # A batched product over a view keeps the channels in the layout of the features, so that
    # the gradient has the same layout. In the other layout, the backward pass of a DenseNet is
    # 15 % slower.
    with torch.autocast(features.device.type, enabled=False):
        if features.is_contiguous(memory_format=torch.channels_last):
            places = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
            return (places @ chosen[:, :, None]).reshape(batch, height, width)
        places = features.reshape(batch, channels, height * width)
        return (chosen[:, None] @ places).reshape(batch, height, width)


def binary_logits(values: Tensor) -> Tensor:
    """Logits of two classes (…, 2) from a single logit z: (−z/2, z/2); several are unchanged.

    Their cross-entropy is the logistic loss on z, and the CAM of each class adds up to its logit.
    """
    if values.shape[-1] != 1:
        return values
    return torch.cat((-values, values), -1) / 2
