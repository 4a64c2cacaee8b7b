"""Tables of one domain that are used by several files of a report, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

from preceptor.evaluation.split_names import split_kind
from preceptor.report.cells import Table
from preceptor.report.rate_tables import fixed_rate_table, roc_rate_table
from preceptor.report.study_tables import budget_table
from preceptor.report.tables import set_table, source_table
from preceptor.results.domain import Results
from preceptor.results.rows import set_order
from preceptor.study.plan import Plan

SetAndBackbone = tuple[str, str]


@dataclass(frozen=True)
class DomainTables:
    """Tables of the page, table.md, summary.md and the model card; empty ones are absent.

    Args:
        order: Evaluation sets, the primary one first.
        sets: Main table by evaluation set.
        sources: AUC by source, by evaluation set and backbone.
        fixed_rates: Error rates at the threshold fixed on validation, by test set and backbone.
        roc_rates: Error rates on the test ROC curve, by test set and backbone.
        budgets: Table of annotation budgets by backbone.
    """

    order: list[str]
    sets: dict[str, Table]
    sources: dict[SetAndBackbone, Table]
    fixed_rates: dict[SetAndBackbone, Table]
    roc_rates: dict[SetAndBackbone, Table]
    budgets: dict[str, Table]

    @property
    def tests(self) -> list[str]:
        """Test sets, the primary one first."""
        return [name for name in self.order if split_kind(name) == "test"]


def domain_tables(plan: Plan, results: Results) -> DomainTables:
    """Tables of a domain.

    Args:
        plan, results: Plan and results of the domain.
    """
    study, order = plan.protocol.study, set_order(plan)
    tests = [name for name in order if split_kind(name) == "test"]

    def each(
        sets: Iterable[str], make: Callable[[str, str], Table | None]
    ) -> dict[SetAndBackbone, Table]:
        pairs = product(sets, study.students)
        return {pair: table for pair in pairs if (table := make(*pair)) is not None}

    made = {name: set_table(plan, results, name) for name in order}
    budgets = {name: budget_table(study, results, name) for name in study.students}
    return DomainTables(
        order=order,
        sets={name: table for name, table in made.items() if table is not None},
        sources=each(order, lambda one, backbone: source_table(results, one, backbone)),
        fixed_rates=each(tests, lambda one, name: fixed_rate_table(study, results, one, name)),
        roc_rates=each(tests, lambda one, name: roc_rate_table(study, results, one, name)),
        budgets={name: table for name, table in budgets.items() if table is not None},
    )
