"""Guidance methods: published ways of telling a network where to look, with one interface.

`guidance_method` gives a method by name, `guided_objective` the loss of a step with it in any
training loop; `measure_scale` makes the methods comparable. `methods.yaml` is their catalogue.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from preceptor.errors import InputError, quoted
from preceptor.losses.guidance.base import (
    CHECKED,
    Guidance,
    Objective,
    guided_objective,
    mean_losses,
    measure_scale,
)
from preceptor.losses.guidance.forward import (
    ForwardOutput,
    GuidanceBatch,
    GuidedForward,
    TeacherOutput,
)
from preceptor.losses.guidance.inputs import (
    Faithful,
    Gradient,
    Harmonize,
    Latent,
    MaskTune,
    Outside,
    Robust,
    SaliencyGuided,
)
from preceptor.losses.guidance.matching import Cyborg, Evidence, Head, Rank, Slack
from preceptor.losses.guidance.teach import Teach
from preceptor.utils.results import missing_module

__all__ = [
    "CHECKED",
    "ForwardOutput",
    "Guidance",
    "GuidanceBatch",
    "GuidedForward",
    "Objective",
    "TeacherOutput",
    "guidance_method",
    "guided_objective",
    "mean_losses",
    "measure_scale",
]

_KINDS: list[type[Guidance]] = [
    *(Cyborg, Evidence, Rank, Slack, Gradient, Harmonize, Robust, Latent, Faithful, Outside),
    *(Teach, Head, SaliencyGuided, MaskTune),
]
METHODS = {kind.name: kind for kind in _KINDS}


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Title, formula, papers, code, differences, cost and presets of each method."""
    text = files(__name__).joinpath("methods.yaml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return entries


def guidance_method(
    name: str,
    preset: str | None = None,
    *,
    weight: float | Literal["published"] | None = None,
    **settings: Any,
) -> Guidance:
    """A guidance method by name, with published or own settings.

    Args:
        name: cyborg, evidence, rank, slack, gradient, harmonize, robust, latent, faithful, outside,
            teach, head, saliency_guided or masktune; or a subclass of `Guidance` of one's own, as
            module:Class of a module on PYTHONPATH.
        preset: Published settings of the method; given settings have precedence.
        weight: λ of the terms, or the published one of the preset; None = measured before
            training, see `measure_scale`, but 1 for cyborg, outside and saliency_guided.
        settings: Settings of the method.

    Raises:
        InputError: The method, the preset or a setting is unknown, or a value is wrong.

    Example:
        >>> guidance_method("gradient", "gals", penalty="norm").settings()
        {'name': 'gradient', 'weight': None, 'scalar': 'ce', 'penalty': 'norm'}
        >>> guidance_method("gradient", "ross", weight="published").weight
        500.0
    """
    if ":" not in name and name not in METHODS:
        of = [method for method, about in catalogue().items() if name in about.get("presets", {})]
        hint = f"; it is a preset: {of[0]}, preset {name}" if of else ""
        raise InputError(f"guidance {quoted(name)} is not one of {', '.join(METHODS)}{hint}")
    kind = METHODS[name] if name in METHODS else _of_module(name)
    presets = (kind.about or catalogue().get(name, {})).get("presets", {})
    if preset is not None and preset not in [*presets]:  # of a file it may be of any type
        names = ", ".join(presets) or "none"
        raise InputError(f"guidance {name}: preset {quoted(str(preset))} is not one of {names}")
    chosen = presets[preset] if preset else {}
    if weight == "published":
        if "weight" not in chosen:
            raise InputError(f"guidance {name}: there is no published weight; give a number")
        weight = float(chosen["weight"])
    given = chosen.get("settings", {}) | ({} if weight is None else {"weight": weight}) | settings
    try:
        return kind(**given)
    except ValidationError as error:
        where, names = error.errors()[0]["loc"][0], ", ".join(field.name for field in fields(kind))
        # A setting of several types has an error for each of them.
        words = [entry["msg"] for entry in error.errors() if entry["loc"][0] == where]
        raise InputError(
            f"guidance {name}: {where}: {', or '.join(words)}; its settings are {names}"
        ) from error


def _of_module(name: str) -> type[Guidance]:
    """Class of a module, as module:Class."""
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise InputError(f"guidance {name}: {missing_module(str(error.name))}") from error
    if not (isinstance(kind, type) and issubclass(kind, Guidance)):
        raise InputError(f"guidance {name}: {module} has no subclass {attribute} of Guidance")
    return kind
