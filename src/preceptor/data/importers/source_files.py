"""Files of one source: given by name, or all of a kind in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preceptor.errors import InputError
from preceptor.runtime.walk import walk


def files_of(source: Path | str | Sequence[Path | str], suffix: str) -> list[Path]:
    """Files of a source, sorted within each folder; those of hidden folders are left out.

    Args:
        source: Files and folders.
        suffix: Suffix of the files in folders (".json").

    Raises:
        InputError: Something does not exist, or a folder has no such file.
        OSError: A folder cannot be read.
    """
    given = [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = files_below(path, suffix)
            if not inside:
                raise InputError(f"{path}: there is no {suffix} file in it; correct the path")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: there is no such file; correct the path")
    return found


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Sorted files below a folder with a suffix."""
    found: list[Path] = []
    for base, _, names in walk(str(folder)):
        found += [
            Path(base, name)
            for name in sorted(names)
            if name.lower().endswith(suffix) and not name.startswith(".")
        ]
    return found


def root_of(source: Path | str | Sequence[Path | str]) -> Path:
    """Folder that names of files are relative to: the source, or the folder of its first file."""
    first = Path(source) if isinstance(source, str | Path) else Path(source[0])
    return first if first.is_dir() else first.parent


def lines_of(path: Path) -> list[str]:
    """Lines of a text file in UTF-8, with or without the byte order mark of Windows.

    Raises:
        InputError: It is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise InputError(f"{path}: it is not UTF-8 text; save it so") from None
