"""Deep feature reweighting: the last layer of a trained model, trained again on other images.

A network that relies on a shortcut usually has the other features as well. A logistic regression
on a few images without the shortcut then often removes most of the damage, which makes it a strong
and cheap control. It sees the labels of these images, which the other models do not.

Reference:
    P. Kirichenko, P. Izmailov, A. G. Wilson, "Last Layer Re-Training is Sufficient for Robustness
    to Spurious Correlations", ICLR 2023. There the strength of an L1 penalty is chosen on a part
    of the images; here that of an L2 penalty by cross-validation.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from preceptor.data.loader import Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.inference.predict import PREDICT_BATCH, to_device, uses_channels_last
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import features_use_head
from preceptor.models.spec import Pool
from preceptor.utils import process
from preceptor.utils.memory import evaluating

# Strengths of the L2 penalty among which cross-validation chooses, the first of equal ones.
STRENGTHS = (1.0, 0.1, 0.01, 0.001)
FOLDS = 5


def check_last_layer(model: GuidedModel) -> None:
    """Check that the logits of a model are linear in its mean features, with weights of their own.

    Raises:
        InputError: The model has no exact class activation map, its pooling is not the mean, its
            classifier has no bias, or its features depend on the weights of the classifier.
    """
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
    if features_use_head(model):
        raise InputError(
            f"{spec.backbone}: last_layer changes the classifier alone, and the features depend on "
            "its weights, which another layer shares; use another backbone, or leave it out"
        )


def check_images(manifest: Manifest, name: str) -> None:
    """Check that a validation set has enough images of every class for cross-validation.

    Raises:
        InputError: There is no such set, or a class has fewer than two images.
    """
    known = manifest.eval_splits("val")
    if name not in known:
        raise InputError(f"{name!r} is not one of the validation sets {known}; name one of them")
    labels = manifest.table["label"][manifest.table["split"] == name]
    for label in manifest.classes:
        if (count := int((labels == label).sum())) < 2:
            raise InputError(
                f"{name} has {count} image{'s' * (count != 1)} of class {label}, and each class "
                "needs 2; name another validation set"
            )


def with_last_layer_trained(model: GuidedModel, rows: Rows) -> GuidedModel:
    """A copy of a model whose last layer is the logistic regression on these images.

    Args:
        model: Trained model; its pooling is replaced by the mean.
        rows: Images in order, without augmentation, with at least two of every class.
    """
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
    found = []
    with evaluating(model), torch.no_grad():
        for _, batch in in_order(rows, PREDICT_BATCH):
            images = to_device(batch.images, device, channels_last)
            features = model(model.preprocess(images)).features
            found.append(features.double().mean((2, 3)).cpu().numpy())
            process.beat()
    return np.concatenate(found)


def balanced_logistic_regression(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression with equal total weight of all classes.

    The loss is Σ_i v_i · CE_i + λ ÷ 2 · ‖W‖², with Σ v_i = 1 ÷ C in each class, W on standardized
    features; λ is chosen among `STRENGTHS` by stratified cross-validation.

    Args:
        features: (n, k) features.
        labels: (n,) class indices; at least two of every class.
        classes: Number of classes C.

    Returns:
        Weights (C, k) and biases (C,) for the features as given.
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
            losses.append(_balanced_loss(logits, labels[outside], classes))
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
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    table = np.asarray(found.x).reshape(classes, -1)
    return table[:, :-1], table[:, -1]


def _shares(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weight of each image: 1 ÷ C in total for each class."""
    counts = np.bincount(labels, minlength=classes)
    shares: NDArray[np.float64] = 1 / (classes * counts[labels])
    return shares


def _balanced_loss(logits: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> float:
    """Cross-entropy with equal total weight of all classes."""
    own = log_softmax(logits, 1)[np.arange(len(labels)), labels]
    return float(-(_shares(labels, classes) * own).sum())
