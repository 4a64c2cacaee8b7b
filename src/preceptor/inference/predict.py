"""Scores and saliency maps of a trained model for rows of a manifest, in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.loader import Rows, in_order
from preceptor.models.guided_model import GuidedModel
from preceptor.utils import process
from preceptor.utils.memory import evaluating, out_of_memory

PREDICT_BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for each row."""

    #: (n, C); float64, so that the smallest ones keep the order of images with large log-odds.
    probabilities: NDArray[np.float64]
    cams: Tensor | None = None  # (n, h, w) float32 raw maps
    cam_classes: NDArray[np.int64] | None = None  # (n,) class of each map


def predict(
    model: GuidedModel,
    rows: Rows,
    *,
    cams: str | None = None,
    forward: Callable[..., Any] | None = None,
    batch_size: int = PREDICT_BATCH,
) -> Predictions:
    """Predictions of a model in evaluation mode; batches are halved if memory runs out.

    Maps are of the label, of the predicted class, decision (of the label's log-odds), or cells
    (probability of a mark in each cell, the logistic function of the positive class's evidence).
    """
    while True:
        try:
            return _predict(model, rows, cams, forward or model, batch_size)
        except (MemoryError, RuntimeError) as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
        batch_size //= 2  # here the error has been freed, with the tensors in its frames
        if model.device.type == "cuda":
            torch.cuda.empty_cache()


def _predict(
    model: GuidedModel,
    rows: Rows,
    cams: str | None,
    call: Callable[..., Any],
    batch_size: int,
) -> Predictions:
    device, channels_last = model.device, uses_channels_last(model)
    probabilities: list[Tensor] = []
    maps: list[Tensor] = []
    classes: list[Tensor] = []
    # Not in inference mode: what a network then caches cannot be trained with.
    with evaluating(model), torch.no_grad():
        for _, batch in in_order(rows, batch_size):
            images = to_device(batch.images, device, channels_last)
            found, cam, wanted = _look(call, model, images, batch.labels.to(device), cams)
            probabilities.append(found)
            process.beat()
            if cam is not None:
                maps.append(cam.cpu())
                classes.append(wanted.cpu())
    empty = np.zeros((0, len(model.spec.classes)))
    return Predictions(
        torch.cat(probabilities).numpy() if probabilities else empty,
        torch.cat(maps) if maps else None,
        torch.cat(classes).numpy() if classes else None,
    )


def _look(
    call: Callable[..., Any],
    model: GuidedModel,
    images: Tensor,
    labels: Tensor,
    cams: str | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(B, C) float64 probabilities on the CPU, (B, h, w) raw maps or None, (B,) their classes."""
    prepared = model.preprocess(images)
    if cams is None:
        logits, _ = call(prepared)
        return _softmax(logits), None, labels
    if cams == "cells":
        positive = torch.full_like(labels, model.spec.positive_index)
        out = call(prepared, positive, decision=True)
        return _softmax(out.logits), out.evidence.float().sigmoid(), positive
    decision = {"decision": True} if cams == "decision" else {}
    out = call(prepared, "predicted" if cams == "predicted" else labels, **decision)
    return _softmax(out.logits), out.saliency.float(), out.classes


def _softmax(logits: Tensor) -> Tensor:
    """Softmax in float64, on the CPU: some devices have no float64."""
    return logits.float().cpu().double().softmax(1)


def to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """Move a uint8 batch to a device, in the model's memory layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True).contiguous(memory_format=layout)


def uses_channels_last(model: torch.nn.Module) -> bool:
    """Whether the weights of the model's convolutions are channels-last."""
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.shape[1] > 1 and parameter.shape[2] > 1:
            return parameter.is_contiguous(memory_format=torch.channels_last)
    return False
