"""Agreement of models' maps with human maps of validation images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from preceptor.training.record import metric_name


def map_agreement(runs: pd.DataFrame, sets: Sequence[str]) -> pd.Series:
    """Mean correlation with human maps over validation sets at the selected epoch, by seed.

    Args:
        runs: Finished and unfinished runs of one arm, rows of `Results.runs`.
        sets: Validation sets; those without human maps are left out.

    Returns:
        float64 by seed; NaN for a run that has not finished, or without human maps.
    """
    mine = runs.drop_duplicates("seed").set_index("seed")
    names = [metric_name(one, "map_correlation") for one in sets]
    return mine[[name for name in names if name in mine]].astype(float).mean(axis=1)
