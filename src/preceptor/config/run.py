"""Config of a run with its maps and RISE; the config of a study is in `study.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from preceptor.config.settings import (
    Amount,
    ConfigPath,
    Fraction,
    IdentityOf,
    Names,
    NetworkFactory,
    NotIdentity,
    Settings,
    Use,
    Weights,
)
from preceptor.config.training import Training, takes_masks
from preceptor.errors import InputError

METHOD_NAMES = Names(("cam", "rise", "cells"))
# Saliency methods of a trained model.
Method = Annotated[str, AfterValidator(METHOD_NAMES.check)]
# Sources of the maps that guide a run.
Kind = Literal["none", "human", "store", "centre", "pca"]
PCA_COMPONENTS = 5  # default number of principal components of maps without people


class MapSource(Settings):
    """Source of the maps that guide a run.

    Args:
        kind: none, human, store (a Teacher's map store or a folder of map images), centre (one
            centered Gaussian for all images), or pca (from the principal components of the training
            images, see `preceptor.maps.sources`).
        path: Map store or folder, for kind store.
        identity: Identity of the maps in the run's id instead of the path: the id of the step that
            makes them. None = the content of the files.
        shuffle_seed: Seed of a permutation of the maps within each class (a control), for kinds
            store and human; None = no permutation.
        shuffle_groups: Whether no image receives a map of its own group (patient, object), as far
            as the groups allow it, see `preceptor.maps.sources`.
        human: Treatment of human maps of annotated images: replace (by the map of the store) or
            keep.
        marks: Whether the maps show where a person would mark, as those of a mapper do, and not the
            evidence for the class of each image. For classes without human maps, such a map shows
            where the evidence for the class does not lie; distances between normalized maps do not
            guide these classes. Controls of a mapper's Student have it, to guide what it guides.
    """

    kind: Kind = "human"
    path: Annotated[ConfigPath | None, NotIdentity()] = None
    identity: str | None = None
    shuffle_seed: Annotated[int, Field(ge=0)] | None = None
    shuffle_groups: bool = False
    human: Literal["replace", "keep"] = "replace"
    marks: bool = False

    @model_validator(mode="after")
    def _path_given(self) -> MapSource:
        if self.kind == "store" and self.path is None:
            raise ValueError("kind is store, and path is not given; name the folder of the maps")
        if self.kind not in ("store", "human") and self.shuffle_seed is not None:
            raise ValueError(
                f"shuffle_seed permutes the maps of a store or of people, and kind is {self.kind}; "
                "remove it"
            )
        return self


def check_method(name: str) -> None:
    """Raise InputError if this is no name of a saliency method."""
    if name not in METHOD_NAMES:
        raise InputError(f"method {name} is not one of {', '.join(METHOD_NAMES.own)}")


class RiseSettings(Settings):
    """Settings of RISE, see `preceptor.saliency.rise`.

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


class RunConfig(Settings):
    """Config of a run: one training of one model with one seed.

    Args:
        manifest: Path of the manifest.
        backbone: Name of a timm backbone; any other name with `network`.
        network: Factory of a network from outside timm; None = timm's.
        weights: Initial weights: hub, none or a .safetensors file. The head is new, except from a
            file whose head has the same shape.
        weights_identity: Identity of the weights in the run's id instead of the content of their
            file: the id of the mapper that trains them. The head is then new.
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
        validation_negatives: Validation set whose images are used for the classes that another
            validation set lacks when its AUC is computed (a held-out attack type has no negatives).
            None = such sets have no AUC.
        last_layer: Validation set on which the last layer is trained again after the training (deep
            feature reweighting); its labels are then no longer unseen. None = no such step.
        swaps: Map store by which training images are swapped, and the last layer is trained again
            on them after the training (repair), see `training.last_layer.repaired`. None = no such
            step.
        seed: Random seed of weights, order and augmentation.
        training: Training settings.
    """

    manifest: Annotated[ConfigPath, NotIdentity()]
    backbone: str
    weights: Annotated[Weights, NotIdentity()] = "none"
    weights_identity: Annotated[str | None, NotIdentity()] = None
    backbone_args: Mapping[str, Any] = {}
    network: NetworkFactory | None = None
    positive: str | None = None
    rows: Literal["all", "annotated"] = "all"
    annotated: Annotated[Amount | None, NotIdentity()] = None
    annotated_seed: Annotated[int, Field(ge=0), NotIdentity()] = 0
    maps: Annotated[MapSource, IdentityOf("maps")] = MapSource()
    guide_classes: Annotated[tuple[str, ...] | None, IdentityOf("maps")] = None
    alpha: Annotated[Fraction | Literal["auto"], IdentityOf("guidance")] = 0.5
    labels: Literal["class", "marks"] = "class"
    validation_negatives: str | None = None
    last_layer: str | None = None
    swaps: MapSource | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    training: Training = Training()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.labels == "marks" and self.maps.kind != "human":
            raise ValueError(
                f"labels: marks are those of human maps, and maps.kind is {self.maps.kind}; set it "
                "to human"
            )
        if self.labels == "marks" and self.rows == "all":
            raise ValueError(
                "labels: marks are known of examined images, and rows is all; set rows: annotated"
            )
        if self.labels == "marks" and not takes_masks(self.training.distance):
            raise ValueError("labels is marks, and distance takes no masks; set distance: cells")
        if self.alpha == "auto" and self.training.by_method:
            raise ValueError(
                f"alpha: auto balances distances, and the method is {self.training.method}; give a "
                "number"
            )
        if self.swaps is not None and self.swaps.kind != "store":
            raise ValueError(f"swaps takes a map store, and its kind is {self.swaps.kind}")
        if self.weights_identity is not None and self.weights in ("hub", "none"):
            raise ValueError(
                f"weights_identity is that of a weights file, and weights is {self.weights}; "
                "remove it"
            )
        return self

    @property
    def guided(self) -> bool:
        """Whether the loss has a guidance term."""
        possible = self.maps.kind != "none" or not self.training.takes_maps
        return possible and (self.alpha == "auto" or self.alpha < 1)

    @property
    def guided_map(self) -> Literal["label", "decision", "cells"]:
        """Maps of the trained model whose agreement with human maps is measured.

        They do not depend on whether the run is guided, so that runs are comparable.
        """
        if self.labels == "marks":
            return "cells"
        return "decision" if self.training.cam_class == "decision" else "label"

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
    def uses_maps(self) -> bool:
        """Whether maps are used, in the loss or in input space."""
        return (self.guided and self.training.takes_maps) or self.changes_outside

    @property
    def uses(self) -> tuple[Use, ...]:
        """Uses of the settings in this run."""
        uses: dict[Use, bool] = {
            "cam class": self.guided or self.guided_map == "decision",
            "maps": self.uses_maps,
            "guidance": self.guided,
            "outside": self.changes_outside,
        }
        return tuple(use for use, holds in uses.items() if holds)
