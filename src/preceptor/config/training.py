"""Training settings: distances, augmentation, recipes, optimizer, schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from preceptor.config.settings import (
    Amount,
    Count,
    Fit,
    Fraction,
    IdentityOf,
    ImageFormat,
    Names,
    NotIdentity,
    Settings,
    Side,
)
from preceptor.utils.process import RUN_THREADS

NormalizedDistance = Literal["l2", "mse", "l1", "kl", "dice"]  # between maps scaled to [0, 1]
EvidenceDistance = Literal["cells", "evidence", "energy", "cosine"]  # of evidence from a mask
DISTANCE_NAMES = Names((*get_args(NormalizedDistance), *get_args(EvidenceDistance)))
Distance = Annotated[str, AfterValidator(DISTANCE_NAMES.check)]
# Guidance methods; `cyborg` with `distance` and `cam_class` is the method of the papers.
GUIDANCE_NAMES = Names(
    (
        *("cyborg", "evidence", "rank", "slack", "gradient", "harmonize", "robust", "latent"),
        *("faithful", "outside", "teach", "head", "saliency_guided", "masktune"),
    )
)


def _guidance_name(name: str) -> str:
    """A name, or a class of one's own as module:Class, see `losses.guidance.guidance_method`."""
    return name if ":" in name else GUIDANCE_NAMES.check(name)


GuidanceName = Annotated[str, AfterValidator(_guidance_name)]
Preset = str | Mapping[str, Any] | None  # published settings by name, or settings
# One distance, or several with their weights.
Distances = Distance | Mapping[Distance, Annotated[float, Field(gt=0)]]
CamClass = Literal["label", "predicted", "decision"]
PoolKind = Literal["mean", "top", "lse"]
Length = Literal["epochs", "steps"]
Steps = Annotated[int, Field(gt=0, le=1_000_000_000)]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
OutsideKind = Literal["none", "noise", "other", "mean"]


def distance_weights(distance: Distances) -> dict[Distance, float]:
    """Weight of each distance of a setting; 1 for a single one."""
    return dict(distance) if isinstance(distance, Mapping) else {distance: 1.0}


def takes_masks(distance: Distances) -> bool:
    """Whether a distance, or one of several, compares evidence with a mask in [0, 1]."""
    return any(name in get_args(EvidenceDistance) for name in distance_weights(distance))


class StudyAugmentation(Settings):
    """Random augmentation of training images; geometric changes apply to the maps as well.

    Args:
        flip: Flip left and right with probability ½.
        quarter_turns: Rotate by 0, 90, 180 or 270 degrees with equal probability.
        crop_area: Smallest area of a random square crop, as a fraction of the canvas; 1 = no crop.
        color: Strength of brightness, contrast and saturation changes; 0 = none.
        outside: Change of half of the images outside their guiding maps, in proportion to 1 − the
            map: none, other (replaced by another training image), mean (by the mean color of the
            image) or noise (added Gaussian noise). Images without a map are not changed. Also in
            runs with `alpha: 1`, which then use maps in input space only; without effect where
            `maps.kind` is none.
    """

    flip: bool = False
    quarter_turns: bool = False
    crop_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    color: Fraction = 0.0
    outside: Annotated[OutsideKind, IdentityOf("outside")] = "none"


class Augmentation(StudyAugmentation):
    """Random augmentation of a run.

    Crop, flip, quarter turns, outside, blur and color, in this order;
    `preceptor.data.augment` has the formulas.

    Args:
        blur: Probability of a Gaussian blur with σ from 0.1 to 2 pixels.
        outside_rate: Probability of the change outside the map for an image with a map.
    """

    blur: Fraction = 0.0
    outside_rate: Annotated[Fraction, IdentityOf("outside")] = 0.5


# Settings of the recipes; settings given in the config have precedence. `cyborg` is the authors'
# released code, `paper` the same with the loss of the papers.
_AUTHORS: dict[str, Any] = {
    "fit": "squash",
    "optimizer": "sgd",
    "lr": 0.005,
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "schedule": "step",
    "length": "epochs",
    "epochs": 50,
    "batch_size": 20,
    "checkpoint": "best_accuracy",
}
RECIPES: dict[str, dict[str, Any]] = {
    "cyborg": _AUTHORS | {"distance": "mse", "cam_class": "predicted", "cam_source": "cyborg"},
    "paper": _AUTHORS | {"distance": "l2", "cam_class": "label"},
}


