"""Pooling of class activation maps to logits: mean, highest cells, or log-sum-exp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from preceptor.config.guidance import PoolKind


@dataclass(frozen=True)
class Pool:
    """Pooling of the cells of a map to one value.

    The mean over the grid is that of usual networks; it hides a mark that is small compared with
    the image, which the others do not.

    Args:
        kind: mean; top (mean of the highest cells); or lse (log-sum-exp, (1 ÷ r) · log of the mean
            of exp(r x), between the mean and the maximum).
        top: Highest cells of `top`: a share of all cells in (0, 1], rounded up, or a number ≥ 1.
        sharpness: r > 0 of `lse`.

    Reference:
        lse: P. O. Pinheiro, R. Collobert, "From Image-level to Pixel-level Labeling with
        Convolutional Networks", CVPR 2015.

    Example:
        >>> Pool("top", top=2)(torch.tensor([[[1.0, 5.0], [3.0, 0.0]]]))
        tensor([4.])
    """

    kind: PoolKind = "mean"
    top: float = 0.1
    sharpness: float = 4.0

    def __call__(self, maps: Tensor) -> Tensor:
        """Pool (..., h, w) maps to (...) values."""
        cells = maps.flatten(-2)
        if self.kind == "mean":
            return cells.mean(-1)
        if self.kind == "lse":
            total = torch.logsumexp(self.sharpness * cells, -1)
            return (total - math.log(cells.shape[-1])) / self.sharpness
        return cells.topk(self.count(cells.shape[-1]), -1).values.mean(-1)

    def count(self, cells: int) -> int:
        """Number of highest cells among `cells`."""
        return math.ceil(self.top * cells) if isinstance(self.top, float) else self.top

    @property
    def words(self) -> str:
        """Description for messages."""
        if self.kind == "top":
            how = f"{self.top:.0%}" if isinstance(self.top, float) else f"{self.top}"
            return f"mean of the highest {how} of the cells"
        return "mean of all cells" if self.kind == "mean" else f"log-sum-exp, r {self.sharpness:g}"


def pooled_logits(maps: Tensor, bias: Tensor, pool: Pool, positive: int) -> Tensor:
    """Logits from pooled maps instead of pooled features.

    For two classes, the decision map d of the positive class is pooled: z = pool(d) + its bias, and
    the logits are (−z/2, z/2). For more classes, the CAM of each class minus the mean CAM over the
    classes is pooled. In both cases, a change of all CAMs by the same map changes nothing. With
    the mean, the probabilities are those of the linear head.

    Args:
        maps: (B, C, h, w) CAMs.
        bias: (C,) bias of the head.
        pool: Pooling.
        positive: Index of the positive class, for two classes.

    Returns:
        (B, C).
    """
    if maps.shape[1] == 2:
        other = 1 - positive
        z = pool(maps[:, positive] - maps[:, other]) + bias[positive] - bias[other]
        return torch.stack((-z, z) if positive == 1 else (z, -z), 1) / 2
    return pool(maps - maps.mean(1, keepdim=True)) + bias
