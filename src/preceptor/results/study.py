"""Results of a whole study: results by domain, and RQ4 over all domains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from preceptor.evaluation.scores import ALL_SOURCES
from preceptor.results.comparisons import correct
from preceptor.results.domain import Results, gather
from preceptor.results.rows import records
from preceptor.results.schema import DOMAINS
from preceptor.study.study_plan import StudyPlan


@dataclass
class StudyResults:
    """Results of a study.

    Args:
        by_domain: Results by domain; one entry under "" without domains.
        domains: RQ4, a row a domain, backbone and baseline: the AUCs of both sides (mean and std
            over seeds) and their paired difference as in `comparisons.compare`; columns in
            `schema.DOMAINS`.
    """

    by_domain: dict[str, Results]
    domains: pd.DataFrame = field(default_factory=DOMAINS.empty)

    @property
    def first(self) -> Results:
        """Results of the first domain, or the only ones."""
        return next(iter(self.by_domain.values()))

    @property
    def seeds(self) -> int | None:
        """Number of seeds, the same in all domains; None if it is found by looks."""
        return self.first.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds after which the study may stop; the same in all domains."""
        return self.first.looks

    @property
    def relevant_difference(self) -> float:
        """Smallest relevant difference in AUC; the same in all domains."""
        return self.first.relevant_difference

    @property
    def family(self) -> pd.DataFrame:
        """Comparisons of the tested family, of all domains."""
        parts = [family for one in self.by_domain.values() if len(family := one.family)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def untested(self) -> list[str]:
        """Backbones, with their domain, whose Student has not been compared with both baselines."""
        several = len(self.by_domain) > 1
        return [
            f"{name} in {domain}" if several else name
            for domain, one in self.by_domain.items()
            for name in one.untested
        ]

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of known trainings."""
        counts = [one.progress for one in self.by_domain.values()]
        return sum(done for done, _ in counts), sum(total for _, total in counts)

    @property
    def missing(self) -> list[str]:
        """Descriptions of trainings that have not finished, with their domain."""
        return self._named(lambda one: one.missing)

    @property
    def unscored(self) -> list[str]:
        """Descriptions of finished trainings without scores of the test sets, with their domain."""
        return self._named(lambda one: one.unscored)

    def _named(self, texts: Callable[[Results], list[str]]) -> list[str]:
        return [
            f"{one.domain}: {text}" if one.domain else text
            for one in self.by_domain.values()
            for text in texts(one)
        ]


def gather_study(study: StudyPlan) -> StudyResults:
    """Collect the results of every domain; the tested family includes all domains."""
    found = StudyResults({name: gather(plan) for name, plan in study.plans.items()})
    corrected = correct([one.comparisons for one in found.by_domain.values()])
    for one, comparisons in zip(found.by_domain.values(), corrected, strict=True):
        one.comparisons = comparisons
    if study.has_domains:
        found.domains = _domains(found)
    return found


def _domains(found: StudyResults) -> pd.DataFrame:
    lines = []
    for line in records(found.family):
        results = found.by_domain[line["domain"]]
        table = results.table
        whole = table[(table["set"] == results.primary) & (table["source"] == ALL_SOURCES)]
        whole = whole[whole["backbone"] == line["backbone"]].set_index("key")
        kept = {key: value for key, value in line.items() if key not in ("question", "a")}
        lines.append(
            kept
            | {
                "primary": results.primary,
                "images": int(whole.loc["student", "images"]),
                "student": whole.loc["student", "mean"],
                "student_std": whole.loc["student", "std"],
                "baseline": whole.loc[line["key_b"], "mean"],
                "baseline_std": whole.loc[line["key_b"], "std"],
            }
        )
    return DOMAINS.table(pd.DataFrame(lines))
