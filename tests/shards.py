"""A manifest whose images lie elsewhere."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def contents_of(manifest: Path, column: str) -> dict[str, bytes]:
    """Content of each file of a column, by the path as written."""
    table = pd.read_csv(manifest, keep_default_na=False)
    return {name: (manifest.parent / name).read_bytes() for name in table[column] if name}


def moved(manifest: Path, target: Path, images: str, maps: str | None = None) -> Path:
    """Copy of a manifest whose paths are made by format strings of the path; names are kept."""
    table = pd.read_csv(manifest, keep_default_na=False)
    table["name"] = table["path"]
    table["path"] = [images.format(path=path, row=row) for row, path in enumerate(table["path"])]
    table["saliency"] = [
        (maps or images).format(path=path, row=row) if path else ""
        for row, path in enumerate(table["saliency"])
    ]
    table.to_csv(target, index=False)
    return target
