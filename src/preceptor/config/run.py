"""Every setting of a run, frozen and checked; those of a study are in `study.config`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from preceptor.config.image_format import Fit, ImageFormat

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
# Where a typing error would ask for more memory than there is, or a plan without end.
Few = Annotated[int, Field(gt=0, le=100)]
Side = Annotated[int, Field(gt=0, le=8192)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Amount = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, le=1)]
Length = Literal["epochs", "steps"]
Method = Literal["cam", "rise"]  # how a Teacher marks
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Trust = Literal["none", "score", "agreement", "entropy"]
Distance = Literal["l2", "mse", "l1", "kl", "dice"]


class Settings(BaseModel):
    """A frozen group of settings; unknown words and truth values as numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes True for 1, which `batch_size: true` or `yes` does not mean."""
        assert info.field_name is not None
        kinds = set(plain_types(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and bool not in kinds and _holds_truth_value(value):
            raise PydanticCustomError("number_type", "a number is expected")
        return value


def plain_types(annotation: Any) -> Iterator[type]:
    """The plain types that an annotation is made of, in unions, lists and literals too."""
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


class Augmentation(Settings):
    """Random changes of training images; geometry moves the map with the image.

    Crop, flip, quarter turns, blur, colour and JPEG, in this order; `preceptor.data.augment` has
    the formulas.

    Args:
        flip: Mirror left and right, half of the time.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees, equally often.
        crop_area: Smallest share of the canvas that a random square crop shows; 1 = no crop.
        colour: Strength of brightness, contrast and saturation changes; 0 = none.
        blur: Chance of a Gaussian blur of σ 0.1 to 2 pixels.
        jpeg: Chance of a JPEG recompression at quality 30 to 95: the lossy part of the codec.
    """

    flip: bool = False
    quarter_turns: bool = False
    crop_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    colour: Fraction = 0.0
    blur: Fraction = 0.0
    jpeg: Fraction = 0.0

    @property
    def photometric(self) -> bool:
        """Whether anything but the geometry changes."""
        return bool(self.colour or self.blur or self.jpeg)


# What a recipe sets; whatever the config says itself wins. `cyborg` is the authors' released
# code, `paper` the same with the loss as the papers print it.
_AUTHORS: dict[str, Any] = {
    "fit": "squash",
    "optimiser": "sgd",
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
    """What makes a training step faster and changes its rounding.

    Args:
        precision: Of the forward and backward pass.
        channels_last: Memory layout of images and convolutions.
        compile: Whether torch.compile has the trunk in training.
    """

    precision: Precision = "32-true"
    channels_last: bool = True
    compile: bool = False

    @property
    def words(self) -> str:
        """For people."""
        layout = "channels-last" if self.channels_last else "channels-first"
        return f"{self.precision}, {layout}{', compiled' if self.compile else ''}"


class Training(Settings):
    """How a model is trained: everything that is the same for all runs of a study.

    Args:
        recipe: cyborg or paper: sets what is not set here.
        input_size: Side of the square input; None = the backbone's own.
        fit: squash (aspect ignored, as the authors do), letterbox or crop.
        in_chans: 3 (colour) or 1 (grey).
        distance: Between normalised maps: l2 (the paper), mse (the authors' code), l1, kl or dice.
        cam_class: The class whose map is guided: the label's, or the predicted one.
        cam_source: What the map is made of: head_input, the features that the head sees, or cyborg,
            those that the authors' released code takes, on the families it knows.
        head: softmax (a logit a class) or sigmoid (one logit for two classes).
        optimiser: sgd or adamw.
        lr, momentum, weight_decay: Of the optimiser; momentum of SGD alone.
        schedule: constant, step (times step_factor every step_epochs), cosine (to zero) or
            one_cycle (linear up over warmup, cosine down).
        warmup: Share of the steps of one_cycle that rise.
        clip: Largest gradient norm; None = no clipping.
        balanced: Draw every class equally often.
        length: Whether `epochs` or `steps` say how long; in steps every run sees the same number
            of images.
        epochs: Passes over the training rows; under `length: steps`, the number of equal periods
            after which validation is scored.
        steps: Optimiser steps, under `length: steps`.
        batch_size: Images a step.
        checkpoint: Which epoch is kept: best_accuracy, best_auc (the worst of several validation
            sets counts, ties go to the later epoch) or last.
        precision: Of the training steps and of the validation after each epoch: 32-true, bf16-mixed
            or 16-mixed (GPU); auto in a study: chosen by a probe. Thresholds are fixed, and
            validation and test sets finally scored, in 32-true.
        channels_last: Memory layout; auto as for precision.
        compile: Whether torch.compile has the trunk in training; auto as for precision.
        threads: CPU threads of one run, on several devices of each of its processes; part of the
            config because it changes rounding.
        device: auto, cpu or cuda.
        devices: Devices of one run on each node, a process each; more than one only where the run
            is started as `python -m preceptor.training CONFIG`.
        nodes: Machines of one run; the command is started on each.
        cache: memmap (decoded, resized images, filled once) or none (decode on the fly).
        augmentation: Random changes of training images.
    """

    recipe: Literal["cyborg", "paper"] | None = None
    input_size: Side | None = None
    fit: Fit = "squash"
    in_chans: Literal[1, 3] = 3
    distance: Distance = "l2"
    cam_class: Literal["label", "predicted"] = "label"
    cam_source: Literal["head_input", "cyborg"] = "head_input"
    head: Literal["softmax", "sigmoid"] = "softmax"
    optimiser: Literal["sgd", "adamw"] = "sgd"
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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    cache: Literal["memmap", "none"] = "memmap"
    augmentation: Augmentation = Augmentation()

    def image_format(self, input_size: int) -> ImageFormat:
        """The format of training images.

        Args:
            input_size: Of the model, in pixels. Random crops are cut from a larger canvas, so that
                they keep their detail: the smallest then has the input's resolution, up to twice
                its side.
        """
        canvas = None
        if self.augmentation.crop_area < 1:
            canvas = math.ceil(input_size / math.sqrt(self.augmentation.crop_area))
            canvas = min(2 * input_size, canvas)
        return ImageFormat(input_size, self.fit, self.in_chans, canvas)

    @property
    def processes(self) -> int:
        """Of one run, on all nodes together."""
        return self.devices * self.nodes

    @property
    def left_to_probe(self) -> tuple[str, ...]:
        """Which of precision, channels_last and compile are auto."""
        return tuple(name for name in Speed.model_fields if getattr(self, name) == "auto")

    @property
    def speed(self) -> Speed:
        """Precision, layout and compiler, where none of them is auto."""
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
    def _half_precision_on_a_gpu(self) -> Training:
        if self.precision == "16-mixed" and self.device == "cpu":
            raise ValueError(
                "precision is 16-mixed, and device is cpu, which has no such training; set "
                "precision to bf16-mixed or 32-true"
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
    """Whose maps guide a run.

    Args:
        kind: none, human, store (a Teacher's map store or a folder of map images) or centre (one
            centred Gaussian for every image).
        path: The store or folder, for `store`.
        identity: What the maps are, in place of the path, in the run's id: the Teacher's id and
            the method. None: the content of the files.
        shuffle_seed: Permute the maps within each class before use (a control); None = no.
        human: On annotated images with a human map: replace it by the store's, or keep it.
        trust: What a map of the store is worth: all the same (none), or its map weight times the
            Teacher's score for the image's label (score), the agreement of a committee's members
            (agreement) or how little of the image the map spreads over (entropy); over the guided
            images these factors have mean 1, so that α keeps its meaning.
    """

    kind: Literal["none", "human", "store", "centre"] = "human"
    path: Path | None = None
    identity: str | None = None
    shuffle_seed: Annotated[int, Field(ge=0)] | None = None
    human: Literal["replace", "keep"] = "replace"
    trust: Trust = "none"

    @model_validator(mode="after")
    def _path_given(self) -> MapSource:
        if self.kind == "store" and self.path is None:
            raise ValueError("kind is store, and path is not given; name the folder of the maps")
        if self.kind != "store" and self.shuffle_seed is not None:
            raise ValueError(
                f"shuffle_seed permutes the maps of a store, and kind is {self.kind}; remove it"
            )
        if self.kind != "store" and self.trust != "none":
            raise ValueError(
                f"trust weighs the maps of a store, and kind is {self.kind}; remove it"
            )
        return self


class PostProcessing(Settings):
    """What is done to a guiding map on the model's grid before it is normalised (again).

    The order is that of the fields: blur, power, threshold, dilate, shape. How fine a map should
    be is a question of its own (Crum, Webster, Czajka, "Grains of Saliency: Optimizing
    Saliency-based Training of Biometric Attack Detection Models", IJCB 2024).

    Args:
        blur: Standard deviation of a Gaussian, as a share of the map's side; 0 = none.
        power: Every value in [0, 1] to this power: above 1 sharpens, below 1 flattens.
        threshold: Values below this become 0.
        dilate: Every cell becomes the largest of a square around it, which reaches this share of
            the map's side in each direction, rounded to whole cells, at least one; 0 = none.
        shape: map (as it is), box (1 in the bounding box of the cells above 0, else 0) or hull (1
            where the centre of a cell lies in the convex hull of their centres, else 0). box and
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
                f"above 0, and the {self.shape} would be the whole map; set threshold, as to 0.5"
            )
        return self


class RiseSettings(Settings):
    """How RISE marks images; see `preceptor.saliency.rise.rise`.

    Args:
        max_masks: Most model evaluations an image.
        tolerance: An image is done when its map's estimated correlation with the map of endless
            masks is 1 − tolerance; one that never gets there has map weight 0.
        estimator: default (balanced masks), or published.
        score: probability, or logit (log-odds of the class).
        fill: What masks show instead of the image: a value in input space (0 = mean colour), the
            image's mean colour, or the blurred image.
        cells: Of a mask, a side.
        seed: Of the masks.
    """

    max_masks: Annotated[int, Field(ge=2, le=10_000_000)] = 8000
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    estimator: Literal["default", "published"] = "default"
    score: Literal["probability", "logit"] = "probability"
    fill: float | Literal["mean", "blur"] = 0.0
    cells: Annotated[int, Field(ge=2, le=256)] = 7
    seed: Annotated[int, Field(ge=0)] = 0


class SoftLabels(Settings):
    """A Teacher's class probabilities as further targets: distillation without maps.

    The classification term becomes (1 − weight) · CE(y) + weight · T² · CE(teacher^(1/T)), the
    second at temperature T on both sides (Hinton, Vinyals, Dean, 2015); images that the store
    lacks keep their plain term.

    Args:
        path: The Teacher's map store, which holds its probabilities.
        identity: What stands for the store in the run's id; None: the content of the files.
        weight: Share of the soft term.
        temperature: T; above 1 softens.
    """

    path: Path
    identity: str | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 2.0


class RunConfig(Settings):
    """One training of one model with one seed.

    Args:
        manifest: The table of images.
        backbone: A timm name.
        weights: hub, none or a .safetensors file.
        backbone_args: Further arguments of the backbone.
        positive: The class whose probability is the score; needed for two classes.
        rows: all training images, or the annotated ones.
        annotated: How many annotated images there are taken to be: all (None), a number, or a
            fraction; the others lose their human maps.
        annotated_seed: Of that draw.
        maps: Whose maps guide.
        guide_classes: Only images of these classes are guided; None = all.
        alpha: α in [0, 1]; 1 is plain cross-entropy.
        alpha_start: α of the first step, from where it moves evenly to `alpha` at the last:
            saliency first, labels later; None = `alpha` throughout.
        post: What is done to guiding maps that are not human: a Teacher's, a folder's, the centre.
        human_post: What is done to human maps that guide.
        soft_labels: A Teacher's probabilities as further targets; None = none.
        validation_negatives: A validation set whose images stand in for the classes that another
            validation set lacks, when its AUC is taken: a held-out attack type has no negatives of
            its own. None = such a set has no AUC.
        seed: Of the weights, the order and the augmentation.
        training: How it is trained.
    """

    manifest: Path
    backbone: str
    weights: str = "none"
    backbone_args: Mapping[str, Any] = {}
    positive: str | None = None
    rows: Literal["all", "annotated"] = "all"
    annotated: Amount | None = None
    annotated_seed: Annotated[int, Field(ge=0)] = 0
    maps: MapSource = MapSource()
    guide_classes: tuple[str, ...] | None = None
    alpha: Fraction = 0.5
    alpha_start: Fraction | None = None
    post: PostProcessing = PostProcessing()
    human_post: PostProcessing = PostProcessing()
    soft_labels: SoftLabels | None = None
    validation_negatives: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    training: Training = Training()

    @model_validator(mode="after")
    def _decided(self) -> RunConfig:
        for name in self.training.left_to_probe:
            raise ValueError(
                f"training.{name} is auto, which a study decides once for all of its runs; name one"
            )
        return self

    @property
    def guided(self) -> bool:
        """Whether a guidance term is computed at all."""
        start = self.alpha if self.alpha_start is None else self.alpha_start
        return self.maps.kind != "none" and min(self.alpha, start) < 1
