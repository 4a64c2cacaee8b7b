"""Results of a study whose score files a test has changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preceptor.results.domain import Results
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm, Member
from tests.studies import gather

Changed = Callable[[Callable[[Path, Member], None]], Results]


def drawn_effect(arm: Arm, seed: int) -> float:
    """Another one in every arm and seed."""
    return float(np.random.default_rng([seed, *arm.label.encode()]).normal(0.5, 0.3))


def scores_of(plan: Plan, member: Member) -> Path:
    """Folder of the test scores of a run."""
    return plan.protocol.evaluation_folder(plan.protocol.evaluation_id(member))


def results_after(plan: Plan, store: Path, change: Callable[[Path, Member], None]) -> Results:
    """Results after a change of the folder of the test scores of each run, in a copy."""
    shutil.copytree(plan.protocol.store, store)
    kept, plan.protocol.store = plan.protocol.store, store
    try:
        for member in plan.members:
            change(scores_of(plan, member), member)
        return gather(plan)
    finally:
        plan.protocol.store = kept


@pytest.fixture(scope="module")
def whole(plan: Plan) -> Results:
    return gather(plan)


@pytest.fixture
def changed(plan: Plan, tmp_path: Path) -> Changed:
    """As `results_after`."""
    return lambda change: results_after(plan, tmp_path / "store", change)
