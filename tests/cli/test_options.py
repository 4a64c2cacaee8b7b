"""The choices of options against the configs whose choices they repeat."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from importlib import metadata
from typing import get_args

import pytest
import typer
from packaging.requirements import Requirement
from typer.models import OptionInfo

from preceptor.benchmark.forgeries import PRESETS, StampPlace
from preceptor.cli import options
from preceptor.cli.main import app
from preceptor.config.training import CamClass, Training
from preceptor.deploy.predict_files import MapFiles
from preceptor.errors import InputError
from preceptor.execution import local


def test_choices_of_options_are_those_of_the_configs() -> None:
    fields = Training.model_fields
    assert get_args(options.Device) == get_args(fields["device"].annotation)
    assert options.Engine == local.Engine
    assert options.StampPlace == StampPlace
    assert options.MapFiles == MapFiles
    assert options.CamClass == CamClass
    assert set(get_args(options.Preset)) == set(PRESETS)


def numbers(group: typer.Typer, name: str = "preceptor") -> Iterator[tuple[str, OptionInfo]]:
    """Options of the commands of a group that are numbers, by command and argument."""
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from numbers(below.typer_instance, f"{name} {below.name}")
    for command in group.registered_commands:
        assert command.callback is not None
        whole = f"{name} {command.name or command.callback.__name__}"
        for one in inspect.signature(command.callback, eval_str=True).parameters.values():
            kind, *info = get_args(one.annotation) or (None,)
            if kind in (float, float | None) and info and isinstance(info[0], OptionInfo):
                yield f"{whole} {one.name}", info[0]


# Checked with the other values of the command, in messages that name all of them.
CHECKED_LATER = {"rate", "strength", "train", "val", "test"}


def test_nan_is_no_number_of_an_option() -> None:
    """A range need not exclude it, since it compares as false."""
    found = dict(numbers(app))
    assert len(found) > 5
    unchecked = {name.split()[-1] for name, option in found.items() if option.callback is None}
    assert unchecked == CHECKED_LATER
    for wrong in (math.nan, math.inf):
        with pytest.raises(typer.BadParameter, match="is not a finite number"):
            options.finite(wrong)
    assert options.finite(0.5) == 0.5


def test_packages_of_an_extra_are_blamed_on_it() -> None:
    required = [Requirement(line) for line in metadata.requires("preceptor") or []]
    for extra, modules in options.EXTRAS.items():
        names = {one.name for one in required if one.marker and f'"{extra}"' in str(one.marker)}
        assert {name.replace("-", "_") for name in names} == modules
        with (
            pytest.raises(InputError, match=rf"not installed; pip install '\.\[{extra}\]'"),
            options.needing(extra, "serve"),
        ):
            raise ModuleNotFoundError(name=f"{min(modules)}.inner")
    with pytest.raises(ModuleNotFoundError), options.needing("web", "serve"):
        raise ModuleNotFoundError(name="torch")
