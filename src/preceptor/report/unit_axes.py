"""Axes of a figure of two shares: both from 0 to 1, with grid, tick labels and titles."""

from __future__ import annotations

from dataclasses import dataclass

from preceptor.report.svg import WIDTH, Element, label, line, sideways

_MARKS = (0, 0.25, 0.5, 0.75, 1)


@dataclass(frozen=True)
class UnitAxes:
    """Axes from 0 to 1 within a figure.

    Args:
        left, bottom: Place of (0, 0).
        right, top: Place of (1, 1).

    Example:
        >>> UnitAxes(100.0, 210.0, right=300.0, top=10.0).at(0.5, 1)
        (200.0, 10.0)
    """

    left: float
    bottom: float
    right: float = WIDTH - 14.0
    top: float = 10.0

    @property
    def height(self) -> float:
        """Height of the figure."""
        return self.bottom + 43

    def at(self, across: float, up: float) -> tuple[float, float]:
        """Place of a point."""
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )

    def grid(self) -> list[Element]:
        """Lines of both directions, with their values."""
        found: list[Element] = []
        for mark in _MARKS:
            (x, y), told = self.at(mark, mark), f"{mark:g}"
            found += [
                line(x, self.top, x, self.bottom, "grid"),
                line(self.left, y, self.right, y, "grid"),
                label(x, self.bottom + 16, told, "tick", "middle"),
                label(self.left - 7, y + 4, told, "tick", "end"),
            ]
        return found

    def diagonal(self) -> Element:
        """Line of equal shares."""
        return line(*self.at(0, 0), *self.at(1, 1), "chance")

    def titles(self, across: str, up: str) -> list[Element]:
        """Titles of both axes."""
        return [
            label((self.left + self.right) / 2, self.bottom + 35, across, "axis", "middle"),
            sideways(11, (self.top + self.bottom) / 2, up),
        ]
