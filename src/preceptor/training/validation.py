"""What validation images decide: metrics after each epoch, and the read-out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.config.settings import ImageFormat
from preceptor.data.loader import MapTargets, Rows
from preceptor.data.manifest import Manifest
from preceptor.data.swaps import LEAST
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, ProblemsError, RunFailedError
from preceptor.inference.predict import predict
from preceptor.maps.marked import Marked, read_marked, swap_marked
from preceptor.metrics.auc import auc, log_odds, macro_auc
from preceptor.metrics.scores import accuracy
from preceptor.metrics.split_names import SWAPPED, kind_of
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.saliency.maps import correlation
from preceptor.training.last_layer import clean_sets
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
        of_use = has_map & (table["map_weight"].iloc[which] > 0).to_numpy()
        targets = MapTargets.human(of_use) if of_use.any() else None
        rows = workspace.rows(
            which, model.spec.image_format, cache=cache, targets=targets, grid=model.grid()
        )
        marks = model.spec.image_classes is None
        sets[name] = replace(rows, labels=has_map.astype(np.int64)) if marks else rows
    if model.spec.image_classes is not None:
        swapped = swapped_set(workspace, model.spec.image_format, model.spec.classes)
        sets |= {} if swapped is None else {SWAPPED: swapped[0]}
    return sets


MOST_SWAPPED = 200
"""Marked validation images at most that are swapped."""
_SMALL = ImageFormat(64, "squash", 3)  # in which marks are checked


def selects_by_swaps(workspace: Workspace) -> bool:
    """Whether swapped validation images are a validation set of runs.

    They are where there is no clean set (see `clean_sets`), and at least 20 validation images, of
    two classes, are examined, some with marks, see `data.swaps.check_marks`.
    """
    if SWAPPED not in workspace.kept:  # a plan asks for each of its runs
        manifest, found = workspace.manifest, False
        examined = manifest.annotated_mask & (kind_of(manifest.table["split"]) == "val")
        enough = examined.sum() >= LEAST and (examined & manifest.map_mask).any()
        if enough and not clean_sets(manifest):
            with contextlib.suppress(ProblemsError):
                _marked(manifest, _SMALL, manifest.classes)
                found = True
        workspace.kept[SWAPPED] = found
    return bool(workspace.kept[SWAPPED])


def swapped_set(
    workspace: Workspace, form: ImageFormat, classes: Sequence[str]
) -> tuple[Rows, pd.DataFrame] | None:
    """Swapped validation images, and the first columns of their scores; None if they are no set.

    Their source is the class of the outside, their group the group of the inside. They are the
    same for all models with an image format.
    """
    if not selects_by_swaps(workspace):
        return None
    key = SWAPPED, form, tuple(classes)
    if key not in workspace.kept:
        workspace.kept[key] = _swapped_set(workspace.manifest, form, classes)
    found: tuple[Rows, pd.DataFrame] = workspace.kept[key]
    return found


def _marked(manifest: Manifest, form: ImageFormat, classes: Sequence[str]) -> Marked:
    splits = manifest.eval_splits("val")
    return read_marked(manifest, form, classes, splits=splits, most=MOST_SWAPPED)


def _swapped_set(
    manifest: Manifest, form: ImageFormat, classes: Sequence[str]
) -> tuple[Rows, pd.DataFrame]:
    marked = _marked(manifest, form, classes)
    swapped = swap_marked(marked, len(classes), 0)
    names, units = (
        np.array(classes, object),
        marked.table["group"].where(marked.table["group"] != "", marked.table["name"]),
    )
    columns = {
        "path": [f"{SWAPPED}/{at:05d}" for at in range(len(swapped.labels))],
        "label": names[swapped.labels],
        "split": SWAPPED,
        "source": names[swapped.outside_labels],
        "group": units.to_numpy(object)[swapped.inside],
    }
    return Rows.in_memory(swapped.pixels, swapped.labels, form.fit), pd.DataFrame(columns)


def validate(
    model: GuidedModel,
    sets: dict[str, Rows],
    forward: Callable[..., Any],
    negatives: str | None = None,
    cams: str = "label",
) -> dict[str, SetMetrics]:
    """Accuracy, AUC and agreement with human maps on each validation set.

    `forward` is the forward function of the model in its precision, `negatives` a set whose images
    are used for the classes that another set lacks. NaN scores are a `NotANumberError`.
    """
    metrics: dict[str, SetMetrics] = {}
    correlations: dict[str, float] = {}
    scored: dict[str, NDArray[np.float64]] = {}
    for name, rows in sets.items():
        predicted = predict(model, rows, cams=cams if rows.targets else None, forward=forward)
        probabilities = predicted.probabilities
        if wrong := int(np.isnan(probabilities).any(axis=1).sum()):
            raise NotANumberError(f"{wrong:,} of {len(rows):,} scores of {name} are NaN")
        scored[name] = probabilities
        if rows.targets is not None:
            assert predicted.cams is not None
            values, valid = correlation(predicted.cams, rows.targets_on_grid)
            valid &= torch.from_numpy(rows.targets.weight > 0)
            correlations[name] = float(values[valid].mean())
    for name, rows in sets.items():
        labels, probabilities = rows.labels, scored[name]
        if negatives is not None:
            others = ~np.isin(sets[negatives].labels, labels)
            labels = np.concatenate([labels, sets[negatives].labels[others]])
            probabilities = np.concatenate([probabilities, scored[negatives][others]])
        odds, spec = log_odds(probabilities), model.spec
        if spec.positive is None and len(spec.classes) > 2:
            area = macro_auc(labels, odds)
        else:
            area = auc(labels == spec.positive_index, odds[:, spec.positive_index])
        share = float(accuracy(rows.labels, scored[name]))
        metrics[name] = SetMetrics(share, float(area), correlations.get(name))
    return metrics


# Read-out: the pooling of a finished model that is best on validation. The mean over the grid hides
# small marks; the read-out changes none of the weights, and is offered to all runs alike.

# Candidates, the first one with the highest AUC: the mean, the highest quarter, tenth and twentieth
# of the cells, the highest cell, and log-sum-exp.
POOLS = (Pool(), *(Pool("top", top) for top in (0.25, 0.1, 0.05, 1)), Pool("lse"))


def check_readout(model: GuidedModel) -> None:
    """Check that a model can be read out by other poolings than its own."""
    spec = model.spec
    if spec.cam != "cam" or spec.cam_source != "head_input":
        raise InputError(
            f"{spec.backbone}: readout: auto needs an exact class activation map, which the model "
            "does not have; set readout: none, or use another backbone"
        )


def best_readout(
    model: GuidedModel, sets: Mapping[str, Rows], negatives: str | None = None
) -> GuidedModel:
    """The model with the pooling of the highest AUC on the worst validation set."""
    best, highest = model, -np.inf
    plain = {name: rows.without_maps() for name, rows in sets.items()}
    for pool in dict.fromkeys([model.spec.pool, *POOLS]):  # its own pooling wins ties
        read = with_pool(model, pool)
        worst = min(metrics.auc for metrics in validate(read, plain, read, negatives).values())
        if worst > highest:  # False for NaN
            best, highest = read, worst
    return best
