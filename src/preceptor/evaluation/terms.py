"""The names of the error rates in the reader's field: attack detection, medicine, or any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Field = Literal["pad", "medical", "generic"]


@dataclass(frozen=True)
class Terms:
    """What the figures of `operating` are called.

    Args:
        positive, negative: An image of the positive class, and one of the others.
        source: What positives are divided into.
        eer: The equal error rate.
        tdr, fdr: Share of the positives and of the negatives that are called positive.
        apcer: Share of one source's positives that are missed.
        worst_apcer: Of the source where it is highest.
        bpcer: Share of the negatives that are called positive.
        acer: Half the sum of the two before.
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
        "attack", "bona fide", "attack source", "EER", "TDR", "FDR",
        "APCER", "APCER, worst source", "BPCER", "ACER",
    ),
    "medical": Terms(
        "diseased", "healthy", "group of cases", "equal error rate", "Sensitivity",
        "1 − specificity", "Missed (1 − sensitivity)", "Missed, worst group",
        "False alarms (1 − specificity)", "Mean of both errors",
    ),
    "generic": Terms(
        "positive", "negative", "source", "EER", "True positive rate", "FPR",
        "False negative rate", "False negative rate, worst source", "False positive rate",
        "Half total error rate",
    ),
}  # fmt: skip
