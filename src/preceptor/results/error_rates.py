"""Error rates of one run: those of the test ROC curve, and those at its fixed threshold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from preceptor.evaluation.operating_points import roc_rates, threshold_rates
from preceptor.evaluation.scores import deployed_scores, positive_log_odds


def error_rates(
    tested: pd.DataFrame, classes: list[str], positive: str, threshold: float | None
) -> list[dict[str, Any]]:
    """Error rates of one run on each test set.

    The ROC curve is that of the log-odds; the threshold is applied to the float32 scores of the
    model in use.

    Args:
        tested: Score table of the test sets.
        classes: Class names.
        positive: Positive class.
        threshold: Threshold that was fixed on validation; None = there is none.

    Returns:
        Rows with set, kind (roc or fixed) and the fields of `Rate`.
    """
    lines: list[dict[str, Any]] = []
    splits, labels, sources = (
        tested[name].to_numpy(object) for name in ("split", "label", "source")
    )
    scores = positive_log_odds(tested, classes, positive)
    in_use = deployed_scores(tested, positive)
    for name in dict.fromkeys(splits):
        rows = splits == name
        truth, groups = labels[rows] == positive, list(sources[rows])
        own = [("roc", rate) for rate in roc_rates(truth, scores[rows], groups)]
        if threshold is not None:
            found = threshold_rates(truth, in_use[rows], groups, threshold)
            own += [("fixed", rate) for rate in found]
        lines += [{"set": str(name), "kind": kind} | asdict(rate) for kind, rate in own]
    return lines
