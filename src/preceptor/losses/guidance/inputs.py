"""Guidance by changed inputs or input gradients: what lies outside the map must not matter.

x is the image, m its map, m̄ = 1 − m, and x′ = m ⊙ x + m̄ ⊙ fill the image changed outside. Every
changed image is a further pass, after the pass of the unchanged images.

g = ∂s/∂x is the input gradient, of the pass that classifies: the trunk is differentiated twice. In
training mode, batch norm couples the images of a batch, in the gradient as in the pass itself and
as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import cross_entropy, interpolate

from preceptor.losses.guidance.base import CHECKED, Amount, Guidance, Number, Positive
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward, Scalar
from preceptor.losses.guided import inconsistency

Fill = Literal["zero", "mean", "noise", "shuffle", "other"]


def filled(images: Tensor, keep: Tensor, fill: Fill) -> Tensor:
    """(B, C, H, W) images where `keep` (B, 1, H, W) is 1, and the fill where it is 0.

    zero: the mean color of the data, which normalization maps to 0. mean: the mean color of the
    image. noise: standard normal. shuffle: the pixels of the image in random order. other: the
    image before it in the batch; one image alone stays as it is.
    """
    if fill == "zero":
        new = torch.zeros_like(images)
    elif fill == "mean":
        new = images.mean((2, 3), keepdim=True).expand_as(images)
    elif fill == "noise":
        new = torch.randn_like(images)
    elif fill == "shuffle":
        order = torch.randperm(images[0, 0].numel(), device=images.device)
        new = images.flatten(2)[:, :, order].view_as(images)
    else:
        new = images.roll(1, 0)
    return torch.lerp(new, images, keep.to(images.dtype).expand_as(images))


def emptied(batch: GuidanceBatch, fill: Fill) -> Tensor:
    """(B, C, H, W) guided images filled inside their maps.

    Others stay as they are: blank ones would change the batch statistics of the guided images.
    """
    keep = torch.where(batch.guided[:, None, None, None], batch.outside, 1)
    return filled(batch.images, keep, fill)


@dataclass(config=CHECKED, kw_only=True)
class Robust(Guidance):
    """CoRM and PGD-Ex: the class is right after a random, or the worst, change outside the map."""

    name = "robust"
    needs = frozenset({"map_input", "changed"})
    kind: Literal["noise", "pgd"] = "pgd"
    epsilon: Positive = 0.5
    steps: Number = 3

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """CE(x + δ), |δ| ≤ ε m̄ for pgd, with standard deviation ε m̄ for noise."""
        forward()
        x = batch.images
        limit = self.epsilon * batch.outside.to(x.dtype)
        if self.kind == "noise":
            change = limit * torch.randn_like(x)
        else:
            change = torch.zeros_like(x)
            for _ in range(self.steps):
                slope = forward(x + change, gradient="ce").gradient
                change = change + self.epsilon / self.steps * slope.sign()
                change = change.clamp(-limit, limit)
        losses = cross_entropy(forward(x + change).logits, batch.labels, reduction="none")
        return {"robust": batch.only(losses)}


@dataclass(config=CHECKED, kw_only=True)
class Latent(Guidance):
    """ActDiff and SAGE: the pooled features f do not depend on what lies outside the map."""

    name = "latent"
    needs = frozenset({"map_input", "changed"})
    kind: Literal["actdiff", "sage"] = "actdiff"
    fill: Fill = "shuffle"
    margin: Amount = 1.0
    temperature: Positive = 1.0

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """‖f(x) − f(x′)‖; for SAGE a triplet with x⁻, changed inside, and JS(p_τ(x), p_τ(x′))."""
        out = forward()
        kept = forward(filled(batch.images, 1 - batch.outside, self.fill))
        away = torch.linalg.vector_norm(out.pooled - kept.pooled, dim=1)
        if self.kind == "actdiff":
            return {"latent": batch.only(away)}
        destroyed = forward(emptied(batch, self.fill))
        apart = torch.linalg.vector_norm(out.pooled - destroyed.pooled, dim=1)
        p, q = ((output.logits / self.temperature).softmax(1) for output in (out, kept))
        return {
            "triplet": batch.only((away - apart + self.margin).clamp_min(0)),
            "divergence": batch.only(jensen_shannon(p, q)),
        }


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """(B,) H((p + q) ÷ 2) − (H(p) + H(q)) ÷ 2 of distributions (B, K), in [0, log 2]."""
    least = torch.finfo(p.dtype).tiny  # the slope of p log p at 0 is infinite
    mixed = (p + q) / 2
    both, first, second = (torch.special.entr(x.clamp_min(least)).sum(1) for x in (mixed, p, q))
    divergence: Tensor = both - (first + second) / 2
    return divergence.clamp_min(0)


@dataclass(config=CHECKED, kw_only=True)
class Faithful(Guidance):
    """VisFIS: the inside of the map suffices for the class, and the outside does not tell it."""

    name = "faithful"
    needs = frozenset({"map_input", "changed"})
    fill: Fill = "zero"
    uncertainty: Amount = 1.0

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """CE of the inside, and KL(uniform ‖ p) = −log K − mean log p of the outside."""
        forward()
        inside = forward(filled(batch.images, 1 - batch.outside, self.fill)).logits
        outside = forward(emptied(batch, self.fill)).logits
        away = -outside.log_softmax(1).mean(1) - math.log(outside.shape[1])
        return {
            "sufficiency": batch.only(cross_entropy(inside, batch.labels, reduction="none")),
            "uncertainty": self.uncertainty * batch.only(away.clamp_min(0)),
        }


@dataclass(config=CHECKED, kw_only=True)
class Outside(Guidance):
    """CAIPI and background swap: an image whose outside is exchanged keeps class and prediction."""

    name = "outside"
    needs = frozenset({"map_input", "changed"})
    weight: Amount | None = 1.0  # a divergence is near 0 at the start, and its ratio far too large
    fill: Fill = "other"
    classification: Amount = 1.0
    divergence: Amount = 1.0

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """CE(x′), and KL(p(x) ‖ p(x′))."""
        plain = forward().logits
        changed = forward(filled(batch.images, 1 - batch.outside, self.fill)).logits
        losses = cross_entropy(changed, batch.labels, reduction="none")
        return {
            "counterexample": self.classification * batch.only(losses),
            "divergence": self.divergence * inconsistency(plain, changed, batch.guided),
        }


# Methods without human maps, as rows of a comparison: they guide every image.


@dataclass(config=CHECKED, kw_only=True)
class SaliencyGuided(Guidance):
    """Saliency-guided training: the prediction ignores the pixels of the lowest gradient."""

    name = "saliency_guided"
    needs = frozenset({"changed"})
    weight: Amount | None = 1.0  # as for `Outside`
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    absolute: bool = False

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """KL(p(x) ‖ p(x̃)), x̃ with random values at the lowest gradients of the label's logit."""
        plain, x = forward().logits, batch.images
        slope = forward(x, gradient="label").gradient.mean(1, keepdim=True)
        size = (slope.abs() if self.absolute else slope).flatten(1)
        count = max(1, int(self.share * size.shape[1]))
        lowest = (size <= size.kthvalue(count, 1, keepdim=True).values).view_as(slope)
        low, high = (bound.view(-1, 1, 1, 1) for bound in x.flatten(1).aminmax(dim=1))
        random = low + (high - low) * torch.rand_like(x)
        changed = forward(torch.where(lowest, random, x)).logits
        return {"saliency_guided": inconsistency(plain, changed, batch.guided)}


@dataclass(config=CHECKED, kw_only=True)
class MaskTune(Guidance):
    """MaskTune: the class is right without the region that the model relies on most."""

    name = "masktune"
    needs = frozenset({"changed"})
    map: Literal["label", "predicted"] = "label"

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """CE of the images without the pixels where the map exceeds its threshold."""
        cam = forward(map=self.map).map.detach()[:, None]
        cam = interpolate(cam, list(batch.images.shape[-2:]), mode="bilinear")
        masked = torch.where(cam > salient_threshold(cam), 0, batch.images)
        losses = cross_entropy(forward(masked).logits, batch.labels, reduction="none")
        return {"masktune": batch.only(losses)}


def salient_threshold(maps: Tensor) -> Tensor:
    """(B, 1, 1, 1) mean + 2 standard deviations of the positive values of maps (B, 1, H, W)."""
    axes, positive = (1, 2, 3), maps > 0
    count = positive.sum(axes, keepdim=True).clamp_min(1)
    mean = (maps * positive).sum(axes, keepdim=True) / count
    variance = ((maps - mean).square() * positive).sum(axes, keepdim=True) / count
    return mean + 2 * variance.sqrt()


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
