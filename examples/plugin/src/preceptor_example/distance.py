"""A distance of maps: `training: {distance: huber}`."""

from torch import Tensor
from torch.nn import functional


def huber(model: Tensor, target: Tensor) -> Tensor:
    """Huber distance, (B,), of maps (B, h, w) in [0, 1]."""
    return functional.huber_loss(model, target, reduction="none", delta=0.5).mean((1, 2))
