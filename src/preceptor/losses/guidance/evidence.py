"""Guidance by evidence: how much signed or positive evidence lies inside the human map.

e is the map of the label's log-odds, or its class activation map, with its sign; e⁺ is its positive
part, m the human map as a mask. cells, evidence and cfce take the evidence, whose mean is the
log-odds or the logit, with what the bias adds; the others compare cells with each other, and where
the label is improbable, with the bias no cell would be positive.

S. Rao, M. Böhle, A. Parchami-Araghi, B. Schiele, "Studying How to Efficiently and Effectively Guide
Models with Explanations", ICCV 2023.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from preceptor.losses.distances import EVIDENCE_DISTANCES, WHOLE_MASKS
from preceptor.losses.guidance.base import CHECKED, Guidance
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward
from preceptor.losses.guided import usable_by

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
