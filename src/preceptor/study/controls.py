"""Controls: Students whose maps lack the tested information, or that have another remedy."""

from __future__ import annotations

from typing import Literal

Control = Literal[
    "shuffled", "centre", "pca", "shuffled_human", "distilled", "mixed", "masked", "dfr"
]

OF_TEACHER: tuple[Control, ...] = ("shuffled", "distilled", "masked")
"""Controls that use the maps or the soft labels of the selected Teacher."""
