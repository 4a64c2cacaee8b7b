"""States of locations that are no plain local files, for the index of known files and checks."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from preceptor.data.locations.containers import OpenContainer, open_container, read_unchanged
from preceptor.data.locations.failures import ContainerError, LocationError
from preceptor.data.locations.location import (
    Container,
    LocalFile,
    Location,
    Member,
    ParquetCell,
    RemoteFile,
    TarMember,
    is_url,
    parse,
)
from preceptor.data.locations.parquet_images import check_cell
from preceptor.data.locations.read import NETWORK_THREADS
from preceptor.data.locations.requests import RemoteState, State, remote_listing, remote_state
from preceptor.data.locations.tar_index import member_place

# Below this number of files in a folder, single questions are as fast as a listing.
_FEW = 32
_PART = 8192


@dataclass(frozen=True)
class Unreadable:
    """Location that cannot be read, or a container with all of its members.

    Args:
        at: Positions of the locations.
        reason: Reason in one line, without secrets.
        container: Container that cannot be read as a whole, or None.
        remedy: What to do about it; "" if that depends on what the locations are for.
    """

    at: tuple[int, ...]
    reason: str
    container: Container | None = None
    remedy: str = ""


def states_of(texts: Iterable[str]) -> list[State | OSError]:
    """State of each location, or the error; a member has the state of its container."""
    is_file = functools.cache(os.path.isfile)
    locations = [parse(text, is_file) for text in texts]
    known = _container_states(map(_file_of, locations))
    return [known[_file_of(one)] for one in locations]


def find_unreadable(texts: Sequence[str], which: Iterable[int]) -> list[Unreadable]:
    """Locations that do not exist or cannot be reached; contents of images are not read.

    Args:
        texts: Locations.
        which: Positions of those that are looked for.
    """
    is_file = functools.cache(os.path.isfile)
    inside: dict[Container, list[tuple[int, Location]]] = defaultdict(list)
    for at in which:
        location = parse(texts[at], is_file)
        inside[_file_of(location)].append((at, location))
    known = _container_states(inside)
    found = []
    members = {}
    for place, rows in inside.items():
        state = known[place]
        if isinstance(state, OSError):
            container = place if isinstance(rows[0][1], Member) else None
            found.append(_unreadable([at for at, _ in rows], state, container))
        elif isinstance(rows[0][1], Member):
            members[place] = rows
    with ThreadPoolExecutor(NETWORK_THREADS) as pool:
        for part in pool.map(_missing_members, members.items()):
            found += part
    return sorted(found, key=lambda one: one.at)


def _file_of(location: Location) -> Container:
    return location.container if isinstance(location, Member) else location


def _missing_members(
    item: tuple[Container, list[tuple[int, Location]]],
) -> list[Unreadable]:
    place, rows = item

    def check(container: OpenContainer) -> list[Unreadable]:
        missing: list[Unreadable] = []
        for at, location in rows:
            try:
                if isinstance(location, TarMember):
                    member_place(container, location.name)
                elif isinstance(location, ParquetCell):
                    check_cell(container, location.name)
            except ContainerError:
                raise
            except LocationError as error:
                missing.append(_unreadable([at], error))
        return missing

    try:
        return read_unchanged(place, check)
    except OSError as error:
        return [_unreadable([at for at, _ in rows], error, place)]


def _container_states(places: Iterable[Container]) -> dict[Container, State | OSError]:
    """State of each file; folders with many remote files are listed."""
    distinct = list(dict.fromkeys(places))
    listed = _listed([one.url for one in distinct if isinstance(one, RemoteFile)])

    def ask(place: Container) -> State | OSError:
        if isinstance(place, RemoteFile) and place.url in listed:
            return listed[place.url].numbers
        try:
            if isinstance(place, LocalFile):
                return open_container(place).state
            return remote_state(place.url).numbers
        except OSError as error:
            return error

    if not distinct:
        return {}
    found: dict[Container, State | OSError] = {}
    with ThreadPoolExecutor(min(NETWORK_THREADS, len(distinct))) as pool:
        for start in range(0, len(distinct), _PART):  # a task waits in a kilobyte of memory
            part = distinct[start : start + _PART]
            found |= zip(part, pool.map(ask, part), strict=True)
    return found


def _listed(urls: Sequence[str]) -> dict[str, RemoteState]:
    """States from listings of the folders in which many of the files are."""
    folders: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        folder, _, name = url.rpartition("/")
        folders[folder].append(name)
    large = [folder for folder, names in folders.items() if len(names) >= _FEW and is_url(folder)]
    if not large:
        return {}

    def ask(folder: str) -> dict[str, RemoteState]:
        try:
            return remote_listing(folder)
        except OSError:  # without the right to list, each file is asked for
            return {}

    with ThreadPoolExecutor(min(NETWORK_THREADS, len(large))) as pool:
        found = zip(large, pool.map(ask, large), strict=True)
        return {
            f"{folder}/{name}": states[name]
            for folder, states in found
            for name in folders[folder]
            if name in states
        }


def _unreadable(
    at: Sequence[int], error: OSError, container: Container | None = None
) -> Unreadable:
    if isinstance(error, LocationError):
        return Unreadable(tuple(at), error.reason, container, error.remedy)
    if isinstance(error, FileNotFoundError):
        return Unreadable(tuple(at), "there is no such file", container)
    return Unreadable(tuple(at), error.strerror or type(error).__name__, container)
