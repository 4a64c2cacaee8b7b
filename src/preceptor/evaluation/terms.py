"""Names of error rates by field: presentation attack detection, medicine, or generic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Field = Literal["pad", "medical", "generic"]


@dataclass(frozen=True)
class Terms:
    """Names of the error rates of `operating_points`.

    Args:
        positive, negative: Name of an image of the positive class, and of the other classes.
        source: Name of a source of positives.
        eer: Name of the equal error rate.
        tdr, fdr: Names of the shares of positives and of negatives classified as positive.
        apcer: Name of the share of the positives of one source classified as negative.
        worst_apcer: Name of the largest such share over sources.
        bpcer: Name of the share of negatives classified as positive.
        acer: Name of the mean of the previous two.
    """

    positive: str
    negative: str
    source: str
    eer: str
    tdr: str
    fdr: str
    apcer: str
    worst_apcer: str
    bpcer: str
    acer: str


TERMS: dict[Field, Terms] = {
    "pad": Terms(
        "attack",
        "bona fide",
        "attack source",
        "EER",
        "TDR",
        "FDR",
        "APCER",
        "APCER, worst source",
        "BPCER",
        "ACER",
    ),
    "medical": Terms(
        "diseased",
        "healthy",
        "group of cases",
        "equal error rate",
        "Sensitivity",
        "1 − specificity",
        "Missed (1 − sensitivity)",
        "Missed, worst group",
        "False alarms (1 − specificity)",
        "Mean of both errors",
    ),
    "generic": Terms(
        "positive",
        "negative",
        "source",
        "EER",
        "True positive rate",
        "FPR",
        "False negative rate",
        "False negative rate, worst source",
        "False positive rate",
        "Half total error rate",
    ),
}
