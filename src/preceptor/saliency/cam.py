"""Class activation maps: where in the image a class score comes from (Zhou et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """The raw CAM of one class an image: cam_c = Σ_ch weight[c, ch] · feature[ch].

    `features` is exactly what the pooled linear head sees, so mean(cam_c) + bias_c = logit_c.

    Args:
        features: (B, Ch, h, w).
        weight: (C, Ch) weight of the linear head.
        classes: (B,) the class of each map, int64 in [0, C).

    Returns:
        (B, h, w), not normalised.

    Raises:
        ValueError: Not one class an image.

    Reference:
        B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba, "Learning Deep Features for
        Discriminative Localization", CVPR 2016.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])
        >>> class_activation_map(features, torch.eye(2), torch.tensor([1]))
        tensor([[[0., 4.]]])
    """
    batch, channels, height, width = features.shape
    if classes.shape != (batch,):
        raise ValueError(f"classes {tuple(classes.shape)} must be (B,) with B = {batch}")
    chosen = weight[classes]  # (B, Ch)
    # One batched product over a view; with channels_last features no copy is made either way.
    return (chosen[:, None] @ features.reshape(batch, channels, height * width)).reshape(
        batch, height, width
    )
