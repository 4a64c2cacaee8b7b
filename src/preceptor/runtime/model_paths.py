"""Check of the path of a model folder, without the import of torch."""

from __future__ import annotations

from pathlib import Path

from preceptor.errors import InputError


def check_model_folder(folder: Path) -> None:
    """Check that a folder is a model folder; its files are not read.

    Raises:
        InputError: It has no model.json.
    """
    if not (folder / "model.json").is_file():
        raise InputError(f"{folder} is not a model folder: it has no model.json")
