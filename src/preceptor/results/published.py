"""Published results, beside those of a study of the same data.

"Teaching AI to Teach: Leveraging Limited Human Salience Data Into Unlimited Saliency-Based
Training", Crum, Boyd, Bowyer, Czajka, BMVC 2023, Table 2: AUC on faces of unseen generators, mean ±
standard deviation. Teacher: Xception and CAM; Students at α 0.01; Baseline 1 at α 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from preceptor.metrics.paired_tests import mean_std, t_interval
from preceptor.metrics.scores import ALL_SOURCES
from preceptor.results.domain import Results
from preceptor.results.rows import select_arm
from preceptor.study.config import Publication


@dataclass(frozen=True)
class Published:
    """Published result.

    Args:
        backbone: Name of the backbone in timm.
        key: Row of the main table: baseline1_paper, baseline2 or student.
        mean, std: Mean and standard deviation of the AUC.
    """

    backbone: str
    key: str
    mean: float
    std: float


@dataclass(frozen=True)
class Reproduction:
    """Result of a study beside the published one.

    Args:
        published: Published result.
        mean, std, n: Mean and standard deviation (n − 1) over the seeds of the study, and their
            number.
        difference: Mean of the study minus the published mean.
        low, high: 95 % t interval of the difference over the seeds of the study. The published mean
            is taken as exact, since the number of trainings behind it is not known.
    """

    published: Published
    mean: float
    std: float
    n: int
    difference: float
    low: float
    high: float


def _table(
    values: Mapping[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]],
) -> tuple[Published, ...]:
    keys = ("baseline1_paper", "baseline2", "student")
    return tuple(
        Published(backbone, key, *value)
        for backbone, row in values.items()
        for key, value in zip(keys, row, strict=True)
    )


PUBLISHED: Mapping[Publication, tuple[Published, ...]] = {
    "teaching-ai-to-teach": _table(
        {
            "densenet121": ((0.633, 0.04), (0.629, 0.039), (0.767, 0.020)),
            "resnet50": ((0.612, 0.05), (0.555, 0.061), (0.718, 0.012)),
            "legacy_xception": ((0.730, 0.02), (0.586, 0.074), (0.743, 0.005)),
            "inception_v3": ((0.679, 0.03), (0.610, 0.035), (0.746, 0.019)),
        }
    )
}


def reproductions(publication: Publication, results: Results) -> Sequence[Reproduction]:
    """Results of a study on its primary set beside the published ones.

    Args:
        publication: Name of the publication.
        results: Results of the study; those that are missing are left out.
    """
    if results.figures.empty:
        return []
    whole = results.figures
    whole = whole[(whole["set"] == results.primary) & (whole["source"] == ALL_SOURCES)]
    rows = {row.key: row for row in results.rows}
    found = []
    for one in PUBLISHED[publication]:
        row = rows.get(one.key)
        if row is None or one.backbone not in row.arms:
            continue
        aucs = select_arm(whole, row.arms[one.backbone])["auc"].dropna().to_numpy(float)
        if not len(aucs):
            continue
        mean, std = mean_std(aucs)
        low, high = (end - one.mean for end in t_interval(aucs))
        found.append(Reproduction(one, mean, std, len(aucs), mean - one.mean, low, high))
    return found
