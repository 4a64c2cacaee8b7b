"""Config of a run; the config of a study is in `study.config`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from preceptor.config.identity import IdentityOf, NotIdentity, Use
from preceptor.config.image_format import Fit, ImageFormat
from preceptor.config.paths import ConfigPath, Weights

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
# Upper bounds, so that a typing error does not exhaust memory or give an endless plan.
Few = Annotated[int, Field(gt=0, le=100)]
Side = Annotated[int, Field(gt=0, le=8192)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Amount = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, le=1)]
Length = Literal["epochs", "steps"]
Method = Literal["cam", "rise", "cells"]  # ways of making maps with a trained model
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Trust = Literal["none", "score", "agreement", "entropy"]
PCA_COMPONENTS = 5  # default number of principal components of maps without people
OutsideKind = Literal["none", "blur", "noise", "shuffle", "other", "mean"]
NormalizedDistance = Literal["l2", "mse", "l1", "kl", "dice"]  # between maps scaled to [0, 1]
EvidenceDistance = Literal["cells", "evidence", "energy", "cosine"]  # of evidence from a mask
Distance = NormalizedDistance | EvidenceDistance
# One distance, or several with their weights.
Distances = Distance | Mapping[Distance, Annotated[float, Field(gt=0)]]
CamClass = Literal["label", "predicted", "decision"]
PoolKind = Literal["mean", "top", "lse"]


def distance_weights(distance: Distances) -> dict[Distance, float]:
    """Weight of each distance of a setting; 1 for a single one."""
    return dict(distance) if isinstance(distance, Mapping) else {distance: 1.0}


def takes_masks(distance: Distances) -> bool:
    """Whether a distance, or one of several, compares evidence with a mask in [0, 1]."""
    return any(name in get_args(EvidenceDistance) for name in distance_weights(distance))


class Settings(BaseModel):
    """Base class of frozen configs; unknown keys, and booleans as numbers, are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans as numbers: Python converts `batch_size: true` (or `yes`) to 1."""
        assert info.field_name is not None
        kinds = set(plain_types(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and bool not in kinds and _holds_truth_value(value):
            raise PydanticCustomError("number_type", "a number is expected")
        return value


def plain_types(annotation: Any) -> Iterator[type]:
    """Plain types in an annotation, including those in unions, lists and literals."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield type(part)
        else:
            yield from plain_types(part)


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_truth_value, value))
    return isinstance(value, bool)


# Strength of each change outside maps, if none is given; the others have no strength.
_OUTSIDE_AMOUNTS: dict[OutsideKind, float] = {"blur": 0.05, "noise": 0.25, "shuffle": 1 / 16}


class Augmentation(Settings):
    """Random augmentation of training images; geometric changes apply to the maps as well.

    Crop, flip, quarter turns, outside, blur, color and JPEG, in this order;
    `preceptor.data.augment` and `preceptor.data.outside` have the formulas.

    Args:
        flip: Flip left and right with probability ½.
        quarter_turns: Rotate by 0, 90, 180 or 270 degrees with equal probability.
        crop_area: Smallest area of a random square crop, as a fraction of the canvas; 1 = no crop.
        color: Strength of brightness, contrast and saturation changes; 0 = none.
        blur: Probability of a Gaussian blur with σ from 0.1 to 2 pixels.
        jpeg: Probability of a JPEG recompression with quality from 30 to 95; the lossy part of the
            codec only.
        outside: Change of the image outside its guiding map, in proportion to 1 − the map: none,
            blur, noise (added Gaussian noise), shuffle (square tiles outside the map are permuted),
            other (replaced by another training image) or mean (by the mean color of the image).
            Images without a map are not changed. Also in runs with `alpha: 1`, which then use maps
            in input space only; without effect where `maps.kind` is none.
        outside_rate: Probability of this change for an image with a map.
        outside_strength: Standard deviation of blur as a fraction of the image's side (default
            0.05) or of noise as a fraction of the range of levels (0.25), or side of the tiles of
            shuffle as a fraction of the image's side, 1/64 to 1/2 (1/16).
    """

    flip: bool = False
    quarter_turns: bool = False
    crop_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    color: Fraction = 0.0
    blur: Fraction = 0.0
    jpeg: Fraction = 0.0
    outside: Annotated[OutsideKind, IdentityOf("outside")] = "none"
    outside_rate: Annotated[Fraction, IdentityOf("outside")] = 0.5
    outside_strength: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None, IdentityOf("outside")
    ] = None

    @property
    def outside_amount(self) -> float:
        """Strength of the change outside maps; 0 for kinds without one."""
        return self.outside_strength or _OUTSIDE_AMOUNTS.get(self.outside, 0.0)

    @model_validator(mode="after")
    def _strength_of_something(self) -> Augmentation:
        strength = self.outside_strength
        if strength is not None and self.outside not in _OUTSIDE_AMOUNTS:
            raise ValueError(
                f"outside_strength is {strength:g}, and outside is {self.outside}, which has no "
                f"strength; remove it, or set outside to {', '.join(_OUTSIDE_AMOUNTS)}"
            )
        if strength is not None and self.outside == "shuffle" and not 1 / 64 <= strength <= 1 / 2:
            raise ValueError(
                f"outside_strength is {strength:g}, and the tiles of outside: shuffle have 1/64 to "
                "1/2 of the image's side; set a value in this range"
            )
        return self

    @property
    def photometric(self) -> bool:
        """Whether any augmentation changes pixel values."""
        return bool(self.color or self.blur or self.jpeg)


