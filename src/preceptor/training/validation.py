"""Validation after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.data.loader import MapTargets, Rows
from preceptor.data.workspace import Workspace
from preceptor.errors import RunFailedError
from preceptor.evaluation.auc import auc, log_odds, macro_auc
from preceptor.evaluation.scores import accuracy
from preceptor.inference.predict import predict
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.agreement import correlation
from preceptor.training.record import SetMetrics


class NotANumberError(RunFailedError):
    """Scores of a validation set are NaN."""


def validation_sets(
    workspace: Workspace, model: GuidedModel, cache: Literal["memmap", "none"] = "memmap"
) -> dict[str, Rows]:
    """Validation sets, with their human maps if they have any."""
    sets: dict[str, Rows] = {}
    table = workspace.manifest.table
    for name in workspace.manifest.eval_splits("val"):
        which = np.flatnonzero((table["split"] == name).to_numpy())
        has_map = (table["saliency"].iloc[which] != "").to_numpy()
        targets = None
        if has_map.any():
            targets = MapTargets.human(has_map)
        sets[name] = workspace.rows(
            which, model.spec.image_format, cache=cache, targets=targets, grid=model.grid()
        )
    return sets


def validate(
    model: GuidedModel,
    sets: dict[str, Rows],
    forward: Callable[..., Any],
    negatives: str | None = None,
    cams: str = "label",
) -> dict[str, SetMetrics]:
    """Accuracy, AUC and agreement with human maps on each validation set.

    The AUC is that of `set_auc`: of the positive class, or macro-averaged if the model has none.

    Args:
        model: Model in any mode.
        sets: Validation sets by name.
        forward: Forward function of the model in its precision.
        negatives: Set whose images are used for the classes that another set lacks when its AUC is
            computed; None = the AUC of such a set is NaN.
        cams: Maps that are compared with human maps, see `predict`.

    Raises:
        NotANumberError: A score is NaN.
    """
    metrics: dict[str, SetMetrics] = {}
    correlations: dict[str, float] = {}
    scored: dict[str, NDArray[np.float64]] = {}
    for name, rows in sets.items():
        found = predict(model, rows, cams=cams if rows.targets else None, forward=forward)
        probabilities = found.probabilities
        if wrong := int(np.isnan(probabilities).any(axis=1).sum()):
            raise NotANumberError(f"{wrong:,} of {len(rows):,} scores of {name} are NaN")
        scored[name] = probabilities
        if rows.targets is not None:
            assert found.cams is not None
            values, valid = correlation(found.cams, rows.targets_on_grid)
            valid &= torch.from_numpy(rows.targets.weight > 0)
            correlations[name] = float(values[valid].mean())
    for name, rows in sets.items():
        labels, probabilities = rows.labels, scored[name]
        if negatives is not None:
            others = ~np.isin(sets[negatives].labels, labels)
            labels = np.concatenate([labels, sets[negatives].labels[others]])
            probabilities = np.concatenate([probabilities, scored[negatives][others]])
        odds, positive = log_odds(probabilities), model.spec.positive_index
        if positive is None:
            area = macro_auc(labels, odds)
        else:
            area = auc(labels == positive, odds[:, positive])
        metrics[name] = SetMetrics(
            float(accuracy(rows.labels, scored[name])),
            float(area),
            correlations.get(name),
        )
    return metrics
