"""Names of the files of an export."""

from __future__ import annotations

from pathlib import PurePosixPath

from preceptor.errors import is_control, without_secrets


class FileNames:
    """Names of files that belong to images, with a suffix of their own.

    Args:
        suffix: Suffix with its dot.

    Example:
        >>> names = FileNames(".json")
        >>> names.of("a/b.png"), names.of("a/b.jpg"), names.of("../c.png"), names.of("..")
        ('a/b.json', 'a/b.jpg.json', 'c.json', 'image.json')
    """

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self._taken: set[str] = set()

    def of(self, image: str) -> str:
        """Name for an image; with the image's own suffix if two would have one name."""
        parts = [
            "".join("_" if is_control(letter) else letter for letter in part)
            for part in PurePosixPath(without_secrets(image).replace("\\", "/")).parts
            if part not in ("/", "..", ".")
        ]
        name = PurePosixPath(*(parts or ["image"]))
        found = name.with_suffix(self.suffix).as_posix()
        if found.casefold() in self._taken:
            found, number = f"{name}{self.suffix}", 2
            while found.casefold() in self._taken:
                found, number = f"{name}-{number}{self.suffix}", number + 1
        self._taken.add(found.casefold())
        return found
