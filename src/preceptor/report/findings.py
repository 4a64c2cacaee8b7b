"""Findings of a study in words, for the page, the summary and the model card."""

from __future__ import annotations

from dataclasses import dataclass

from preceptor.report.ladder_words import rung_sentences
from preceptor.report.questions import across_domains, answers
from preceptor.report.sentences import sentences
from preceptor.report.verdict import Verdict, verdict
from preceptor.results.domain import Results, StudyResults
from preceptor.study.plan import Plan, StudyPlan


@dataclass(frozen=True)
class DomainFindings:
    """Findings of one domain.

    Args:
        verdict: Verdict on the Student.
        answers: Answers by question (RQ1, RQ2, RQ3, budget).
        sentences: Every comparison, and the rungs of every ladder, in a sentence.
    """

    verdict: Verdict
    answers: dict[str, str]
    sentences: list[str]


@dataclass(frozen=True)
class Findings:
    """Findings of a study.

    Args:
        verdict: Verdict on all domains together.
        by_domain: Findings by domain; one entry under "" without domains.
        across: Answer to RQ4; "" without domains.
    """

    verdict: Verdict
    by_domain: dict[str, DomainFindings]
    across: str = ""


def study_findings(study: StudyPlan, found: StudyResults) -> Findings:
    """Findings of a study, once its p-values are corrected over all domains."""
    parts = {
        name: domain_findings(plan, found.by_domain[name]) for name, plan in study.plans.items()
    }
    if not study.has_domains:
        return Findings(parts[""].verdict, parts)
    return Findings(verdict(found), parts, across_domains(found.domains, [*study.plans]))


def domain_findings(plan: Plan, results: Results) -> DomainFindings:
    """Findings of one domain."""
    return DomainFindings(
        verdict(results),
        answers(plan, results),
        [
            *sentences(plan, results.comparisons, results.shares),
            *rung_sentences(results.ladders_on(results.primary)),
        ],
    )
