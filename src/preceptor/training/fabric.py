"""Fabric of Lightning, imported without torchmetrics.

Where torchmetrics is installed, lightning_fabric imports it, and with it the whole of transformers,
only to compare its version. That takes seconds in every process that trains. Here the version is
that of the package's metadata, which is the same.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_utilities.core import imports
from packaging.version import Version

_original = imports.compare_version


def _compare_version(
    package: str,
    op: Callable[[Version, Version], bool],
    version: str,
    use_base_version: bool = False,
) -> bool:
    if package != "torchmetrics":
        return bool(_original(package, op, version, use_base_version))
    try:
        found = Version(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False
    return op(Version(found.base_version) if use_base_version else found, Version(version))


@contextmanager
def _versions_from_metadata() -> Iterator[None]:
    imports.compare_version = _compare_version
    try:
        yield
    finally:
        imports.compare_version = _original


with _versions_from_metadata():
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

__all__ = ["DDPStrategy", "Fabric", "MisconfigurationException"]
