"""Guidance by matching: the map of the model, or of a head of its own, looks like the human map.

ã is the map of the model, scaled to [0, 1] by its minimum and maximum; m the human map. The map is
computed from the features, so that a step costs no further pass and no second derivative.

`Evidence` does not scale it: e is the map of the label's log-odds, or its class activation map,
with its sign; e⁺ is its positive part. cells, evidence and cfce take the evidence, whose mean is
the log-odds or the logit, with what the bias adds; the others compare cells with each other, and
where the label is improbable, with the bias no cell would be positive (S. Rao, M. Böhle, A.
Parchami-Araghi, B. Schiele, "Studying How to Efficiently and Effectively Guide Models with
Explanations", ICCV 2023).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from preceptor.config.training import Distances, takes_masks
from preceptor.errors import InputError
from preceptor.losses import guided
from preceptor.losses.distances import EVIDENCE_DISTANCES, WHOLE_MASKS
from preceptor.losses.guidance.base import CHECKED, Amount, Guidance
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward
from preceptor.losses.guided import usable_by
from preceptor.saliency.maps import informative, normalize
from preceptor.utils.process import evaluating

OwnMap = Literal["label", "predicted", "decision"]


@dataclass(config=CHECKED, kw_only=True)
class Cyborg(Guidance):
    """Distance of the normalized map from the human map: bce, or one of `losses.distances`."""

    name = "cyborg"
    weight: Amount | None = 1.0
    distance: Literal["bce"] | Distances = "l2"
    map: OwnMap = "label"
    mark_weight: Amount = guided.MARK_WEIGHT

    def __post_init__(self) -> None:
        if self.distance != "bce" and takes_masks(self.distance) and self.map != "decision":
            raise InputError(f"distance {self.distance} takes the decision map; add map: decision")

    def usable(self, maps: Tensor) -> Tensor:
        """Whether each map can guide by one of the distances."""
        if self.distance == "bce":
            return informative(maps)
        names = guided.parts_of(self.distance)
        return torch.stack([guided.usable_by(name, maps) for name in names]).any(0)

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The distance of each map."""
        out = forward(map=self.map)
        if self.distance == "bce":
            return {"cyborg": batch.only(cross_entropy(normalize(out.map), batch.mask))}
        cam = out.evidence if takes_masks(self.distance) else out.map
        targets = guided.Targets(batch.labels, batch.map, batch.guided.float())
        losses = guided.guided_loss_terms(out.logits, cam, targets, self.distance, self.mark_weight)
        return {"cyborg": losses.guidance}


def cross_entropy(model: Tensor, target: Tensor, least: float = 0.01) -> Tensor:
    """(B,) HAICS: mean of −m log ã − (1 − m) log(1 − ã), for ã limited to [ε, 1 − ε]."""
    limited = least + (1 - 2 * least) * model
    # Not functional.binary_cross_entropy, which PyTorch refuses under autocast on a GPU.
    return -(target * limited.log() + (1 - target) * (1 - limited).log()).mean((1, 2))


