"""DeLong's test of two models by evaluation set."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from preceptor.errors import InputError
from preceptor.evaluation.delong import delong
from preceptor.evaluation.scores import positive_log_odds


def compare_sets(
    ours: pd.DataFrame, theirs: pd.DataFrame, classes: Sequence[str], positive: str
) -> pd.DataFrame:
    """DeLong's test of two models on the same images, for each evaluation set.

    Args:
        ours: Score table of model a.
        theirs: Score table of model b, with the same rows in the same order.
        classes: Class names of both models, in any order.
        positive: Positive class.

    Returns:
        One row per set, with columns set, images, groups (0 = the set has no groups, images are
        treated as independent), auc_a, auc_b, difference, low, high, p.

    Raises:
        InputError: The tables are of different images.
    """
    if list(ours["path"]) != list(theirs["path"]):
        raise InputError("the two score tables differ in their images or in the order of images")
    found = []
    for name, own in ours.groupby("split", sort=False):
        other = theirs.loc[own.index]
        grouped = bool((own["group"] != "").any())
        result = delong(
            own["label"] == positive,
            positive_log_odds(own, classes, positive),
            positive_log_odds(other, classes, positive),
            own["group"] if grouped else None,
        )
        found.append(
            {
                "set": str(name),
                "images": len(own),
                "groups": result.units if grouped else 0,
                "auc_a": result.auc_a,
                "auc_b": result.auc_b,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p": result.p,
            }
        )
    return pd.DataFrame(found)