# Settings of the recipes; settings given in the config have precedence. `cyborg` is the authors'
# released code, `paper` the same with the loss of the papers.
_AUTHORS: dict[str, Any] = {
    "fit": "squash",
    "optimizer": "sgd",
    "lr": 0.005,
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "schedule": "step",
    "step_epochs": 12,
    "step_factor": 0.1,
    "length": "epochs",
    "epochs": 50,
    "batch_size": 20,
    "checkpoint": "best_accuracy",
}
RECIPES: dict[str, dict[str, Any]] = {
    "cyborg": _AUTHORS | {"distance": "mse", "cam_class": "predicted", "cam_source": "cyborg"},
    "paper": _AUTHORS | {"distance": "l2", "cam_class": "label"},
}


class Speed(Settings):
    """Precision, memory layout and compilation, which change speed and rounding.

    Args:
        precision: Precision of the forward and backward pass.
        channels_last: Whether images and convolutions are channels-last in memory.
        compile: Whether the trunk is compiled with torch.compile in training.
    """

    precision: Precision = "32-true"
    channels_last: bool = True
    compile: bool = False

    @property
    def words(self) -> str:
        """Description for messages."""
        layout = "channels-last" if self.channels_last else "channels-first"
        return f"{self.precision}, {layout}{', compiled' if self.compile else ''}"


