"""Guidance by input gradients, g = ∂s/∂x: the trunk is differentiated twice.

The gradient belongs to the pass that classifies. In training mode, batch norm couples the images of
a batch, in the gradient as in the pass itself and as in the published code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from preceptor.losses.guidance.base import CHECKED, Guidance
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward, Scalar

# Penalties (B,) of gradients g (B, C, H, W) outside a map, o = 1 − m (B, 1, H, W).
PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "square_sum": lambda g, o: (o * g).square().sum((1, 2, 3)),
    "square_mean": lambda g, o: (o * g).square().mean((1, 2, 3)),
    "abs_sum": lambda g, o: (o * g).abs().sum((1, 2, 3)),
    "abs_mean": lambda g, o: (o * g).abs().mean((1, 2, 3)),
    "norm": lambda g, o: torch.linalg.vector_norm((o * g).flatten(1), dim=1),
    "channel_square_sum": lambda g, o: (o[:, 0] * g.sum(1)).square().sum((1, 2)),
    "cosine": lambda g, o: functional.cosine_similarity(
        g.sum(1).abs().flatten(1), o.flatten(1), 1, 1e-12
    ),
}


@dataclass(config=CHECKED, kw_only=True)
class Gradient(Guidance):
    """RRR: input gradients outside the human map should be 0."""

    name = "gradient"
    needs = frozenset({"map_input", "gradient"})
    scalar: Scalar = "logp"
    penalty: Literal[
        "square_sum", "square_mean", "abs_sum", "abs_mean", "norm", "channel_square_sum", "cosine"
    ] = "square_sum"

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The penalty of each image."""
        slope = forward(gradient=self.scalar).gradient
        return {"gradient": batch.only(PENALTIES[self.penalty](slope, batch.outside))}


@dataclass(config=CHECKED, kw_only=True)
class Harmonize(Guidance):
    """Harmonization: the positive input gradient looks like the human map, at every scale."""

    name = "harmonize"
    needs = frozenset({"map_input", "gradient"})

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """Mean over 5 levels of the mean of (h − t · sg(max h ÷ max t))²."""
        slope = forward(gradient="label").gradient.mean(1)
        h, t = standardized(slope), standardized(batch.inside[:, 0])
        highest, own = (maps.amax((1, 2), keepdim=True) for maps in (h, t))
        t = t * (highest / own.clamp_min(1e-6)).detach()
        levels = [level.square().mean((1, 2)) for level in pyramid(h - t)]
        return {"harmonize": batch.only(torch.stack(levels).mean(0))}


def standardized(maps: Tensor) -> Tensor:
    """(B, H, W) positive part of maps with mean 0 and variance 1; zeros for constant maps."""
    centered = maps - maps.mean((1, 2), keepdim=True)
    variance = centered.square().mean((1, 2), keepdim=True)
    # The root has no slope at 0, where a constant map is, such as that of an unguided image.
    return (centered / variance.clamp_min(1e-24).sqrt()).clamp_min(0)


def pyramid(maps: Tensor, levels: int = 5) -> Iterator[Tensor]:
    """Levels (B, H ÷ 2ⁱ, W ÷ 2ⁱ) of a Gaussian pyramid (Burt and Adelson, 1983)."""
    taps = maps.new_tensor([1, 4, 6, 4, 1]) / 16
    for _ in range(levels):
        yield maps
        maps = functional.conv2d(maps[:, None], taps.outer(taps)[None, None], None, 2, 2)[:, 0]
