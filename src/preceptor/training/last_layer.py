"""Last layer of a trained model, trained again on other images (deep feature reweighting).

A network that relies on a shortcut usually has the other features as well. A regression on images
without the shortcut is therefore a strong and cheap remedy: P. Kirichenko, P. Izmailov, A. G.
Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023;
there the penalty is L1, here L2. Such images need labels of a set without the shortcut, which other
models do not see. `repaired` takes swapped images instead (see `data.swaps`), which marks make: the
outside of an image no longer goes with its label.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from torch.nn import functional

from preceptor.data.loader import Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.swaps import Estimate, MarkedImages, estimate, replicates, swap
from preceptor.errors import InputError
from preceptor.inference.predict import PREDICT_BATCH, predict, to_device, uses_channels_last
from preceptor.metrics.auc import log_odds, macro_auc
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.probes import IDENTITY_TOLERANCE
from preceptor.models.spec import Pool
from preceptor.saliency.cam import binary_logits
from preceptor.utils import process
from preceptor.utils.process import evaluating

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
    _set_head(model, weight, bias)
    return model


def _set_head(model: GuidedModel, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    if model.spec.head == "sigmoid":
        # The single logit is that of class 1 against class 0, whichever is the positive class.
        weight, bias = (weight[1] - weight[0])[None], (bias[1] - bias[0])[None]
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))


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
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: int,
    strength: float,
    start: NDArray[np.float64] | None = None,
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

    first = np.zeros(classes * (features.shape[1] + 1)) if start is None else start
    best = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    table = np.asarray(best.x).reshape(classes, -1)
    return table[:, :-1], table[:, -1]


def _shares(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weight of each image: 1 ÷ C in total for each class."""
    counts = np.bincount(labels, minlength=classes)
    shares: NDArray[np.float64] = 1 / (classes * counts[labels])
    return shares


# Repair.

MOST_REPAIRED = 2000
"""Training images at most: their pixels are held in memory."""
# Swapped training images at least, so many outsides has each image. On decoys, 60 marks gain 0.006
# from 10 instead of 4 outsides, and nothing from 40; 3,000 maps gain 0.001 from 4 instead of 1.
_SWAPS = 1000
_TESTED = 4  # outsides of each validation image
# Strengths among which swapped validation images choose, the first of equal ones.
_GRID = (1.0, 0.1, 0.01, 0.001, 0.0001)
_FOLDS = 3  # of the marked training images, where no validation images are marked


@dataclass(frozen=True)
class Repaired:
    """Model with a new last layer, and what swapped validation images say about it."""

    model: GuidedModel
    strength: float  # of the penalty
    scores: Mapping[float, float]  # AUC on swapped validation images by strength
    before: Estimate  # AUC on swapped validation images
    after: Estimate
    gain: Estimate  # difference of both, on the same resamples
    folds: int  # of training images, where there are no validation images; else 0
    swaps: int  # swapped training images

    @property
    def worse(self) -> bool:
        """Whether the model is shown to be worse: the interval of the gain lies below 0."""
        return not self.gain.high >= 0


