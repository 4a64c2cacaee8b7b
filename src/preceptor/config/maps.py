"""Settings of maps: their source, post-processing, RISE, soft labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from preceptor.config.identity import NotIdentity
from preceptor.config.names import Names
from preceptor.config.paths import ConfigPath
from preceptor.config.settings import (
    Few,
    Settings,
)
from preceptor.errors import InputError

METHOD_NAMES = Names(("cam", "rise", "cells"), "preceptor.saliency")
KIND_NAMES = Names(("none", "human", "store", "centre", "pca"), "preceptor.map_sources")
# Saliency methods of a trained model.
Method = Annotated[str, AfterValidator(METHOD_NAMES.check)]
# Sources of the maps that guide a run.
Kind = Annotated[str, AfterValidator(KIND_NAMES.check)]
Trust = Literal["none", "score", "agreement", "entropy"]
PCA_COMPONENTS = 5  # default number of principal components of maps without people


class MapSource(Settings):
    """Source of the maps that guide a run.

    Args:
        kind: none, human, store (a Teacher's map store or a folder of map images), centre (one
            centred Gaussian for all images), pca (from the principal components of the training
            images, see `preceptor.maps.principal_components`), or a plugin's name.
        path: Map store or folder, for kind store.
        identity: Identity of the maps in the run's id instead of the path: the id of the step that
            makes them. None = the content of the files.
        shuffle_seed: Seed of a permutation of the maps within each class (a control), for kinds
            store and human; None = no permutation.
        shuffle_groups: Whether no image receives a map of its own group (patient, object), as far
            as the groups allow it, see `preceptor.maps.targets`.
        human: Treatment of human maps of annotated images: replace (by the map of the store) or
            keep.
        trust: Factors of the map weights: none, score (the Teacher's score for the image's label),
            agreement (of the members of a committee) or entropy (larger for concentrated maps). The
            factors have mean 1 over the images guided by the store, so that the meaning of α is
            unchanged.
        marks: Whether the maps show where a person would mark, as those of a mapper do, and not the
            evidence for the class of each image. For classes without human maps, such a map shows
            where the evidence for the class does not lie; distances between normalized maps do not
            guide these classes. Controls of a mapper's Student have it, to guide what it guides.
        components: Number of principal components, for kind pca.
    """

    kind: Kind = "human"
    path: Annotated[ConfigPath | None, NotIdentity()] = None
    identity: str | None = None
    shuffle_seed: Annotated[int, Field(ge=0)] | None = None
    shuffle_groups: bool = False
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


def check_method(name: str) -> None:
    """Check the name of a saliency method.

    Raises:
        InputError: It is neither of this library nor of a plugin.
    """
    if name not in METHOD_NAMES:
        raise InputError(f"method {name} is not one of {', '.join(METHOD_NAMES.all)}")


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
