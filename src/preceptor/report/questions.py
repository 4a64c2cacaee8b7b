"""The study's questions, each with one plain sentence on what the numbers support and what not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from preceptor.evaluation.paired_tests import floor_note
from preceptor.report.sentences import (
    gain_words,
    interval_words,
    of_words,
    shuffled_maps_words,
    signed,
)
from preceptor.results.budgets import Enough, enough
from preceptor.results.domain import Results
from preceptor.results.rows import OVERALL, records
from preceptor.study.plan import Plan

QUESTIONS = {
    "RQ1": "Which Teacher?",
    "RQ2": "Does it lift every architecture?",
    "RQ3": "By how much?",
    "RQ4": "In other domains?",
    "budget": "How many annotations are enough?",
}
LEVEL = 0.05
"""At which a corrected p-value is taken for more than chance."""


def answers(plan: Plan, results: Results) -> dict[str, str]:
    """A sentence for each question that one domain can answer: RQ1, RQ2, RQ3, and budget."""
    compared = results.comparisons
    found = {
        "RQ1": _which_teacher(plan, compared),
        "RQ2": _every_backbone(plan, compared),
        "RQ3": _how_much(plan, compared, results.shares),
    }
    if plan.protocol.study.budgets:
        found["budget"] = _enough(plan, results)
    return found


def across_domains(found: pd.DataFrame) -> str:
    """RQ4: whether what was found holds in each domain.

    Args:
        found: See `StudyResults.domains`.
    """
    names = list(dict.fromkeys(found["domain"])) if not found.empty else []
    if not names:
        return "No domain has a Student to be compared yet."
    least = found.groupby("domain", sort=False)["mean"].min()
    ahead = [str(name) for name in names if least[name] > 0]
    sure = _proven(found, "domain")
    said = (
        f"The Student's mean AUC is above both baselines in {len(ahead)} of {len(names)} domains"
        f"{_some(ahead, names)}; beyond chance, corrected over all domains, in "
        f"{len(sure) or 'none'}{_some(sure, names)}"
    )
    floor = floor_note(int(found["n"].min()))
    limit = ". The domains are those at hand and no sample of domains"
    return f"{said} ({floor}){limit}: this is no statement on further ones."


def _proven(family: pd.DataFrame, by: str) -> list[str]:
    """The backbones or domains whose Student is above both baselines beyond chance."""
    return [
        str(name)
        for name, part in family.groupby(by, sort=False)
        if (part["p_holm"] <= LEVEL).all() and (part["mean"] > 0).all()
    ]


def _some(which: list[str], of: list[str]) -> str:
    """Names in brackets, where they are neither all nor none."""
    return f" ({', '.join(which)})" if 0 < len(which) < len(of) else ""


def _which_teacher(plan: Plan, compared: pd.DataFrame) -> str:
    pairs = records(compared[compared["question"] == "RQ1"]) if not compared.empty else []
    chosen = plan.teacher_choice
    choice = f" Validation chose {chosen.winner}." if chosen else ""
    if not plan.protocol.study.data_driven:
        return f"No data-driven Teacher was trained, so that the kinds cannot be compared.{choice}"
    if not pairs:
        return f"Students of the two kinds of Teacher have not been compared yet.{choice}"
    if len(pairs) == 1:
        line = pairs[0]
        support = _support(line, "human guidance makes the better Teacher", "makes the worse one")
        return (
            "Students of the human-guided Teacher have an AUC that differs by "
            f"{signed(line['mean'])} (95 % interval {interval_words(line['low'], line['high'])}) "
            f"from that of the data-driven one's: {support}.{choice}"
        )
    above = sum(line["low"] > 0 for line in pairs)
    below = sum(line["high"] < 0 for line in pairs)
    means = [line["mean"] for line in pairs]
    return (
        f"In {len(pairs)} comparisons of a human-guided with a data-driven Teacher, their Students "
        f"differ by {signed(min(means))} to {signed(max(means))}: by their uncorrected intervals "
        f"human guidance is better in {above}, worse in {below}, and not to be told apart in "
        f"{len(pairs) - above - below}.{choice}"
    )


def _every_backbone(plan: Plan, compared: pd.DataFrame) -> str:
    family = compared[compared["question"] == "RQ2"] if not compared.empty else compared
    if family.empty:
        return "No Student has been compared with a baseline yet."
    n = int(family["n"].min())
    least = family.groupby("backbone", sort=False)["mean"].min()
    proven = _proven(family, "backbone")
    scope = "" if len(least) > 1 else " One backbone says nothing of others."
    return (
        f"On {plan.protocol.primary} the Student's mean AUC is above both baselines for "
        f"{of_words(int((least > 0).sum()), len(least))}; after Holm's correction that is shown "
        f"for {of_words(len(proven), len(least))} ({floor_note(n)}).{scope}"
    )


def _how_much(plan: Plan, compared: pd.DataFrame, shares: pd.DataFrame) -> str:
    if compared.empty:
        return "No Student has been compared with a baseline yet."
    overall = compared[(compared["question"] == "overall") & (compared["backbone"] == OVERALL)]
    overall = overall[overall["b"].isin(compared[compared["question"] == "RQ2"]["b"])]
    lines = overall if not overall.empty else compared[compared["question"] == "RQ2"]
    if lines.empty:
        return "No Student has been compared with a baseline yet."
    line = records(lines.sort_values("mean", kind="stable"))[0]
    over = "the mean over backbones" if not overall.empty else "one backbone"
    said = (
        f"The Student's AUC differs from the stronger baseline's ({line['b']}) by "
        f"{signed(line['mean'])} ({over}; 95 % interval "
        f"{interval_words(line['low'], line['high'])} over {line['n']} seeds)"
    )
    controls = compared[compared["key_b"] == "shuffled"].dropna(subset=["mean"])
    if not controls.empty:
        worst = records(controls.sort_values("low", kind="stable"))[0]
        shown = shuffled_maps_words(controls, plan.protocol.study.controls_alpha)
        said += (
            f"; from that with the same maps shuffled (α {worst['alpha_b']:g}) by "
            f"{signed(worst['mean'])} ({interval_words(worst['low'], worst['high'])}): {shown}"
        )
    known = (
        shares[(shares["key"] == "student") & shares["share"].notna()] if len(shares) else shares
    )
    if len(known):
        one = records(known)[0]
        whose = f", {one['backbone']}" if len(plan.protocol.study.students) > 1 else ""
        said += (
            f"; the Student goes {one['share']:.0%} of the way to the ceiling ({one['low']:.0%} "
            f"to {one['high']:.0%}{whose})"
        )
    return said + "."


def _enough(plan: Plan, results: Results) -> str:
    """For the Student of each backbone."""
    study, said = plan.protocol.study, []
    for backbone in study.students:
        found = enough(results.budget_steps, backbone, "student", study.budget_gain)
        if found is not None:
            said.append(
                _enough_words(found, study.budgets, study.budget_gain, backbone, study.students)
            )
    if said:
        words = " ".join(said)
        return words[:1].upper() + words[1:] if len(study.students) == 1 else words
    winner = plan.winner()
    if winner is not None and winner.kind == "given":
        return "The chosen maps were given: no Student depends on how many images are annotated."
    if len(study.budgets) < 2:
        return "One number of annotated images was tried; how much more would buy needs two."
    return "Students at several numbers of annotated images have not been scored yet."


def _enough_words(
    found: Enough, sizes: tuple[int, ...], gain: float, backbone: str, students: tuple[str, ...]
) -> str:
    whose = f"{backbone}: " if len(students) > 1 else ""
    step = f"{signed(found.gain)}, 95 % interval {interval_words(found.low, found.high)}"
    if found.size is None:
        sure = "" if found.low > 0 else ", though chance is not excluded"
        return (
            f"{whose}up to {sizes[-1]:,} annotated images, the most tried, more of them still "
            f"bought at least {gain:g} AUC (the last step: {step}{sure})."
        )
    if np.isfinite(found.high) and found.high < gain:
        sure = "the interval excludes more"
    else:
        sure = f"a gain of {gain:g} or more is not excluded by so few seeds"
    return (
        f"{whose}after {found.size:,} annotated images, more bought the Student less than {gain:g} "
        f"AUC (from {found.size:,} to {found.then:,}: {step}; {sure})."
    )


def _support(line: dict[str, Any], better: str, worse: str) -> str:
    words = gain_words(line["mean"], line["low"], line["high"])
    if line["n"] < 2:
        return "one seed supports no conclusion"
    if words == "above":
        return f"this supports that {better}"
    if words == "below":
        return f"this supports that it {worse}"
    return "the numbers do not tell them apart"
