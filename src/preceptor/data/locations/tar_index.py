"""Index of the members of a tar file, from one pass over its headers."""

from __future__ import annotations

import json
import tarfile

from preceptor.data.locations.containers import OpenContainer
from preceptor.data.locations.failures import ContainerError, container_error, location_error
from preceptor.data.locations.local_copies import copy_key, local_copies
from preceptor.data.locations.once import Once

Index = dict[str, tuple[int, int]]
"""Offset and size in bytes of each member; a size of −1 = the name occurs twice."""

# Bytes that are read at once: a request costs as much as about this many bytes. Larger members are
# skipped.
_AHEAD = 4 * 2**20
_BLOCK = 512
_FORMAT = 1
_INDICES: Once[tuple[object, ...], Index] = Once(kept=64)


def member_place(container: OpenContainer, name: str) -> tuple[int, int]:
    """Offset and size of a member.

    Raises:
        LocationError: There is no such member, or the tar file is damaged.
    """
    found = tar_index(container).get(name)
    if found is None:
        raise location_error(f"there is no member {name!r} in the tar file")
    if found[1] < 0:
        raise location_error(f"several members are named {name!r}", "rename them in the tar file")
    return found


def tar_index(container: OpenContainer) -> Index:
    """Index of a tar file, which is built once for each state of it.

    Raises:
        LocationError: It is damaged or cut short.
    """
    return _INDICES.get(container.key, lambda: _kept_or_built(container))


def _kept_or_built(container: OpenContainer) -> Index:
    if not container.is_marked:
        return _built(container)
    copies = local_copies()
    key = copy_key("tar index", _FORMAT, *container.key)
    if (kept := copies.read(key)) is not None:
        return {name: (offset, size) for name, offset, size in json.loads(kept)}
    index = _built(container)
    rows = [[name, offset, size] for name, (offset, size) in index.items()]
    copies.write(key, json.dumps(rows).encode("ascii"))
    return index


def _built(container: OpenContainer) -> Index:
    index: Index = {}
    try:
        with (
            container.stream(_AHEAD if container.is_remote else _BLOCK * 16) as stream,
            tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape") as archive,
        ):
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # the list grows otherwise
                if member.isfile() and not member.issparse():
                    size = -1 if member.name in index else member.size
                    index[member.name] = member.offset_data, size
                # A size below 0 leads back to an earlier header, without an end.
                if member.size < 0 or member.offset_data + member.size > container.size:
                    raise tarfile.ReadError
            end = archive.offset
            stream.seek(end)
            mark = stream.read(_BLOCK)
    # Damaged sizes, maps of sparse files, and headers of headers, which tarfile does not refuse.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _damaged(container.size) from error
    if mark != bytes(_BLOCK):
        raise _damaged(end)
    return index


def _damaged(place: int) -> ContainerError:
    return container_error(
        f"the tar file is damaged or cut short at byte {place:,}", "copy it again"
    )
