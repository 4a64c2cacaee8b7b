"""Gray levels of the masks of a folder: strengths of a map, or numbers of classes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from preceptor.data.importers.shapes import Log

# A mask with more levels is a map. Cityscapes numbers 34 classes, VOC 21 and the border 255.
_MOST_LEVELS = 40
_LARGEST_CLASS = 63
_VOID = 255


class GrayLevels:
    """Levels that occur in the gray masks of a folder, as stored.

    Numbers of classes (0, 1, 2, or 0, 1 and 255 for pixels that belong to no class) cannot be
    told from strengths by one file, as a file need not have all classes.
    """

    def __init__(self) -> None:
        self._first: dict[float, str] = {}
        self._has_map = False

    def add(self, levels: NDArray[Any], of: str) -> None:
        """Add the levels of a mask.

        Args:
            levels: (n,) its different levels.
            of: File of the mask.
        """
        self._has_map = self._has_map or len(levels) > _MOST_LEVELS
        if not self._has_map:
            for level in levels.tolist():
                self._first.setdefault(level, of)

    @property
    def are_classes(self) -> bool:
        """Whether the levels are numbers of several classes.

        They are if there are three or more in all masks together, all whole and, except 255, at
        most 63, and no mask has more than 40.
        """
        if self._has_map or len(self._first) < 3:
            return False
        return all(
            level == _VOID or (level == int(level) and 0 <= level <= _LARGEST_CLASS)
            for level in self._first
        )

    def check(self, log: Log, fix: str) -> None:
        """Note a problem if the levels are numbers of classes.

        Args:
            log: Collects the problem.
            fix: What to do.
        """
        if not self.are_classes:
            return
        levels = sorted(self._first)
        shown = [f"{level:g} ({self._first[level]})" for level in levels[:4]]
        more = f" and {len(levels) - 4} more" if len(levels) > 4 else ""
        what = (
            f"the levels {', '.join(shown)}{more} are taken for numbers of classes, not for "
            "strengths of a map"
        )
        log.problem("the gray masks", what, fix)
