"""Mean difference of AUCs with its interval, as the tables of the pages show it."""

from __future__ import annotations

from dataclasses import dataclass

from preceptor.runtime.formatting import interval, number


@dataclass(frozen=True)
class Difference:
    """Mean difference of AUCs.

    Args:
        mean, low, high: Mean and the ends of its 95 % interval.
        p: Exact p value, corrected by Holm's method where the row is part of the tested family.
        shown: Whether it is shown to be above 0; None = if its interval is.
    """

    mean: float
    low: float
    high: float
    p: float
    shown: bool | None = None

    @property
    def text(self) -> str:
        """Mean and interval; bold if it is shown to be above 0."""
        text = f"{number(self.mean, sign=True)} ({interval(self.low, self.high)})"
        return f"**{text}**" if (self.low > 0 if self.shown is None else self.shown) else text
