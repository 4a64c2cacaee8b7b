"""Folder of map images: the map of each image, found by the name of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from preceptor.data.images import image_suffixes
from preceptor.errors import InputError, without_secrets
from preceptor.runtime.walk import walk


def map_files(folder: Path, names: Sequence[str]) -> list[Path | None]:
    """Map image of each image.

    A map has the relative path of its image, or its file name alone. It may have another suffix, or
    one more (`a.jpg.png` for `a.jpg`, where there is an `a.png` as well).

    Args:
        folder: Folder of the maps; other files, hidden files and hidden folders are ignored.
        names: (n,) names of the images.

    Returns:
        (n,) map images; None = the image has none.

    Raises:
        InputError: A map matches two images, or two maps match an image.
    """
    found = _Folder(folder)
    owners: dict[Path, str] = {}
    files: list[Path | None] = []
    for name in map(str, names):
        file = found.map_of(PurePosixPath(without_secrets(name)))
        if file is not None and (owner := owners.setdefault(file, name)) != name:
            raise InputError(_matches_both(file, *map(without_secrets, (owner, name))))
        files.append(file)
    return files


class _Folder:
    """Map images of a folder by their relative paths, with and without the last suffix."""

    def __init__(self, folder: Path) -> None:
        suffixes = image_suffixes()
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, list[Path]] = {}
        files = (Path(base, name) for base, _, names in walk(str(folder)) for name in names)
        for file in sorted(files):
            if file.suffix.lower() in suffixes and not file.name.startswith("."):
                path = file.relative_to(folder)
                self._by_name[path.as_posix()] = file
                self._by_stem.setdefault(path.with_suffix("").as_posix(), []).append(file)

    def map_of(self, image: PurePosixPath) -> Path | None:
        """Map of an image, by its path or else its file name; None if there is none."""
        for path in (image, PurePosixPath(image.name)):
            if (same := self._by_name.get(str(path))) is not None:
                return same
            for key in (path, path.with_suffix("")):
                files = self._by_stem.get(str(key), [])
                if len(files) > 1:
                    raise InputError(
                        f"maps: {files[0]} and {files[1]} match {image}; remove one of them"
                    )
                if files:
                    return files[0]
        return None


def _matches_both(file: Path, one: str, other: str) -> str:
    """Message on a map that matches two images."""
    remedy = "use the folders of the images for the maps"
    if PurePosixPath(one).parent == PurePosixPath(other).parent:
        names = (f"{PurePosixPath(name).name}.png" for name in (one, other))
        remedy = f"name their maps {' and '.join(names)}"
    return f"maps: {file} matches both {one} and {other}; {remedy}"
