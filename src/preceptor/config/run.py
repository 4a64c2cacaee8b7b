"""Config of a run; the config of a study is in `study.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from preceptor.config.maps import MapSource
from preceptor.config.settings import (
    Amount,
    ConfigPath,
    Fraction,
    IdentityOf,
    NetworkFactory,
    NotIdentity,
    Settings,
    Use,
    Weights,
)
from preceptor.config.training import Training, takes_masks


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
    seed: Annotated[int, Field(ge=0)] = 0
    training: Training = Training()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.labels == "marks" and self.maps.kind != "human":
            raise ValueError(
                f"labels: marks are those of human maps, and maps.kind is {self.maps.kind}; set it "
                "to human"
            )
        if self.labels == "marks" and not takes_masks(self.training.distance):
            raise ValueError("labels is marks, and distance takes no masks; set distance: cells")
        if self.weights_identity is not None and self.weights in ("hub", "none"):
            raise ValueError(
                f"weights_identity is that of a weights file, and weights is {self.weights}; "
                "remove it"
            )
        return self

    @property
    def guided(self) -> bool:
        """Whether the loss has a guidance term."""
        return self.maps.kind != "none" and (self.alpha == "auto" or self.alpha < 1)

    @property
    def guided_map(self) -> Literal["label", "decision", "cells"]:
        """Maps of the trained model whose agreement with human maps is measured.

        They depend on the settings alone, not on whether the run is guided, so that runs with and
        without guidance are comparable; the label's also where the predicted class is guided.
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
        uses: dict[Use, bool] = {
            "cam class": self.guided or self.guided_map == "decision",
            "maps": self.uses_maps,
            "guidance": self.guided,
            "outside": self.changes_outside,
        }
        return tuple(use for use, holds in uses.items() if holds)
