"""Answers to the research questions, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from preceptor.evaluation.paired_tests import RELEVANT_DIFFERENCE
from preceptor.report.ladder_words import place_clause
from preceptor.report.sentences import (
    LEVEL,
    ahead_of_both,
    floor_words,
    gain_words,
    interval_words,
    names_of,
    of_words,
    qualifying_words,
    seeds_of,
    signed,
    significant,
    spread_words,
)
from preceptor.results.budgets import Enough, enough
from preceptor.results.domain import Results
from preceptor.results.rows import OVERALL, records
from preceptor.runtime.text import percent
from preceptor.study.config import StudyConfig
from preceptor.study.plan import Plan

QUESTIONS = {
    "RQ1": "Which Teacher?",
    "RQ2": "Does guidance improve every architecture?",
    "RQ3": "By how much?",
    "RQ4": "Does it help in other domains?",
    "budget": "How many annotations are enough?",
}


def answers(plan: Plan, results: Results) -> dict[str, str]:
    """Answers to the questions about one domain: RQ1, RQ2, RQ3, and budget."""
    compared = results.comparisons
    found = {
        "RQ1": _which_teacher(plan, compared),
        "RQ2": _every_backbone(plan, compared),
        "RQ3": _how_much(plan, results),
    }
    if plan.protocol.study.budgets:
        found["budget"] = _enough(plan, results)
    return found


def across_domains(found: pd.DataFrame, names: Sequence[str]) -> str:
    """Answer to RQ4: results in each domain.

    Args:
        found: Results by domain, see `StudyResults.domains`.
        names: All domains of the study, also those without results.
    """
    if found.empty:
        return "No Student of any domain has been compared with a baseline yet."
    ahead = ahead_of_both(found, "domain")
    sure = _proven(found, "domain")
    said = (
        f"The Student's mean AUC is above both baselines in {len(ahead)} of {len(names)} domains"
        f"{_some(ahead, names)}; significantly, after correction over all domains, in "
        f"{len(sure) or 'none'}{_some(sure, names)}{_worse(found, 'domain')}"
    )
    floor = floor_words(found)
    limit = "The domains are not a random sample: the result does not extend to other domains."
    return f"{said} ({floor}). {limit}"


def _proven(family: pd.DataFrame, by: str) -> list[str]:
    """Backbones or domains whose Student is significantly above both baselines."""
    return [
        str(name)
        for name, part in family.groupby(by, sort=False)
        if name in ahead_of_both(family, by) and (part["p_holm"] <= LEVEL).all()
    ]


def _worse(family: pd.DataFrame, by: str) -> str:
    """Note on backbones or domains whose Student is significantly below a baseline."""
    names = [str(name) for name in significant(family)[1][by].unique()]
    return f", and significantly below a baseline for {names_of(names)}" if names else ""


def _some(which: Sequence[str], of: Sequence[str]) -> str:
    """Names in brackets, unless they are all or none."""
    return f" ({', '.join(which)})" if 0 < len(which) < len(of) else ""


def _which_teacher(plan: Plan, compared: pd.DataFrame) -> str:
    pairs = records(compared[compared["question"] == "RQ1"]) if not compared.empty else []
    chosen = plan.teacher_choice
    choice = f" Selected on validation: {chosen.winner}." if chosen else ""
    if not plan.protocol.study.data_driven:
        return (
            "Without a data-driven Teacher, human-guided and data-driven Teachers cannot be "
            f"compared.{choice}"
        )
    if not pairs:
        return f"Students of the two kinds of Teacher have not been compared yet.{choice}"
    if len(pairs) == 1:
        line = pairs[0]
        support = _support(
            line,
            "the human-guided Teacher is better",
            "the human-guided Teacher is worse",
            RELEVANT_DIFFERENCE,
        )
        return (
            "The AUC of Students of the human-guided Teacher minus that of Students of the "
            f"data-driven Teacher is {signed(line['mean'])} ({spread_words(line)}): "
            f"{support}.{choice}"
        )
    above = sum(line["low"] > 0 for line in pairs)
    below = sum(line["high"] < 0 for line in pairs)
    stopped = sum(line["stopped"] for line in pairs)
    early = f"; {stopped} were stopped early by validation and have no interval" if stopped else ""
    means = [line["mean"] for line in pairs]
    return (
        f"In {len(pairs)} comparisons of a human-guided with a data-driven Teacher, the AUC of "
        f"their Students differs by {signed(min(means))} to {signed(max(means))}: by uncorrected "
        f"intervals, human guidance is better in {above}, worse in {below}, and not "
        f"distinguishable in {len(pairs) - above - below - stopped}{early}.{choice}"
    )


def _every_backbone(plan: Plan, compared: pd.DataFrame) -> str:
    family = compared[compared["question"] == "RQ2"] if not compared.empty else compared
    if family.empty:
        return "No Student has been compared with a baseline yet."
    count, proven = len(plan.protocol.study.students), _proven(family, "backbone")
    scope = "" if count > 1 else " The result does not extend to other backbones."
    return (
        f"On {plan.protocol.primary} the Student's mean AUC is above both baselines for "
        f"{of_words(len(ahead_of_both(family, 'backbone')), count)}; after Holm's correction it is "
        f"significant for {of_words(len(proven), count)}{_worse(family, 'backbone')} "
        f"({floor_words(family)}).{scope}"
    )


def _how_much(plan: Plan, results: Results) -> str:
    compared, shares = results.comparisons, results.shares
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
        f"The Student's AUC minus that of the stronger baseline ({line['b']}) is "
        f"{signed(line['mean'])} ({over}; 95 % interval "
        f"{interval_words(line['low'], line['high'])} over {seeds_of(line['n'])}"
        f"{qualifying_words(line, results.relevant_difference)})"
    )
    place = place_clause(
        results.ladders_on(results.primary), results.controls_alpha, results.relevant_difference
    )
    said += f"; {place}" if place else ""
    known = (
        shares[(shares["key"] == "student") & shares["share"].notna()] if len(shares) else shares
    )
    if len(known):
        one = records(known)[0]
        whose = f", {one['backbone']}" if len(plan.protocol.study.students) > 1 else ""
        said += (
            f"; the Student covers {percent(one['share'])} of the way to the ceiling "
            f"({percent(one['low'])} to {percent(one['high'])}{whose})"
        )
    return said + "."


def _enough(plan: Plan, results: Results) -> str:
    """Answer on the annotation budget for the Student of each backbone."""
    study, said = plan.protocol.study, []
    gain = RELEVANT_DIFFERENCE
    for backbone in study.students:
        found = enough(results.budget, backbone, "student", gain, study.budgets)
        if found is not None:
            said.append(_enough_words(found, study, gain, backbone))
    if said:
        words = " ".join(said)
        return words[:1].upper() + words[1:] if len(study.students) == 1 else words
    winner = plan.winner()
    if winner is not None and winner.kind == "given":
        return (
            "The selected maps were given: Students do not depend on the number of annotated "
            "images."
        )
    if len(study.budgets) < 2:
        return "The budget has one number of annotated images; a comparison needs two."
    return "Students for several numbers of annotated images have not been scored yet."


def _enough_words(found: Enough, study: StudyConfig, gain: float, backbone: str) -> str:
    whose = f"{backbone}: " if len(study.students) > 1 else ""
    here = "" if study.draws else " on these test images"
    step = (
        f"from {found.start:,} to {found.then:,}: {signed(found.gain)}, 95 % interval "
        f"{interval_words(found.low, found.high)}"
    )
    if found.size is not None:
        return (
            f"{whose}{found.size:,} annotated images are enough: for every larger number of the "
            f"budget, a gain of {gain:g} in the Student's AUC is excluded{here} (the interval that "
            f"extends furthest, {step})."
        )
    if found.low > 0:
        least = f" by at least {gain:g}" if found.low >= gain else ""
        less = "" if least else f"; less than {gain:g} is not excluded"
        return (
            f"{whose}the last step of the budget, to {found.then:,} annotated images, increases "
            f"the AUC{least}{here} ({step}{less})."
        )
    return (
        f"{whose}how many annotated images are enough is not known: for no number of the budget, "
        f"a gain of {gain:g} by more of them is excluded (the last step, {step})."
    )


def _support(line: dict[str, Any], better: str, worse: str, margin: float) -> str:
    words = gain_words(line["mean"], line["low"], line["high"])
    if line["stopped"]:
        return "the number of seeds depended on the difference, which supports no conclusion"
    if line["n"] < 2:
        return "one seed supports no conclusion"
    if words == "above":
        return f"this indicates that {better}"
    if words == "below":
        return f"this indicates that {worse}"
    sure = qualifying_words(line, margin)
    return f"the numbers do not distinguish the two{sure}"
