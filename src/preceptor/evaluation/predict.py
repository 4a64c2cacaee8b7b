"""Scores and saliency of a trained model on rows of a manifest, one forward for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.loader import Rows, in_order
from preceptor.models import GuidableModel, ModelOutput
from preceptor.saliency.cam import class_activation_map

PREDICT_BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """What a model says of each row.

    Args:
        probabilities: (n, C) float32.
        cams: (n, h, w) float32 raw CAMs of `cam_classes`, or None.
        cam_classes: (n,) int64 the class of each map, or None.
    """

    probabilities: NDArray[np.float32]
    cams: Tensor | None = None
    cam_classes: NDArray[np.int64] | None = None


def predict(
    model: GuidableModel,
    rows: Rows,
    *,
    cams: str | None = None,
    forward: Callable[[Tensor], ModelOutput] | None = None,
    batch_size: int = PREDICT_BATCH,
) -> Predictions:
    """Run a model over rows in evaluation mode.

    Args:
        model: Its device and memory format are used.
        rows: In order, without augmentation.
        cams: None, or whose class's map to return: label or predicted.
        forward: The forward to call, where precision wraps it; None = the model's own.
        batch_size: Images at once.
    """
    call = forward or model
    head = model.head
    device, channels_last = head.weight.device, uses_channels_last(model)
    model.eval()
    probabilities: list[Tensor] = []
    maps: list[Tensor] = []
    classes: list[Tensor] = []
    with torch.inference_mode():
        for _, batch in in_order(rows, batch_size):
            images = to_device(batch.images, device, channels_last)
            logits, features = call(model.preprocess(images))
            probabilities.append(logits.float().softmax(1).cpu())
            if cams is not None:
                wanted = batch.labels.to(device) if cams == "label" else logits.argmax(1)
                maps.append(class_activation_map(features.float(), head.weight, wanted).cpu())
                classes.append(wanted.cpu())
    empty = np.zeros((0, len(model.spec.classes)), np.float32)
    return Predictions(
        torch.cat(probabilities).numpy() if probabilities else empty,
        torch.cat(maps) if maps else None,
        torch.cat(classes).numpy() if classes else None,
    )


def to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """Bring a uint8 batch to a device in the model's memory layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True).contiguous(memory_format=layout)


def uses_channels_last(model: torch.nn.Module) -> bool:
    """Whether the model's convolutions are laid out channels-last."""
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.shape[1] > 1 and parameter.shape[2] > 1:
            return parameter.is_contiguous(memory_format=torch.channels_last)
    return False
