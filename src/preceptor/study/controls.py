"""Controls: Students whose maps lack the tested information, or that have another remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator

from preceptor.config.names import Names
from preceptor.errors import InputError
from preceptor.runtime.plugins import installed_plugin, load_plugin

Control = Literal[
    "shuffled", "centre", "pca", "shuffled_human", "distilled", "mixed", "masked", "dfr"
]

OF_TEACHER: tuple[Control, ...] = ("shuffled", "distilled", "masked")
"""Controls that use the maps or the soft labels of the selected Teacher."""


@dataclass(frozen=True)
class AddedControl:
    """Control of a plugin: a run on all training images with settings of its own.

    Args:
        title: Title of its row in the tables, such as "Control: maps of edges".
        settings: Function of the Student's α that returns keys of the run config, such as `maps`,
            that differ from those of a run without guidance. α itself is the Student's.
    """

    title: str
    settings: Callable[[float], Mapping[str, Any]]


CONTROL_NAMES = Names(get_args(Control), "preceptor.controls")
ControlName = Annotated[str, AfterValidator(CONTROL_NAMES.check)]


def added_control(name: str) -> AddedControl:
    """Control of a plugin.

    Raises:
        InputError: The plugin is not installed, cannot be imported, or is no `AddedControl`.
    """
    found = installed_plugin("preceptor.controls", name, "controls:")
    control = load_plugin(found)
    if not isinstance(control, AddedControl):
        raise InputError(
            f"controls: {found.value} is no AddedControl but a {type(control).__name__}"
        )
    return control
