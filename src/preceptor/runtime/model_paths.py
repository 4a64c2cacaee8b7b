"""Check of the path of a model folder, without the import of torch."""

from __future__ import annotations

from pathlib import Path

from preceptor.errors import InputError

# Model folders within the folder of a study, and of a run.
_INSIDE = ("best", "model")


def check_model_folder(folder: Path) -> None:
    """Check that a folder is a model folder; its files are not read.

    Raises:
        InputError: It has no model.json.
    """
    if not (folder / "model.json").is_file():
        inside = (folder / name for name in _INSIDE)
        found = next((one for one in inside if (one / "model.json").is_file()), None)
        fix = "" if found is None else f"; name {found}"
        raise InputError(f"{folder} is not a model folder: it has no model.json{fix}")
