"""Class activation maps (Zhou et al., CVPR 2016)."""

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


def log_odds_slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """Derivative of the log-odds of one class per image with respect to the logits, detached.

    Args:
        logits: (B, C).
        labels: (B,) int64 in [0, C).

    Returns:
        (B, C): 1 for the class of the image, minus the softmax over the others elsewhere.

    Raises:
        ValueError: `labels` does not have one class per image.

    Example:
        >>> import torch
        >>> log_odds_slopes(torch.zeros(1, 3), torch.tensor([0]))
        tensor([[ 1.0000, -0.5000, -0.5000]])
    """
    if labels.shape != (logits.shape[0],):
        raise ValueError(f"labels {tuple(labels.shape)} must be (B,) with B = {len(logits)}")
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    return torch.where(own, 1, -logits.masked_fill(own, -torch.inf).softmax(1))


def other_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Entropy H(q) of the softmax q over the classes c ≠ y of each image, detached.

    The log-odds of y are z_y − Σ_{c≠y} q_c z_c − H(q); for two classes H is exactly 0.

    Args:
        logits: (B, C).
        labels: (B,) class y of each image, int64 in [0, C).

    Returns:
        (B,) in [0, log(C − 1)].

    Example:
        >>> import torch
        >>> other_entropy(torch.zeros(1, 3), torch.tensor([0]))
        tensor([0.6931])
    """
    others = log_odds_slopes(logits, labels).neg().clamp_min(0)
    entropy: Tensor = torch.special.entr(others).sum(1)
    return entropy


def _weighted_sum(features: Tensor, chosen: Tensor) -> Tensor:
    """(B, h, w) sum of the channels (B, Ch, h, w) with the weights (B, Ch) of each image, in
    float32 or wider.
    """
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
    """Logits of two classes from a single logit z: (−z/2, z/2); several logits are unchanged.

    Their softmax is (σ(−z), σ(z)), so that their cross-entropy is the logistic loss on z. The
    weight of the head is split in the same way, and the CAM of each class adds up to its logit.

    Args:
        values: (..., C).

    Returns:
        (..., 2) for C = 1, else `values`.

    Example:
        >>> import torch
        >>> binary_logits(torch.tensor([[3.0]]))
        tensor([[-1.5000,  1.5000]])
    """
    if values.shape[-1] != 1:
        return values
    return torch.cat((-values, values), -1) / 2
