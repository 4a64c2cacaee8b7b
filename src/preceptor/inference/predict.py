"""Scores and maps of a trained model for rows of a manifest, and score tables of its sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.loader import Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.metrics.scores import check_score_file, figures, write_scores
from preceptor.models.guided_model import GuidedModel
from preceptor.utils import process
from preceptor.utils.process import evaluating, out_of_memory

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
    model: GuidedModel, rows: Rows, cams: str | None, call: Callable[..., Any], batch_size: int
) -> Predictions:
    device, channels_last = model.device, uses_channels_last(model)
    probabilities: list[Tensor] = []
    maps: list[Tensor] = []
    classes: list[Tensor] = []
    # Not in inference mode: what a network then caches cannot be trained with.
    with evaluating(model), torch.no_grad():
        for _, batch in in_order(rows, batch_size):
            images = to_device(batch.images, device, channels_last)
            scores, cam, wanted = _look(call, model, images, batch.labels.to(device), cams)
            probabilities.append(scores)
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
    call: Callable[..., Any], model: GuidedModel, images: Tensor, labels: Tensor, cams: str | None
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


# Score tables.


def check_comparable(
    model: GuidedModel, other: GuidedModel, names: tuple[str, str] = ("a", "b")
) -> str:
    """Check that the AUCs of two models can be compared; returns their positive class."""
    first, second = model.spec, other.spec
    if set(first.classes) != set(second.classes):
        raise InputError(
            f"{names[1]} has the classes {sorted(second.classes)} and {names[0]} "
            f"{sorted(first.classes)}; compare models with the same classes"
        )
    if first.positive != second.positive:
        raise InputError(
            f"the positive class of {names[1]} is {second.positive!r} and that of {names[0]} "
            f"{first.positive!r}; compare models with the same positive class"
        )
    if first.positive is None:
        raise InputError(
            f"{names[0]} has no positive class, which DeLong's test needs; set `positive` in the "
            "config and train again"
        )
    return first.positive


def evaluate(
    model: GuidedModel,
    manifest: Manifest,
    *,
    out: str | Path | None = None,
    workspace: Workspace | None = None,
) -> pd.DataFrame:
    """Evaluate a model on the validation and test sets of a manifest.

    Args:
        model: Trained model with the classes of the manifest.
        manifest: Manifest of the images.
        out: Output Parquet file of the scores, or None; an earlier score table is replaced.
        workspace: The opened manifest, if available.

    Returns:
        Metrics by set and source, see `figures`.

    Raises:
        InputError: `out` is a file other than a score table.
    """
    if out is not None:
        check_score_file(Path(out))
    frame = score_sets(model, workspace or Workspace(manifest))
    if out is not None:
        write_scores(frame, Path(out))
    return figures(frame, model.spec.classes, model.spec.positive)


def score_sets(model: GuidedModel, workspace: Workspace) -> pd.DataFrame:
    """Scores of all validation and test sets of a manifest: see `score_frame`."""
    manifest = workspace.manifest
    sets = manifest.eval_splits("val") + manifest.eval_splits("test")
    chosen = np.flatnonzero(manifest.table["split"].isin(sets).to_numpy())
    return score_frame(model, workspace, chosen)


def score_frame(
    model: GuidedModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    cache: Literal["memmap", "none"] = "memmap",
) -> pd.DataFrame:
    """Scores of manifest rows: path, label, split, source, group, and `score_CLASS` columns."""
    rows = workspace.rows(chosen, model.spec.image_format, model.spec.image_classes, cache=cache)
    table = workspace.manifest.table.iloc[chosen]
    columns = {"path": table["name"]} | {
        key: table[key] for key in ("label", "split", "source", "group")
    }
    return with_scores(model, rows, pd.DataFrame(columns).reset_index(drop=True))


def with_scores(model: GuidedModel, rows: Rows, frame: pd.DataFrame) -> pd.DataFrame:
    """A table of rows with their `score_CLASS` columns."""
    probabilities = predict(model, rows).probabilities
    scores = {f"score_{name}": probabilities[:, at] for at, name in enumerate(model.spec.classes)}
    return frame.assign(**scores)
