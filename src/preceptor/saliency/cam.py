"""Class activation maps: where in the image a class score comes from (Zhou et al., CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """The raw CAM of one class an image: cam_c = Σ_ch weight[c, ch] · feature[ch].

    `features` is exactly what the pooled linear head sees, so mean(cam_c) + bias_c = logit_c.

    Args:
        features: (B, Ch, h, w).
        weight: (C, Ch) weight of the linear head; of a single-logit head (1, Ch), whose CAMs of the
            classes 0 and 1 are those of its `two_sided` logits.
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
    chosen = two_sided(weight.T).T[classes]  # (B, Ch)
    # One batched product over a view, with the channels where the features have them: so the
    # gradient comes back in their layout. In the other, a DenseNet's whole backward pass is 15 %
    # slower.
    if features.is_contiguous(memory_format=torch.channels_last):
        places = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        return (places @ chosen[:, :, None]).reshape(batch, height, width)
    places = features.reshape(batch, channels, height * width)
    return (chosen[:, None] @ places).reshape(batch, height, width)


def two_sided(values: Tensor) -> Tensor:
    """A single logit z as the two logits (−z/2, z/2); more than one are returned as they are.

    Their softmax is (σ(−z), σ(z)), so cross-entropy on them is the logistic loss on z. The head's
    weight is split in the same way, and each class has a CAM that adds up to its logit.

    Args:
        values: (..., C).

    Returns:
        (..., 2) for C = 1, else `values`.

    Example:
        >>> import torch
        >>> two_sided(torch.tensor([[3.0]]))
        tensor([[-1.5000,  1.5000]])
    """
    if values.shape[-1] != 1:
        return values
    return torch.cat((-values, values), -1) / 2