@dataclass(config=CHECKED, kw_only=True)
class Rank(Guidance):
    """Cells inside the human map rank above those outside; how far does not matter."""

    name = "rank"
    map: OwnMap = "label"
    normalized: bool = True

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The mean excess of pairs in the wrong order."""
        cam = forward(map=self.map).map
        model = normalize(cam) if self.normalized else cam
        return {"rank": batch.only(misranked(model, batch.mask))}


def misranked(model: Tensor, target: Tensor, side: int = 16) -> Tensor:
    """(B,) HINT: mean of max(0, a_j − a_i) over pairs of cells, weighted by (m_i − m_j)⁺."""
    if max(model.shape[1:]) > side:
        model, target = (
            functional.adaptive_avg_pool2d(maps[:, None], side) for maps in (model, target)
        )
    a, m = model.flatten(1), target.flatten(1)
    weight = (m[:, :, None] - m[:, None]).clamp_min(0)
    excess = (a[:, None] - a[:, :, None]).clamp_min(0)
    return (weight * excess).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6)


@dataclass(config=CHECKED, kw_only=True)
class Slack(Guidance):
    """RES: the binarized map agrees up to a slack, and the map with the blurred human map."""

    name = "slack"
    map: OwnMap = "label"
    slack: Amount = 0.1

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """max(0, mean |tanh(5(ã − ½)) − (2m − 1)| − η), and mean |ã − blur m|."""
        a, m = normalize(forward(map=self.map).map), batch.mask
        wrong = ((5 * (a - 0.5)).tanh() - (2 * m - 1)).abs().mean((1, 2))
        away = (a - blur(m)).abs().mean((1, 2))
        return {"slack": batch.only((wrong - self.slack).clamp_min(0)), "blurred": batch.only(away)}


def blur(maps: Tensor) -> Tensor:
    """(B, h, w) maps blurred by [1, 2, 1] ÷ 4 in both directions and scaled to a maximum of 1."""
    taps = maps.new_tensor([0.25, 0.5, 0.25])
    wide = functional.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")
    soft = functional.conv2d(wide, taps.outer(taps)[None, None])[:, 0]
    return soft / soft.amax((1, 2), keepdim=True).clamp_min(1e-6)


@dataclass(config=CHECKED, kw_only=True)
class Head(Guidance):
    """A mask head, or the attention branch ABN; it is not part of the trained model."""

    name = "head"
    needs = frozenset({"map", "layers"})
    kind: Literal["mask", "abn"] = "mask"

    def __post_init__(self) -> None:
        self.layers: nn.ModuleDict | None = None

    def prepare(self, model: nn.Module, images: Tensor) -> nn.Module:
        """The convolutions of 1 × 1, initialized by torch's random numbers."""
        with evaluating(model), torch.no_grad():
            logits, features = model(images[:1])
        channels, classes = features.shape[1], logits.shape[1]
        layers = {"attention": nn.Conv2d(channels if self.kind == "mask" else classes, 1, 1)}
        if self.kind == "abn":
            layers["classes"] = nn.Conv2d(channels, classes, 1)
        self.layers = nn.ModuleDict(layers).to(features)
        return self.layers

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """BCE(σ(conv A), m); for ABN mean (att − m)², CE of the branch, and CE of A ⊙ (1 + att)."""
        if self.layers is None:
            raise InputError("guidance head: call prepare(model, images) before the first step")
        if self.kind == "mask":
            raw = self.layers["attention"](forward().features)[:, 0]
            losses = functional.binary_cross_entropy_with_logits(raw, batch.mask, reduction="none")
            return {"head": batch.only(losses.mean((1, 2)))}
        out = forward(map="every")
        classes = self.layers["classes"](out.features)
        attention = self.layers["attention"](classes.relu()).sigmoid()[:, 0]
        # With a linear head on mean-pooled features, A ⊙ att adds mean(att ⊙ cam) to the logits.
        perceived = out.logits + (attention[:, None] * out.map).mean((2, 3))
        branch = functional.cross_entropy(classes.mean((2, 3)), batch.labels, reduction="none")
        attended = functional.cross_entropy(perceived, batch.labels, reduction="none")
        return {
            "head": batch.only((attention - batch.mask).square().mean((1, 2))),
            "branch": batch.only(branch),
            "attended": batch.only(attended),
        }


_LEAST = 1e-6  # of what divides


def rrr_star(evidence: Tensor, mask: Tensor) -> Tensor:
    """RRR*: Σ (1 − m) (e ÷ max |e|)²."""
    e = evidence.flatten(1)
    return ((1 - mask.flatten(1)) * (e / _largest(e.abs())).square()).sum(1)


def share_l1(evidence: Tensor, mask: Tensor) -> Tensor:
    """L1: mean |e⁺ ÷ max e⁺ − m|."""
    positive = evidence.flatten(1).clamp_min(0)
    return (positive / _largest(positive) - mask.flatten(1)).abs().mean(1)


def ppce(evidence: Tensor, mask: Tensor, least: float = 0.01) -> Tensor:
    """PPCE, per-pixel cross-entropy: mean over the mask of −log(e⁺ ÷ max e⁺), limited at ε."""
    positive, m = evidence.flatten(1).clamp_min(0), mask.flatten(1)
    share = least + (1 - least) * positive / _largest(positive)
    return -(m * share.log()).sum(1) / m.sum(1).clamp_min(_LEAST)


def cfce(every: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """CFCE: CE(z̃, y), z̃_c = mean of −d_c m + |d_c| (1 − m), d_c = e_y − e_c, of (B, K, h, w).

    With m = 1 it is the cross-entropy of the logits; for two classes the distance `evidence`.
    """
    d = every[torch.arange(len(every)), labels][:, None] - every
    m = mask[:, None]
    logits = (d.abs() * (1 - m) - d * m).mean((2, 3))
    return functional.cross_entropy(logits, labels, reduction="none")


def _largest(values: Tensor) -> Tensor:
    return values.amax(1, keepdim=True).clamp_min(_LEAST)


LOSSES = {**EVIDENCE_DISTANCES, "rrr_star": rrr_star, "l1": share_l1, "ppce": ppce}


@dataclass(config=CHECKED, kw_only=True)
class Evidence(Guidance):
    """Where the evidence for the label lies, by one of the published losses."""

    name = "evidence"
    loss: Literal["energy", "rrr_star", "l1", "ppce", "cfce", "cosine", "cells", "evidence"] = (
        "energy"
    )
    map: Literal["label", "decision"] = "decision"

    def usable(self, maps: Tensor) -> Tensor:
        """Whether each map can guide; for some losses also one that marks the whole image."""
        return usable_by("cells" if self.loss in {*WHOLE_MASKS, "cfce"} else "energy", maps)

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The loss of each image."""
        out = forward(map="every" if self.loss == "cfce" else self.map)
        if self.loss == "cfce":
            return {"cfce": batch.only(cfce(out.evidence, batch.labels, batch.mask))}
        values = out.evidence if self.loss in WHOLE_MASKS else out.map
        return {self.loss: batch.only(LOSSES[self.loss](values, batch.mask))}
