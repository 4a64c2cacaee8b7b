"""Trained model with its pre-processing and its decision, as one module."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from preceptor.model_export.calibrated import calibrated
from preceptor.model_export.reference_distance import ReferenceDistance
from preceptor.models.guided_model import GuidedModel
from preceptor.predictor.reference import Reference
from preceptor.saliency.normalise import normalise


class Deployed(NamedTuple):
    """Output of a deployed model; those that it does not compute are left out of its graph.

    Args:
        probabilities: (B, C) float32.
        score: (B,) probability of the positive class, or without one the highest.
        decision: (B,) int64 class by the threshold, or the most probable class.
        map: (B, h, w) decision map on the grid of the model, with min-max normalization.
        raw_map: (B, h, w) decision map without normalization.
        distance: (B,) float64 distance from the training images.
        unfamiliar_share: (B,) float64 share of the validation images that are at least as far, see
            `Unfamiliar`.
    """

    probabilities: Tensor
    score: Tensor
    decision: Tensor
    map: Tensor | None = None
    raw_map: Tensor | None = None
    distance: Tensor | None = None
    unfamiliar_share: Tensor | None = None


class DeployedModel(nn.Module):
    """Copy of a trained model on the CPU whose input is images as decoded.

    The map is the decision map of the positive class, or without one of the most probable class.

    Args:
        model: Trained model; it is not changed.
        threshold: Threshold of the score; None = the decision is the most probable class.
        maps: Whether maps are computed.
        reference: Reference of the model, with the calibration of its probabilities; None = it has
            none.
    """

    def __init__(
        self,
        model: GuidedModel,
        threshold: float | None,
        *,
        maps: bool = True,
        reference: Reference | None = None,
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        _replace_global_pools(self.model)
        self.threshold = threshold
        self.maps = maps
        self.calibration = None if reference is None else reference.calibration
        self.distance = ReferenceDistance(reference) if reference else None
        self.thresholds = tuple(model.spec.thresholds.values())
        self.positive = None if model.spec.positive is None else model.spec.positive_index

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of `Deployed`."""
        found = ["probabilities", "score", "decision"]
        if self.maps:
            found += ["map", "raw_map"]
        if self.distance is not None:
            found += ["distance", "unfamiliar_share"]
        return tuple(found)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs named by `outputs`.

        Args:
            image: (B, in_chans, H, W) uint8, or float32 with values from 0 to 255.
        """
        mean, std = self.model.get_buffer("mean"), self.model.get_buffer("std")
        pixels = (image.to(torch.float32) / 255 - mean) / std
        if not self.maps:
            out = self.model(pixels)
            maps: tuple[Tensor, ...] = ()
        else:
            if self.positive is None:
                out = self.model(pixels, "predicted", decision=True)
            else:
                classes = torch.full((image.shape[0],), self.positive, dtype=torch.int64)
                out = self.model(pixels, classes, decision=True)
            maps = (normalise(out.saliency), out.saliency)
        found = () if self.distance is None else self.distance(out.logits, out.features)
        return *self._decided(out.logits), *maps, *found

    def _decided(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C) probabilities, (B,) scores and (B,) decisions."""
        probabilities = logits.softmax(1)
        if self.calibration is not None:
            probabilities = calibrated(
                probabilities, self.calibration, self.positive, self.thresholds
            )
        if self.positive is None:
            return probabilities, probabilities.amax(1), probabilities.argmax(1)
        score = probabilities[:, self.positive]
        if self.threshold is None:
            return probabilities, score, probabilities.argmax(1)
        own = torch.arange(probabilities.shape[1]) == self.positive
        other = probabilities.masked_fill(own, -1.0).argmax(1)
        # In float64: a threshold may lie between two neighboring float32 scores.
        above = score.to(torch.float64) >= self.threshold
        return probabilities, score, torch.where(above, self.positive, other)


class _GlobalMean(nn.Module):
    """Mean over the grid, (B, Ch, h, w) to (B, Ch, 1, 1)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((-2, -1), keepdim=True)


def _replace_global_pools(model: nn.Module) -> None:
    """Replace adaptive average pooling to one cell by the mean that it is.

    Torch computes it with a change of strides, which neither the derivative in a traced graph nor
    ONNX can express.
    """
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1)):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _GlobalMean())