class Training(Settings):
    """Training settings, which are the same for all runs of a study.

    Args:
        recipe: Published settings, cyborg or paper, for all settings that are not given.
        input_size: Side of the square input in pixels; None = the default of the backbone.
        fit: Method that makes images square: squash (aspect ignored, as in the authors' code),
            letterbox or crop.
        in_chans: Number of input channels: 3 (color) or 1 (grayscale).
        distance: Distance of the guidance term. Between normalized maps: l2 (the paper), mse (the
            authors' code), l1, kl or dice. Of signed evidence from a mask, with cam_class decision:
            cells, evidence, energy or cosine, see `preceptor.losses.evidence`. Or several with
            their weights, as in {l2: 0.5, cells: 0.5}.
        mark_weight: Additional weight of a marked cell in the distance cells.
        cell_full: Share of a cell that a human map must cover to count as 1 in distances of
            evidence; less counts in proportion. 1 = the share itself.
        cam_class: Map that is guided: that of the label, of the predicted class, or the decision
            map, which is the map of the label's log-odds.
        cam_source: Features of the CAM: head_input (input of the head), or cyborg (the layers of
            the authors' code, for its backbone families).
        head: softmax (one logit per class) or sigmoid (one logit for two classes).
        pool: Pooling of the CAMs to logits: mean (as in the backbone itself), top (mean of the
            highest cells) or lse (log-sum-exp).
        pool_top: Highest cells of `top`: a share of all cells, or a number.
        pool_sharpness: Sharpness r of `lse`.
        readout: none, or auto: after the training, the pooling of the model is replaced by the one
            of `preceptor.models.readout` with the highest AUC on the worst validation set.
        optimizer: sgd or adamw.
        lr: Learning rate.
        momentum: Momentum of SGD (unused by adamw).
        weight_decay: Weight decay.
        schedule: Learning rate schedule: constant, step (times step_factor every step_epochs),
            cosine (to zero) or one_cycle (linear increase during warmup, cosine decrease).
        step_epochs: Number of epochs between the steps of schedule step.
        step_factor: Factor of each step of schedule step.
        warmup: Share of the steps of one_cycle in which the learning rate increases.
        clip: Maximum gradient norm; None = no clipping.
        balanced: Sample all classes with equal probability.
        length: Unit of the training length: epochs or steps. With steps, all runs see the same
            number of images.
        epochs: Number of passes over the training rows; with `length: steps`, the number of equal
            periods, after each of which the validation sets are scored.
        steps: Number of optimizer steps, with `length: steps`.
        batch_size: Number of images per step.
        checkpoint: Selected epoch: best_accuracy, best_auc (on the worst validation set; ties go to
            the later epoch) or last.
        precision: Precision of training steps and of the validation after each epoch: 32-true,
            bf16-mixed or 16-mixed (GPU); in a study also auto (chosen by a probe). Thresholds and
            the final scores of validation and test sets are computed in 32-true.
        channels_last: Whether images and convolutions are channels-last; auto as for precision.
        compile: Whether the trunk is compiled with torch.compile; auto as for precision.
        threads: Number of CPU threads of each process of a run; part of the id, since it changes
            rounding.
        device: auto, cpu or cuda.
        devices: Number of devices of one run on each node, one process each; more than one only in
            runs started with `python -m preceptor.training CONFIG`.
        nodes: Number of machines of one run; the command is started on each.
        cache: Image cache: memmap (decoded, resized images, filled once) or none (decode on the
            fly).
        augmentation: Random augmentation of training images.
        consistency: Weight λ ≥ 0 of the divergence of the predictions for an image with and without
            its change outside the map, see `preceptor.losses.consistency`; needs
            `augmentation.outside`. A step then has a second forward pass.
    """

    recipe: Annotated[Literal["cyborg", "paper"] | None, NotIdentity()] = None
    input_size: Side | None = None
    fit: Fit = "squash"
    in_chans: Literal[1, 3] = 3
    distance: Annotated[Distances, IdentityOf("guidance")] = "l2"
    mark_weight: Annotated[float, Field(ge=0), IdentityOf("guidance")] = 9.0
    cell_full: Annotated[float, Field(gt=0, le=1), IdentityOf("guidance")] = 0.25
    cam_class: Annotated[CamClass, IdentityOf("guidance")] = "label"
    cam_source: Literal["head_input", "cyborg"] = "head_input"
    head: Literal["softmax", "sigmoid"] = "softmax"
    pool: PoolKind = "mean"
    pool_top: Amount = 0.1
    pool_sharpness: Annotated[float, Field(gt=0)] = 4.0
    readout: Literal["none", "auto"] = "none"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    step_epochs: Positive = 12
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.25
    clip: Annotated[float, Field(gt=0)] | None = None
    balanced: bool = False
    length: Length = "epochs"
    epochs: Count = 50
    steps: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = None
    batch_size: Count = 20
    checkpoint: Literal["best_accuracy", "best_auc", "last"] = "best_accuracy"
    precision: Precision | Literal["auto"] = "32-true"
    channels_last: bool | Literal["auto"] = True
    compile: bool | Literal["auto"] = False
    threads: Annotated[int, Field(gt=0, le=1024)] = 1
    device: Annotated[Literal["auto", "cpu", "cuda"], NotIdentity()] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    cache: Annotated[Literal["memmap", "none"], NotIdentity()] = "memmap"
    augmentation: Augmentation = Augmentation()
    consistency: Annotated[float, Field(ge=0), IdentityOf("outside")] = 0.0

    def image_format(self, input_size: int) -> ImageFormat:
        """Format of training images.

        Args:
            input_size: Side of the model's input in pixels. For random crops, the canvas is larger,
                so that the smallest crop has the resolution of the input; at most twice its side.
        """
        canvas = None
        if self.augmentation.crop_area < 1:
            canvas = math.ceil(input_size / math.sqrt(self.augmentation.crop_area))
            canvas = min(2 * input_size, canvas)
        return ImageFormat(input_size, self.fit, self.in_chans, canvas)

    @property
    def processes(self) -> int:
        """Number of processes of one run, on all nodes together."""
        return self.devices * self.nodes

    @property
    def left_to_probe(self) -> tuple[str, ...]:
        """Names of the settings among precision, channels_last and compile that are auto."""
        return tuple(name for name in Speed.model_fields if getattr(self, name) == "auto")

    def without_auto(self) -> Training:
        """Copy with the defaults of `Speed` for settings that are auto."""
        plain = {name: getattr(Speed(), name) for name in self.left_to_probe}
        return self.model_copy(update=plain)

    @property
    def speed(self) -> Speed:
        """Precision, memory layout and compilation, if none of them is auto."""
        return Speed.model_validate({name: getattr(self, name) for name in Speed.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        recipe = values.get("recipe") if isinstance(values, dict) else None
        return RECIPES[recipe] | values if isinstance(recipe, str) and recipe in RECIPES else values

    @model_validator(mode="after")
    def _steps_given(self) -> Training:
        if self.length == "steps" and self.steps is None:
            raise ValueError("length is steps, and steps is not given; add a line `steps: …`")
        if self.steps is not None and self.length == "epochs":
            raise ValueError("steps is given, and length is epochs; set length: steps")
        if self.steps is not None and self.steps < self.epochs:
            raise ValueError(
                f"steps is {self.steps}, fewer than the {self.epochs} periods (epochs); "
                "lower epochs or raise steps"
            )
        return self

    @model_validator(mode="after")
    def _decision_map_of_evidence(self) -> Training:
        names = distance_weights(self.distance)
        if not names:
            raise ValueError("distance is empty; name at least one, such as l2")
        wrong = [name for name in names if name in get_args(EvidenceDistance)]
        if wrong and self.cam_class != "decision":
            raise ValueError(
                f"distance {wrong[0]} takes the decision map, and cam_class is {self.cam_class}; "
                "set cam_class: decision"
            )
        if wrong and self.cam_source == "cyborg":
            raise ValueError(
                f"distance {wrong[0]} takes maps that add up to the logits, and those of "
                "cam_source: cyborg do not; set cam_source: head_input"
            )
        return self

    @model_validator(mode="after")
    def _consistency_of_two_images(self) -> Training:
        if self.consistency and self.augmentation.outside == "none":
            raise ValueError(
                f"consistency is {self.consistency:g}, and augmentation.outside is none: there are "
                "no two versions of an image; set outside, or remove consistency"
            )
        return self

    @model_validator(mode="after")
    def _half_precision_on_a_gpu(self) -> Training:
        if self.precision == "16-mixed" and self.device == "cpu":
            raise ValueError(
                "precision is 16-mixed, which device cpu does not support; set precision to "
                "bf16-mixed or 32-true"
            )
        return self

    @model_validator(mode="after")
    def _an_image_each(self) -> Training:
        if self.batch_size < self.processes:
            raise ValueError(
                f"batch_size is {self.batch_size}, fewer than the {self.processes} devices that "
                "share a batch; raise batch_size or lower devices"
            )
        return self


class MapSource(Settings):
    """Source of the maps that guide a run.

    Args:
        kind: none, human, store (a Teacher's map store or a folder of map images), centre (one
            centred Gaussian for all images) or pca (from the principal components of the training
            images, see `preceptor.maps.principal_components`).
        path: Map store or folder, for kind store.
        identity: Identity of the maps in the run's id instead of the path: the id of the step that
            makes them. None = the content of the files.
        shuffle_seed: Seed of a permutation of the maps within each class (a control), for kinds
            store and human; None = no permutation.
        human: Treatment of human maps of annotated images: replace (by the map of the store) or
            keep.
        trust: Factors of the map weights: none, score (the Teacher's score for the image's label),
            agreement (of the members of a committee) or entropy (larger for concentrated maps). The
            factors have mean 1 over the images guided by the store, so that the meaning of α is
            unchanged.
        marks: Whether the maps of a store show where a person would mark, as those of a mapper do,
            and not the evidence for the class of each image. For classes without human maps, such a
            map shows where the evidence for the class does not lie.
        components: Number of principal components, for kind pca.
    """

    kind: Literal["none", "human", "store", "centre", "pca"] = "human"
    path: Annotated[ConfigPath | None, NotIdentity()] = None
    identity: str | None = None
    shuffle_seed: Annotated[int, Field(ge=0)] | None = None
    human: Literal["replace", "keep"] = "replace"
    trust: Trust = "none"
    marks: bool = False
    components: Few = PCA_COMPONENTS

    @model_validator(mode="after")
    def _path_given(self) -> MapSource:
        if self.kind == "store" and self.path is None:
            raise ValueError("kind is store, and path is not given; name the folder of the maps")
        if self.kind not in ("store", "human") and self.shuffle_seed is not None:
            raise ValueError(
                f"shuffle_seed permutes the maps of a store or of people, and kind is {self.kind}; "
                "remove it"
            )
        if self.kind != "store" and self.trust != "none":
            raise ValueError(
                f"trust weighs the maps of a store, and kind is {self.kind}; remove it"
            )
        if self.kind != "pca" and self.components != PCA_COMPONENTS:
            raise ValueError(
                f"components counts principal components, and kind is {self.kind}; remove it"
            )
        return self


class PostProcessing(Settings):
    """Post-processing of guiding maps on the model's grid, before they are normalized again.

    The operations are applied in the order of the fields: blur, power, threshold, dilate, shape.
    They set the granularity of maps (Crum, Webster, Czajka, "Grains of Saliency: Optimizing
    Saliency-based Training of Biometric Attack Detection Models", IJCB 2024).

    Args:
        blur: Standard deviation of a Gaussian blur, as a fraction of the map's side; 0 = none.
        power: Exponent of every value in [0, 1]: above 1 sharpens, below 1 flattens.
        threshold: Values below this are set to 0.
        dilate: Extent of a maximum filter in each direction, as a fraction of the map's side,
            rounded to whole cells, at least one; 0 = none.
        shape: map (unchanged), box (1 in the bounding box of the cells above 0, else 0) or hull (1
            where the center of a cell lies in the convex hull of their centers, else 0). box and
            hull need a threshold.
    """

    blur: Annotated[float, Field(ge=0, le=1)] = 0.0
    power: Annotated[float, Field(gt=0)] = 1.0
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dilate: Annotated[float, Field(ge=0, le=1)] = 0.0
    shape: Literal["map", "box", "hull"] = "map"

    @model_validator(mode="after")
    def _shape_of_something(self) -> PostProcessing:
        if self.shape != "map" and self.threshold == 0:
            raise ValueError(
                f"shape is {self.shape}, and threshold is 0: nearly every cell of a smooth map is "
                f"above 0, and the {self.shape} would be the whole map; set threshold, such as 0.5"
            )
        return self


class RiseSettings(Settings):
    """Settings of RISE, see `preceptor.saliency.rise.rise`.

    Args:
        max_masks: Maximum number of model evaluations per image.
        tolerance: An image is finished when the estimated correlation of its map with the limit for
            infinitely many masks is 1 − tolerance; maps that do not reach it have map weight 0.
        estimator: default (balanced masks), or published.
        score: probability, or logit (log-odds of the class).
        fill: Value of masked pixels: a number in input space (0 = mean color), mean (the mean color
            of the image), or blur (the blurred image).
        cells: Number of cells per side of a mask.
        seed: Random seed of the masks.
    """

    max_masks: Annotated[int, Field(ge=2, le=10_000_000)] = 8000
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    estimator: Literal["default", "published"] = "default"
    score: Literal["probability", "logit"] = "probability"
    fill: float | Literal["mean", "blur"] = 0.0
    cells: Annotated[int, Field(ge=2, le=256)] = 7
    seed: Annotated[int, Field(ge=0)] = 0


class SoftLabels(Settings):
    """Soft labels: a Teacher's class probabilities as additional targets (distillation).

    The classification term is (1 − weight) · CE(y) + weight · T² · CE(teacher^(1/T)), the second
    with temperature T on both sides (Hinton, Vinyals, Dean, 2015). Images that are not in the store
    have the plain term.

    Args:
        path: Map store of the Teacher with its probabilities.
        identity: Identity of the store in the run's id; None = the content of the files.
        weight: Weight of the soft term.
        temperature: Temperature T; above 1 softens.
    """

    path: Annotated[ConfigPath, NotIdentity()]
    identity: str | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 2.0


class RunConfig(Settings):
    """Config of a run: one training of one model with one seed.

    Args:
        manifest: Path of the manifest.
        backbone: Name of a timm backbone.
        weights: Initial weights: hub, none or a .safetensors file.
        backbone_args: Further arguments of the backbone.
        positive: Class whose probability is the score; required for two classes.
        rows: Training images: all, or annotated.
        annotated: Number or fraction of the annotated images whose annotation is used; None = all.
            The human maps of the others are not used.
        annotated_seed: Random seed of the subset of annotated images.
        maps: Source of the guiding maps.
        guide_classes: Classes whose maps are used; None = all.
        alpha: α in [0, 1]; 1 is plain cross-entropy, without a guidance term. auto = the α of each
            batch follows its losses, see `losses.guided.balanced_alpha`.
        labels: Labels of the training: class (of the image), or marks (the positive class for
            images with a human map, the other for examined images without one, whatever their
            class), for a model that learns the maps alone.
        alpha_start: α of the first step, which changes linearly to `alpha` at the last step
            (saliency first, labels later); None = constant `alpha`.
        post: Post-processing of guiding maps other than human maps.
        human_post: Post-processing of human maps that guide.
        soft_labels: Soft labels of a Teacher; None = none.
        validation_negatives: Validation set whose images are used for the classes that another
            validation set lacks when its AUC is computed (a held-out attack type has no negatives).
            None = such sets have no AUC.
        seed: Random seed of weights, order and augmentation.
        training: Training settings.
    """

    manifest: Annotated[ConfigPath, NotIdentity()]
    backbone: str
    weights: Annotated[Weights, NotIdentity()] = "none"
    backbone_args: Mapping[str, Any] = {}
    positive: str | None = None
    rows: Literal["all", "annotated"] = "all"
    annotated: Annotated[Amount | None, NotIdentity()] = None
    annotated_seed: Annotated[int, Field(ge=0), NotIdentity()] = 0
    maps: Annotated[MapSource, IdentityOf("maps")] = MapSource()
    guide_classes: Annotated[tuple[str, ...] | None, IdentityOf("maps")] = None
    alpha: Annotated[Fraction | Literal["auto"], IdentityOf("guidance")] = 0.5
    labels: Literal["class", "marks"] = "class"
    alpha_start: Annotated[Fraction | None, IdentityOf("guidance")] = None
    post: Annotated[PostProcessing, IdentityOf("other maps")] = PostProcessing()
    human_post: Annotated[PostProcessing, IdentityOf("human maps")] = PostProcessing()
    soft_labels: SoftLabels | None = None
    validation_negatives: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    training: Training = Training()

    @model_validator(mode="after")
    def _marks_of_maps(self) -> RunConfig:
        if self.labels == "marks" and self.maps.kind != "human":
            raise ValueError(
                f"labels: marks are those of human maps, and maps.kind is {self.maps.kind}; set it "
                "to human"
            )
        if self.labels == "marks" and not takes_masks(self.training.distance):
            raise ValueError("labels is marks, and distance takes no masks; set distance: cells")
        return self

    @model_validator(mode="after")
    def _alpha_of_one_kind(self) -> RunConfig:
        if self.alpha == "auto" and self.alpha_start is not None:
            raise ValueError("alpha is auto, which has no schedule; remove alpha_start")
        if self.alpha == "auto" and self.training.processes > 1:
            raise ValueError(
                "alpha is auto, which is possible on one device only; set a number, or devices: 1"
            )
        return self

    @model_validator(mode="after")
    def _decided(self) -> RunConfig:
        for name in self.training.left_to_probe:
            raise ValueError(
                f"training.{name} is auto, which is possible in studies only; set a value"
            )
        return self

    @property
    def guided(self) -> bool:
        """Whether the loss has a guidance term."""
        if self.maps.kind == "none":
            return False
        if self.alpha == "auto":
            return True
        start = self.alpha if self.alpha_start is None else self.alpha_start
        return min(self.alpha, start) < 1

    @property
    def guided_map(self) -> Literal["label", "decision", "cells"]:
        """Maps of the trained model that are comparable with those that guide it.

        The label's for a run without guidance, and for one that guides the predicted class.
        """
        if self.labels == "marks":
            return "cells"
        decision = self.guided and self.training.cam_class == "decision"
        return "decision" if decision else "label"

    @property
    def guided_by_masks(self) -> bool:
        """Whether a guidance term compares evidence with masks; maps are then masks everywhere."""
        return self.guided and takes_masks(self.training.distance)

    @property
    def changes_outside(self) -> bool:
        """Whether images are changed outside their maps."""
        changes = self.training.augmentation
        return self.maps.kind != "none" and changes.outside != "none" and changes.outside_rate > 0

    @property
    def consistency(self) -> float:
        """Weight of the consistency of predictions in this run."""
        return self.training.consistency if self.changes_outside else 0.0

    @property
    def uses_maps(self) -> bool:
        """Whether maps are used, in the loss or in input space."""
        return self.guided or self.changes_outside

    @property
    def uses(self) -> tuple[Use, ...]:
        """Uses of the settings in this run."""
        if not self.uses_maps:
            return ()
        found: list[Use] = ["maps"]
        if self.guided:
            found.append("guidance")
        if self.changes_outside:
            found.append("outside")
        if self.maps.kind == "human" or self.maps.human == "keep":
            found.append("human maps")
        if self.maps.kind != "human":
            found.append("other maps")
        return tuple(found)
