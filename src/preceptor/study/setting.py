"""Setting of a guided run that is selected on validation: α and the way of guiding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Setting:
    """Setting of a run that is selected on validation.

    Args:
        alpha: α of the loss; 1 without guidance.
        guidance: Name in `StudyConfig.guidances`; "" = the training settings of the study.

    Example:
        >>> str(Setting(0.1)), str(Setting(0.1, "cells")), str(Setting(1.0, "cells"))
        ('α 0.1', 'cells, α 0.1', 'cells')
    """

    alpha: float
    guidance: str = ""

    def __str__(self) -> str:
        parts = [self.guidance] if self.guidance else []
        return ", ".join([*parts, f"α {self.alpha:g}"] if self.alpha != 1 or not parts else parts)
