"""Import of Fabric where torchmetrics is installed."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.version import Version

from tests.start_up import imported_by


def test_torchmetrics_is_not_imported_and_its_version_is_known() -> None:
    try:
        version = Version(importlib.metadata.version("torchmetrics"))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torchmetrics is not installed, so that nothing imports it")
    code = """
from preceptor.training.fabric import Fabric
from lightning_fabric.utilities import imports
from lightning_utilities.core.imports import compare_version
print(imports._TORCHMETRICS_GREATER_EQUAL_1_0_0, compare_version.__module__)
"""
    found = imported_by(code, {"torchmetrics"})
    assert not found.imported
    known, module = found.out.split()
    assert known == str(version >= Version("1.0.0"))
    assert module == "lightning_utilities.core.imports"  # as it was before
