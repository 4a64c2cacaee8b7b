"""Problems of a study config whose parts contradict each other, in one line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pydantic import ValidationError

from preceptor.config.training import Training
from preceptor.study.options import Guidance, GuidanceConfig, Variant
from preceptor.study.setting import Setting

_NAME = r"[^\W_][\w .-]*"  # of a domain or a way of guiding


def name_problems(key: str, names: Iterable[str]) -> list[str]:
    """Names of domains or ways of guiding that cannot be part of a file name or a title.

    Args:
        key: Key of the names in the config.
        names: Names under the key.
    """
    return [
        f"{key}: {name!r} is not a valid name; use letters, digits, blanks, . and -"
        for name in names
        if re.fullmatch(_NAME, name) is None
    ]


def guidance_problems(guidances: Mapping[str, Guidance], training: Training) -> list[str]:
    """Ways of guiding with an invalid name, or whose training settings are invalid.

    Args:
        guidances: Ways of guiding by name.
        training: Training settings of the study.
    """
    wrong = []
    for name, way in guidances.items():
        wrong += name_problems("guidances", [name])
        try:
            Training.model_validate(way.training(training).model_dump())
        except ValueError as error:
            wrong.append(f"guidances.{name}: {_first_line(error)}")
    return wrong


def variant_problems(
    variants: Mapping[str, Variant],
    training: Training,
    guiding: Callable[[Variant], GuidanceConfig],
) -> list[str]:
    """Variants whose settings are invalid together with those of the study.

    Args:
        variants: Variants by name.
        training: Training settings of the study.
        guiding: Options of the method of a variant; raises ValueError if they are invalid.
    """
    wrong = []
    for name, variant in variants.items():
        try:
            guiding(variant)
            Training.model_validate(variant.training(training).model_dump())
        except ValueError as error:
            wrong.append(f"variants.{name}: {_first_line(error)}")
    return wrong


def mapper_problems(positive: str | None) -> list[str]:
    """Settings that the Teacher mapper lacks.

    Args:
        positive: Class of the score; None = none.
    """
    if positive is not None:
        return []
    return [
        "mapper needs two classes and `positive`, the class with marks; add it, or set "
        "mapper: false"
    ]


def dfr_problems(
    controls: Sequence[str], dfr_set: str | None, mean_setting: Setting | None
) -> list[str]:
    """Settings that the control dfr lacks, or that are given without it.

    Args:
        controls: Controls of the study.
        dfr_set: Validation set of the control.
        mean_setting: Setting without guidance whose pooling is the mean.
    """
    wrong = []
    if ("dfr" in controls) != (dfr_set is not None):
        wrong.append(
            "controls: dfr and dfr_set, the validation set on which it trains the last layer, "
            "need each other; add the missing one, or remove both"
        )
    if "dfr" in controls and mean_setting is None:
        wrong.append("controls: dfr needs pool: mean, in training or a way of guiding")
    return wrong


def duplicate_problems(lists: Mapping[str, Sequence[object]]) -> list[str]:
    """Lists with duplicate values.

    Args:
        lists: Values by key of the config.
    """
    return [
        f"{name} has duplicate values: {list(values)}; remove one"
        for name, values in lists.items()
        if len(set(values)) != len(values)
    ]


def backbone_problems(
    known: AbstractSet[str],
    weights: str | Mapping[str, str],
    arguments: AbstractSet[str],
    factories: AbstractSet[str],
    speed: AbstractSet[str],
) -> list[str]:
    """Backbones with settings that are not used or given twice, and backbones without weights.

    Args:
        known: Backbones of Teachers and Students.
        weights: Initial weights of all backbones, or by backbone.
        arguments: Backbones with arguments.
        factories: Backbones with a factory, which has arguments of its own.
        speed: Backbones with speed settings.
    """
    wrong, unknown = [], (arguments | factories | speed) - known
    if not isinstance(weights, str):
        unknown |= set(weights) - known
        missing = sorted(known - set(weights))
        if missing:
            wrong.append(f"weights: missing for {', '.join(missing)}; add hub, none or a file")
    if unknown:
        wrong.append(
            "backbone_args, backbones, weights or speed name backbones that are not used: "
            f"{', '.join(sorted(unknown))}; remove them, or add the backbones to a list"
        )
    return wrong + [
        f"backbone_args: {name} is one of `backbones`, which has args of its own; move them"
        for name in sorted(arguments & factories)
    ]


def saliency_problems(methods: Sequence[str]) -> list[str]:
    """Saliency methods that Teachers cannot have."""
    if "cells" in methods:
        return ["saliency: cells are the maps of a mapper; set mapper: true instead"]
    return []


def _first_line(error: ValueError) -> str:
    """Message of a validation error, without pydantic's frame."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)
