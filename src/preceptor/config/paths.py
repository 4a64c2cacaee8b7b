"""Path types of config fields; relative paths are relative to the config file."""

# os.path and not Path.resolve(): a manifest's paths start from where it is linked.
# ruff: noqa: PTH111

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


@dataclass(frozen=True)
class PathContext:
    """Validation context of a config read from a file.

    Args:
        folder: Absolute base folder of relative paths.
    """

    folder: Path

    def absolute(self, path: str | Path) -> Path:
        """Absolute path with `~` expanded, except for unknown users."""
        return Path(os.path.normpath(self.folder / os.path.expanduser(path)))


def _absolute(path: Path, info: ValidationInfo) -> Path:
    return info.context.absolute(path) if isinstance(info.context, PathContext) else path


def _absolute_file(weights: str, info: ValidationInfo) -> str:
    if weights in ("hub", "none", "") or not isinstance(info.context, PathContext):
        return weights
    return str(info.context.absolute(weights))


ConfigPath = Annotated[Path, AfterValidator(_absolute)]
"""A path that is absolute once the config has been read from a file."""

Weights = Annotated[str, AfterValidator(_absolute_file)]
"""hub, none, or a .safetensors file, whose path is treated as a `ConfigPath`."""