def repaired(
    model: GuidedModel,
    train: MarkedImages,
    validation: MarkedImages | None,
    *,
    seed: int,
    train_groups: NDArray[np.int64] | None = None,
    validation_groups: NDArray[np.int64] | None = None,
) -> Repaired:
    """A copy of a model whose last layer is trained again on swapped images.

    The features that enter the last layer are computed once, for about 1,000 swaps. The last layer
    is the balanced logistic regression on them. Its penalty is the one with the highest AUC on
    swapped validation images.

    Args:
        model: Classifier whose logits are a linear layer.
        train: Marked training images in the format of the model, of every class.
        validation: Marked validation images; None = the training images in three folds, of which
            each is scored by a layer that was trained on the others.
        seed: Seed of the swaps and the folds.
        train_groups, validation_groups: (n,) unit of each image, which is in one fold, and
            resampled as a whole; None = each image is one.

    Raises:
        InputError: The logits are not a linear layer with a bias, or a class has no image.
    """
    classes = len(model.spec.classes)
    counts = np.bincount(train.labels, minlength=classes)
    least = 1 if validation is not None else _FOLDS
    if counts.min() < least:
        few = model.spec.classes[int(counts.argmin())]
        raise InputError(
            f"repair: {counts.min()} training images of class {few} are marked or examined, and "
            f"{least} are needed; examine more, or give maps of all (--teacher, --maps)"
        )
    per_image = -(-_SWAPS // len(train))  # outsides of each training image
    new = with_pool(copy.deepcopy(model), Pool())
    units = np.arange(len(train)) if train_groups is None else train_groups
    tests: list[_Test] = []
    if validation is not None:
        layers = _layers(*_seen(new, train, seed, per_image), classes)
        tests.append(_test(model, new, layers, validation, seed, validation_groups))
    else:
        folds = _folds(train.labels, units, seed)
        for fold in range(_FOLDS):
            own = folds == fold
            layers = _layers(*_seen(new, _of(train, ~own), seed, per_image), classes)
            tests.append(_test(model, new, layers, _of(train, own), seed, units[own]))
        layers = _layers(*_seen(new, train, seed, per_image), classes)
    labels = np.concatenate([one.labels for one in tests])
    odds = {one: np.concatenate([test.odds[one] for test in tests]) for one in (0.0, *_GRID)}
    inside, outside = (np.concatenate([one.units[at] for one in tests]) for at in (0, 1))
    scores = {one: macro_auc(labels, odds[one]) for one in _GRID}
    strength = max(scores, key=lambda one: scores[one])
    _set_head(new, *layers[strength])
    values = [macro_auc(labels, odds[one]) for one in (0.0, strength)]
    drawn = [replicates(labels, odds[one], inside, outside, seed=seed) for one in (0.0, strength)]
    return Repaired(
        model=new,
        strength=strength,
        scores=scores,
        before=estimate(values[0], drawn[0]),
        after=estimate(values[1], drawn[1]),
        gain=estimate(values[1] - values[0], drawn[1] - drawn[0]),
        folds=0 if validation is not None else _FOLDS,
        swaps=per_image * len(train),
    )


Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


class _Test(NamedTuple):
    """Swapped images that the last layers of all strengths have not seen."""

    labels: NDArray[np.int64]
    odds: dict[float, NDArray[np.float64]]  # by strength; 0 = of the model before
    units: tuple[NDArray[np.int64], NDArray[np.int64]]  # of the insides and the outsides


def _test(
    model: GuidedModel,
    new: GuidedModel,
    layers: Mapping[float, Layer],
    images: MarkedImages,
    seed: int,
    groups: NDArray[np.int64] | None,
) -> _Test:
    classes = len(model.spec.classes)
    swapped = swap(images, classes=classes, per_image=_TESTED, seed=seed)
    rows = Rows.in_memory(swapped.pixels, swapped.labels, model.spec.fit)
    odds = {0.0: log_odds(predict(model, rows).probabilities)}
    features = head_inputs(new, rows)
    for strength, (weight, bias) in layers.items():
        odds[strength] = log_odds(softmax(features @ weight.T + bias, 1))
    codes = np.arange(len(images)) if groups is None else groups
    return _Test(swapped.labels, odds, (codes[swapped.inside], codes[swapped.outside]))


def _seen(
    model: GuidedModel, images: MarkedImages, seed: int, per_image: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features (m, k) and labels (m,) of swapped training images."""
    classes, features, labels = len(model.spec.classes), [], []
    for turn in range(per_image):  # all of them at once may not fit into memory
        swapped = swap(images, classes=classes, per_image=1, seed=1000 * seed + turn + 1)
        features.append(
            head_inputs(model, Rows.in_memory(swapped.pixels, swapped.labels, model.spec.fit))
        )
        labels.append(swapped.labels)
    return np.concatenate(features), np.concatenate(labels)


def head_inputs(model: GuidedModel, rows: Rows) -> NDArray[np.float64]:
    """Features (n, k) that enter the last layer, in evaluation mode.

    They are the mean features over the grid for models with an exact class activation map.

    Raises:
        InputError: The logits are not a linear layer with a bias.
    """
    name, head, entered = model.spec.backbone, model.head, []
    if head.bias is None:
        raise InputError(f"{name}: its last layer has no bias, which a repair trains too")
    handle = head.register_forward_pre_hook(lambda _, given: entered.append(given[0].detach()))
    device, channels_last = model.device, uses_channels_last(model)
    try:
        with evaluating(model), torch.no_grad():
            for number, (_, batch) in enumerate(in_order(rows, PREDICT_BATCH)):
                images = to_device(batch.images, device, channels_last)
                logits = model(model.preprocess(images)).logits
                if not logits.isfinite().all():
                    raise InputError(f"{name}: its logits are not finite; check its weights")
                if len(entered) != number + 1 or not _is_last(head, entered[-1], logits):
                    raise InputError(f"{name}: its logits are not its last layer; nothing to train")
                process.beat()
    finally:
        handle.remove()
    return torch.cat(entered).double().cpu().numpy()


def _is_last(head: nn.Linear, entered: Tensor, logits: Tensor) -> bool:
    """Whether the logits are a linear layer of what enters it."""
    if entered.ndim != 2:
        return False
    own = binary_logits(functional.linear(entered, head.weight, head.bias))
    return bool((own - logits).abs().max() <= IDENTITY_TOLERANCE * logits.abs().max())


def _layers(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> dict[float, Layer]:
    """Last layer for each strength, from strong to weak: each starts from the one before."""
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    standard, layers = (features - mean) / spread, {}
    start: NDArray[np.float64] | None = None
    for strength in _GRID:
        weight, bias = _fitted(standard, labels, classes, strength, start)
        start = np.c_[weight, bias].ravel()
        weight = weight / spread
        layers[strength] = weight, bias - weight @ mean
        process.beat()
    return layers


def _folds(labels: NDArray[np.int64], units: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(n,) fold of each image: those of a unit are in one, and classes are in all alike."""
    _, first, codes = np.unique(units, return_index=True, return_inverse=True)
    order = np.random.default_rng([seed, 6]).permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % _FOLDS
    return fold[codes]


def _of(images: MarkedImages, which: NDArray[np.bool_]) -> MarkedImages:
    return MarkedImages(images.pixels[which], images.masks[which], images.labels[which])