class StudyTraining(Settings):
    """Training settings of a study, which are the same for all of its runs.

    Args:
        recipe: Published settings, cyborg or paper, for all settings that are not given. cyborg
            takes the CAM from the layers of the authors' code, for its backbone families.
        input_size: Side of the square input in pixels; None = the default of the backbone.
        fit: Method that makes images square: squash (aspect ignored, as in the authors' code),
            letterbox or crop.
        distance: Distance of the guidance term. Between normalized maps: l2 (the paper), mse (the
            authors' code), l1, kl or dice. Of signed evidence from a mask, with cam_class decision:
            cells, evidence, energy or cosine, see `preceptor.losses.distances`. Or several with
            their weights, as in {l2: 0.5, cells: 0.5}.
        cam_class: Map that is guided: that of the label, of the predicted class, or the decision
            map, which is the map of the label's log-odds.
        readout: none, or auto: after the training, the pooling of the model is replaced by the one
            of `preceptor.training.validation` with the highest AUC on the worst validation set.
        optimizer: sgd (with momentum 0.9) or adamw.
        lr: Learning rate.
        weight_decay: Weight decay.
        schedule: Learning rate schedule: constant, step (times 0.1 every 12 epochs), cosine (to
            zero) or one_cycle (linear increase in the first quarter, cosine decrease).
        clip: Maximum gradient norm; None = no clipping.
        balanced: Sample all classes with equal probability.
        frozen: Part of the network that keeps its weights and its statistics: up to and including
            a module, such as blocks.4, or a share in (0, 1) of its layers, see
            `preceptor.models.frozen.freeze`. Its features are computed once and cached, unless
            images are changed otherwise than by flips. Needs `weights`. None = nothing.
        epochs: Number of passes over the training rows; with `steps`, the number of equal periods,
            after each of which the validation sets are scored.
        steps: Number of optimizer steps, so that all runs see the same number of images; None = as
            many as the epochs have. Several, as in [300, 900, 2000]: every run is trained with
            each, and validation selects the length together with α. Teachers have the largest.
        batch_size: Number of images per step.
        checkpoint: Selected epoch: best_accuracy, best_auc (on the worst validation set; ties go to
            the later epoch) or last.
        precision: Precision of training steps and of the validation after each epoch: 32-true,
            bf16-mixed or 16-mixed (GPU). Thresholds and the final scores of validation and test
            sets are computed in 32-true.
        threads: Number of CPU threads of a run; part of the id, since it changes rounding.
        augmentation: Random augmentation of training images.
    """

    recipe: Annotated[Literal["cyborg", "paper"] | None, NotIdentity()] = None
    input_size: Side | None = None
    fit: Fit = "squash"
    distance: Annotated[Distances, IdentityOf("guidance")] = "l2"
    cam_class: Annotated[CamClass, IdentityOf("cam class")] = "label"
    readout: Literal["none", "auto"] = "none"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.005
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    clip: Annotated[float, Field(gt=0)] | None = None
    balanced: bool = False
    frozen: Annotated[float, Field(gt=0, lt=1)] | Annotated[str, Field(min_length=1)] | None = None
    epochs: Count = 50
    steps: Steps | Annotated[tuple[Steps, ...], Field(min_length=2)] | None = None
    batch_size: Count = 20
    checkpoint: Literal["best_accuracy", "best_auc", "last"] = "best_accuracy"
    precision: Precision = "32-true"
    threads: Annotated[int, Field(gt=0, le=1024)] = RUN_THREADS
    augmentation: StudyAugmentation = StudyAugmentation()

    def of_run(self) -> Training:
        """Training settings of a run."""
        if isinstance(self, Training):
            return self
        values = self.model_dump() | {"length": "epochs" if self.steps is None else "steps"}
        values["steps"] = self.lengths[-1] or None
        source = {"cam_source": "cyborg"} if self.recipe == "cyborg" else {}
        return Training.model_validate(values | source)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of steps of the runs, in increasing order; (0,) = as many as the epochs have."""
        several = self.steps if isinstance(self.steps, tuple) else (self.steps or 0,)
        return tuple(sorted(several))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        recipe = values.get("recipe") if isinstance(values, dict) else None
        if not isinstance(recipe, str) or recipe not in RECIPES:
            return values
        own = {name: value for name, value in RECIPES[recipe].items() if name in cls.model_fields}
        return own | values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps is not None and self.lengths[0] < self.epochs:
            raise ValueError(
                f"steps is {self.lengths[0]}, fewer than the {self.epochs} periods (epochs); "
                "lower epochs or raise steps"
            )
        names = distance_weights(self.distance)
        if not names:
            raise ValueError("distance is empty; name at least one, such as l2")
        wrong = [name for name in names if name in get_args(EvidenceDistance)]
        if wrong and self.cam_class != "decision":
            raise ValueError(
                f"distance {wrong[0]} takes the decision map, and cam_class is {self.cam_class}; "
                "set cam_class: decision"
            )
        return self


class Training(StudyTraining):
    """Training settings of a run.

    Args:
        in_chans: Number of input channels: 3 (color) or 1 (grayscale).
        device: auto, cpu or cuda.
        method: Guidance method, see `preceptor.guidance_method`; cyborg without `preset` = the
            distance `distance` of the map `cam_class`.
        preset: Published settings of the method by name, or settings, as in
            {preset: ross, scalar: ce, weight: published}.
        mark_weight: Additional weight of a marked cell in the distance cells.
        cell_full: Share of a cell that a human map must cover to count as 1 in distances of
            evidence; less counts in proportion. 1 = the share itself.
        cam_source: Features of the CAM: head_input (input of the head), or cyborg (the layers of
            the authors' code, for its backbone families).
        head: softmax (one logit per class) or sigmoid (one logit for two classes).
        pool: Pooling of the CAMs to logits: mean (as in the backbone itself), top (mean of the
            highest cells) or lse (log-sum-exp).
        pool_top: Highest cells of `top`: a share of all cells, or a number.
        momentum: Momentum of SGD (unused by adamw).
        length: Unit of the training length: epochs, or with `steps` steps.
        channels_last: Whether images and convolutions are channels-last in memory.
        cache: Image cache: memmap (decoded, resized images, filled once) or none (decode on the
            fly).
        augmentation: Random augmentation of training images.
    """

    steps: Steps | None = None
    in_chans: Literal[1, 3] = 3
    device: Annotated[Literal["auto", "cpu", "cuda"], NotIdentity()] = "auto"
    method: Annotated[GuidanceName, IdentityOf("guidance")] = "cyborg"
    preset: Annotated[Preset, IdentityOf("guidance")] = None
    mark_weight: Annotated[float, Field(ge=0), IdentityOf("guidance")] = 9.0
    cell_full: Annotated[float, Field(gt=0, le=1), IdentityOf("guidance")] = 0.25
    cam_source: Literal["head_input", "cyborg"] = "head_input"
    head: Literal["softmax", "sigmoid"] = "softmax"
    pool: PoolKind = "mean"
    pool_top: Amount = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    length: Length = "epochs"
    channels_last: bool = True
    cache: Annotated[Literal["memmap", "none"], NotIdentity()] = "memmap"
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="before")
    @classmethod
    def _length_of_steps(cls, values: Any) -> Any:
        given = isinstance(values, dict) and values.get("steps") is not None
        return {"length": "steps"} | values if given else values

    @property
    def by_method(self) -> bool:
        """Whether a guidance method computes the loss, and not a distance of maps."""
        return self.method != "cyborg" or self.preset is not None

    @property
    def takes_maps(self) -> bool:
        """Whether the guidance takes human maps, or those of a Teacher."""
        return self.method not in ("saliency_guided", "masktune")

    def of_mapper(self) -> Training:
        """Training settings of a mapper: a logistic loss for each cell, without class labels."""
        changes = {
            "recipe": None,
            "method": "cyborg",
            "preset": None,
            "distance": "cells",
            "cam_class": "decision",
            "head": "sigmoid",
            "cam_source": "head_input",
            "pool": "top",
            "readout": "none",
            "balanced": True,
            "checkpoint": "last",
            "augmentation": self.augmentation.model_copy(update={"outside": "none"}),
        }
        return self.model_copy(update=changes)

    def image_format(self, input_size: int) -> ImageFormat:
        """Format of training images of a model whose input has this side in pixels.

        For random crops the canvas is larger, at most twice: the smallest crop fills the input.
        """
        canvas = None
        if self.augmentation.crop_area < 1:
            side = math.ceil(input_size / math.sqrt(self.augmentation.crop_area))
            canvas = min(2 * input_size, side)
        return ImageFormat(input_size, self.fit, self.in_chans, canvas)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.length == "steps" and self.steps is None:
            raise ValueError("length is steps, and steps is not given; add a line `steps: …`")
        if self.steps is not None and self.length == "epochs":
            raise ValueError("steps is given, and length is epochs; set length: steps")
        if self.method == "teach":
            raise ValueError(
                "method teach takes the output of a Teacher for every batch, which a run does not "
                "have; use guidance_method in a training loop, or choose another method"
            )
        if self.by_method and self.distance != "l2":
            raise ValueError(
                f"distance is {self.distance}, and the method {self.method} with its preset "
                "computes the loss; set distance: l2"
            )
        if isinstance(self.preset, Mapping) and "name" in self.preset:
            raise ValueError("preset has settings of the method, and name is none; use method")
        preset = self.preset if isinstance(self.preset, Mapping) else {}
        masks = takes_masks(self.distance) or takes_masks(preset.get("distance", "l2"))
        abn = "abn" in (self.preset, preset.get("preset"), preset.get("kind"))
        masks |= self.method == "evidence" or abn
        if self.cam_source == "cyborg" and masks:
            raise ValueError(
                "the loss takes maps that add up to the logits, and those of the recipe cyborg "
                "do not; choose a distance between normalized maps"
            )
        if self.precision == "16-mixed" and self.device == "cpu":
            raise ValueError(
                "precision is 16-mixed, which device cpu does not support; set precision to "
                "bf16-mixed or 32-true"
            )
        return self
