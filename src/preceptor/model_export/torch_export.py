"""Packages of torch.export: the graph of a deployed model as a .pt2 file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from preceptor.model_export.deployed_model import DeployedModel
from preceptor.model_export.parity import Computation, Outputs
from preceptor.model_export.traced import quiet, refusal
from preceptor.runtime.memory import out_of_memory


def check_package(program: ExportedProgram, model: DeployedModel) -> None:
    """Check that a traced model can be written: torch has no format for some operations on sizes.

    Raises:
        InputError: It cannot be written.
    """
    try:
        with quiet():
            torch.export.save(program, io.BytesIO())
    except Exception as error:  # torch raises many types for what it cannot write
        if out_of_memory(error):
            raise
        raise refusal(model, error) from error


def write_package(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a .pt2 package, which C++ programs and AOTInductor read as well.

    Args:
        program: The traced model.
        path: Path of the file.
        metadata: Texts by key, stored as extra files.
    """
    # Not to the file: on a full disk, torch's writer raises an error of many lines.
    content = io.BytesIO()
    with quiet():
        torch.export.save(program, content, extra_files=dict(metadata))
    path.write_bytes(content.getbuffer())


def read_package(path: Path) -> torch.nn.Module:
    """Module of a .pt2 package that this library has written.

    The reader is that of torch; packages of unknown origin must not be loaded with it.
    """
    with quiet(), path.open("rb") as file:
        return torch.export.load(file).module()


def package_outputs(
    module: torch.nn.Module, dtype: torch.dtype, names: Sequence[str]
) -> Computation:
    """Outputs of the module of a package.

    Args:
        module: Module of a traced model.
        dtype: Type of its input.
        names: Names of its outputs.
    """

    def compute(batch: NDArray[np.uint8]) -> Outputs:
        with torch.no_grad():
            found = module(torch.from_numpy(batch).to(dtype))
        return Outputs.of({name: one.numpy() for name, one in zip(names, found, strict=True)})

    return compute
