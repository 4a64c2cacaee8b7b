"""Plugins: what installed packages offer by entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, Literal, get_args

from preceptor.errors import InputError, reason

Group = Literal[
    "preceptor.backbones",
    "preceptor.controls",
    "preceptor.distances",
    "preceptor.importers",
    "preceptor.map_sources",
    "preceptor.saliency",
]
"""Entry points: factories of networks, controls of a study, distances of maps, readers of
annotations, maps of training images without a model, saliency methods of a model."""

GROUPS: tuple[Group, ...] = get_args(Group)


def registered(group: Group) -> dict[str, list[EntryPoint]]:
    """Entry points of a group by name, several where packages offer the same name."""
    found: dict[str, list[EntryPoint]] = {}
    for one in _offered(group, tuple(sys.path)):
        same = found.setdefault(one.name, [])
        if one.value not in [other.value for other in same]:  # a package may be seen twice
            same.append(one)
    return dict(sorted(found.items()))


def plugin(group: Group, name: str) -> EntryPoint | None:
    """Entry point of this name; None = there is none.

    Raises:
        InputError: Several packages offer the name.
    """
    found = registered(group).get(name, [])
    if len(found) > 1:
        offered = " and ".join(sorted(f"{_package(one)} ({one.value})" for one in found))
        raise InputError(f"{name}: {offered} both offer it in {group}; uninstall one of them")
    return found[0] if found else None


def installed_plugin(group: Group, name: str, key: str) -> EntryPoint:
    """Entry point of this name.

    Args:
        group: Group of entry points.
        name: Name of the plugin.
        key: What the name is in a config, for the message.

    Raises:
        InputError: No package, or several packages, offer the name.
    """
    found = plugin(group, name)
    if found is None:
        raise InputError(f"{key} {name} is of a package that is not installed; install it")
    return found


def load_plugin(found: EntryPoint) -> Any:
    """Object that an entry point names.

    Raises:
        InputError: It cannot be imported.
    """
    try:
        return found.load()
    except Exception as error:  # a module may raise anything when it is imported
        raise InputError(
            f"{found.name}: the plugin {found.value} of {_package(found)} cannot be imported: "
            f"{reason(error, 200)}; update or uninstall it"
        ) from error


@lru_cache(len(GROUPS))
def _offered(group: Group, folders: tuple[str, ...]) -> EntryPoints:
    """Entry points of the packages in the folders of `sys.path`.

    They are kept: reading the metadata of hundreds of packages takes milliseconds, and a report
    asks for each row.
    """
    return entry_points(group=group)


def _package(found: EntryPoint) -> str:
    return "an unknown package" if found.dist is None else found.dist.name
