"""What validation images decide: metrics after each epoch, the read-out, a new last layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from preceptor.data.loader import MapTargets, Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, RunFailedError
from preceptor.inference.predict import PREDICT_BATCH, predict, to_device, uses_channels_last
from preceptor.metrics.auc import auc, log_odds, macro_auc
from preceptor.metrics.scores import accuracy
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.saliency.maps import correlation
from preceptor.training.record import SetMetrics
from preceptor.utils import process
from preceptor.utils.process import evaluating


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
    return sets


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


# Deep feature reweighting: the last layer of a trained model, trained again on other images. A
# network that relies on a shortcut usually has the other features as well, and a regression on a
# few images without the shortcut is a strong and cheap control; it sees their labels, which the
# other models do not. P. Kirichenko, P. Izmailov, A. G. Wilson, "Last Layer Re-Training is
# Sufficient for Robustness to Spurious Correlations", ICLR 2023; there the penalty is L1, here L2.

# Strengths of the L2 penalty among which cross-validation chooses, the first of equal ones.
STRENGTHS = (1.0, 0.1, 0.01, 0.001)
FOLDS = 5


def check_last_layer(model: GuidedModel) -> None:
    """Check that the logits are linear in the mean features, with weights of their own."""
    spec = model.spec
    if spec.cam != "cam" or spec.cam_source != "head_input" or spec.pool.kind != "mean":
        raise InputError(
            f"{spec.backbone}: last_layer needs logits that are linear in the mean features (an "
            "exact class activation map, and pool: mean); use another backbone, or leave it out"
        )
    if model.head.bias is None:
        raise InputError(
            f"{spec.backbone}: last_layer trains the bias of the classifier too, and it has none; "
            "use another backbone, or leave it out"
        )


def check_images(manifest: Manifest, name: str) -> None:
    """Check that a validation set has enough images of every class for cross-validation."""
    sets = manifest.eval_splits("val")
    if name not in sets:
        raise InputError(f"{name!r} is not one of the validation sets {sets}; name one of them")
    for label, count in _counts(manifest, name).items():
        if count < 2:
            raise InputError(
                f"{name} has {count} image{'s' * (count != 1)} of class {label}, and each class "
                "needs 2; name another validation set"
            )


def clean_sets(manifest: Manifest) -> list[str]:
    """Validation sets beside `val` with enough images of every class, in the order of the names.

    Who makes a further set makes it without a shortcut of the training images (another source, or
    labels that were checked): such a set is what the regime *with clean labels* means.
    """
    return [
        name
        for name in manifest.eval_splits("val")
        if name != "val" and all(count >= 2 for count in _counts(manifest, name).values())
    ]


def _counts(manifest: Manifest, name: str) -> dict[str, int]:
    """Images of each class in a set."""
    labels = manifest.table["label"][manifest.table["split"] == name]
    return {label: int((labels == label).sum()) for label in manifest.classes}


def with_last_layer_trained(model: GuidedModel, rows: Rows) -> GuidedModel:
    """A copy of a model whose last layer is the logistic regression on these images."""
    model = with_pool(copy.deepcopy(model), Pool())
    weight, bias = balanced_logistic_regression(
        mean_features(model, rows), np.asarray(rows.labels), len(model.spec.classes)
    )
    if model.spec.head == "sigmoid":
        # The single logit is that of class 1 against class 0, whichever is the positive class.
        weight, bias = (weight[1] - weight[0])[None], (bias[1] - bias[0])[None]
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
    return model


def mean_features(model: GuidedModel, rows: Rows) -> NDArray[np.float64]:
    """Mean features (n, channels) over the grid, in evaluation mode."""
    device, channels_last = model.device, uses_channels_last(model)
    means = []
    with evaluating(model), torch.no_grad():
        for _, batch in in_order(rows, PREDICT_BATCH):
            images = to_device(batch.images, device, channels_last)
            features = model(model.preprocess(images)).features
            means.append(features.double().mean((2, 3)).cpu().numpy())
            process.beat()
    return np.concatenate(means)


def balanced_logistic_regression(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression: weights (C, k) and biases (C,) for features (n, k).

    The loss is Σ_i v_i · CE_i + λ ÷ 2 · ‖W‖², with Σ v_i = 1 ÷ C in each class, W on standardized
    features; λ is chosen among `STRENGTHS` by stratified cross-validation.
    """
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    standard = (features - mean) / spread
    rank = np.zeros(len(labels), np.int64)
    for index in range(classes):
        rank[labels == index] = np.arange((labels == index).sum())
    folds = rank % min(FOLDS, int(np.bincount(labels, minlength=classes).min()))

    def held_out(strength: float) -> float:
        losses = []
        for fold in range(int(folds.max()) + 1):
            inside, outside = folds != fold, folds == fold
            weight, bias = _fitted(standard[inside], labels[inside], classes, strength)
            logits = standard[outside] @ weight.T + bias
            own = log_softmax(logits, 1)[np.arange(len(logits)), labels[outside]]
            losses.append(-(_shares(labels[outside], classes) * own).sum())
        return float(np.mean(losses))

    strength = min(STRENGTHS, key=held_out)
    weight, bias = _fitted(standard, labels, classes, strength)
    weight = weight / spread
    return weight, bias - weight @ mean


def _fitted(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: int, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (C, k) and biases (C,) for one strength of the penalty."""
    truth, shares = np.eye(classes)[labels], _shares(labels, classes)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(classes, -1)
        weight, bias = table[:, :-1], table[:, -1]
        logits = features @ weight.T + bias
        value = -(shares * log_softmax(logits, 1)[np.arange(len(labels)), labels]).sum()
        slope = shares[:, None] * (softmax(logits, 1) - truth)
        gradient = np.c_[slope.T @ features + strength * weight, slope.sum(0)]
        return float(value + strength / 2 * (weight**2).sum()), gradient.ravel()

    start = np.zeros(classes * (features.shape[1] + 1))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    table = np.asarray(best.x).reshape(classes, -1)
    return table[:, :-1], table[:, -1]


def _shares(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weight of each image: 1 ÷ C in total for each class."""
    counts = np.bincount(labels, minlength=classes)
    shares: NDArray[np.float64] = 1 / (classes * counts[labels])
    return shares
