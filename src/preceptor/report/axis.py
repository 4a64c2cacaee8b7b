"""Horizontal axis of a figure: its scale, grid and tick labels."""

from __future__ import annotations

from preceptor.report.svg import Element, digits, label, line, thinned, ticks
from preceptor.runtime.text import number


class Axis:
    """Horizontal axis over round numbers that cover an interval.

    Args:
        low, high: Interval of the values.
        left, right: Ends of the axis in the figure.
        signed: Whether the values are differences: labels have signs, and 0 is emphasized.
    """

    def __init__(
        self, low: float, high: float, left: float, right: float, *, signed: bool = False
    ) -> None:
        if signed:
            low, high = min(0.0, low), max(0.0, high)
        self.marks = ticks(low, high)
        self.left, self.right, self.signed = left, right, signed

    def x(self, value: float) -> float:
        """Place of a value.

        Example:
            >>> Axis(0, 4, 100, 500).x(2)
            300.0
        """
        scale = (self.right - self.left) / (self.marks[-1] - self.marks[0])
        return self.left + (value - self.marks[0]) * scale

    def drawn(self, top: float, bottom: float, title: str) -> tuple[list[Element], Element]:
        """Grid with the labels that do not overlap, and the title below them."""
        marks = self.marks
        texts = [number(mark, digits(marks), sign=self.signed) for mark in marks]
        kept = marks.index(0.0) if self.signed else 0
        written = thinned(texts, self.x(marks[1]) - self.x(marks[0]), kept)
        found: list[Element] = []
        for mark, text, told in zip(marks, texts, written, strict=True):
            x, kind = self.x(mark), "zero" if self.signed and not mark else "grid"
            found.append(line(x, top, x, bottom, kind))
            found += [label(x, bottom + 16, text, "tick", "middle")] if told else []
        middle = (self.left + self.right) / 2
        return found, label(middle, bottom + 34, title, "axis", "middle")
