"""Distance from the training images as part of an exported graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from preceptor.predictor.reference import Reference


class ReferenceDistance(nn.Module):
    """Distance of images from the training images, by the formulas of `Reference`.

    Args:
        reference: Reference of the model.
    """

    known: Tensor
    whitening: Tensor
    centers: Tensor

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.by_features = reference.gaussians is not None
        self.register_buffer("known", torch.from_numpy(np.sort(reference.distances)))
        if reference.gaussians is not None:
            whitening = torch.from_numpy(reference.gaussians.whitening).double()
            self.register_buffer("whitening", whitening)
            means = torch.from_numpy(reference.gaussians.means).double()
            self.register_buffer("centers", means @ whitening.T)

    def forward(self, logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) float64 distances and (B,) float64 shares, see `Unfamiliar`.

        Args:
            logits: (B, C).
            features: (B, Ch, h, w).
        """
        if self.by_features:
            own = features.mean((2, 3)).double() @ self.whitening.T
            squares = (own[:, None] - self.centers[None]).square().sum(2)
            distances = squares.amin(1).sqrt()
        else:
            distances = -logits.logsumexp(1).double()
        farther = (self.known[None] >= distances[:, None]).sum(1)
        return distances, (farther + 1).double() / (len(self.known) + 1)
