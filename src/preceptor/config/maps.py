"""Settings of maps: their source, and RISE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from preceptor.config.settings import ConfigPath, Names, NotIdentity, Settings
from preceptor.errors import InputError

METHOD_NAMES = Names(("cam", "rise", "cells"), "preceptor.saliency")
# Saliency methods of a trained model.
Method = Annotated[str, AfterValidator(METHOD_NAMES.check)]
# Sources of the maps that guide a run.
Kind = Literal["none", "human", "store", "centre", "pca"]
PCA_COMPONENTS = 5  # default number of principal components of maps without people


class MapSource(Settings):
    """Source of the maps that guide a run.

    Args:
        kind: none, human, store (a Teacher's map store or a folder of map images), centre (one
            centred Gaussian for all images), or pca (from the principal components of the training
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
    """Check the name of a saliency method.

    Raises:
        InputError: It is neither of this library nor of a plugin.
    """
    if name not in METHOD_NAMES:
        raise InputError(f"method {name} is not one of {', '.join(METHOD_NAMES.all)}")


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
