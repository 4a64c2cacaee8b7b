"""Words of the report: verdict, answers to the questions, and every comparison in a sentence.

Here it is decided what the numbers support; the sentences themselves are in `templates/words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from preceptor.metrics.paired_tests import (
    RELEVANT_DIFFERENCE,
    UNDEFINED,
    Excluded,
    PairedResult,
    excluded,
    floor_note,
    p_floor,
)
from preceptor.report.cells import names_of, short
from preceptor.results.budgets import enough
from preceptor.results.domain import Results, StudyResults
from preceptor.results.ladder import ControlGain, Ladder, RungName
from preceptor.results.rows import CONTROLS, OVERALL, records
from preceptor.study.plan import Plan, StudyPlan
from preceptor.utils.text import DASH, interval, number, percent

LEVEL = 0.05
"""Significance level of corrected p-values."""

SHOWN = (
    "A gain over a baseline is shown if p after Holm's correction is at most 0.05, a gain from the "
    "place of the maps if the 95 % intervals over all controls are above 0, and any other "
    "difference if its 95 % interval does not contain 0."
)
"""The rule of the report."""

QUESTIONS = {
    "RQ1": "Which Teacher?",
    "RQ2": "Does guidance improve every architecture?",
    "RQ3": "By how much?",
    "RQ4": "Does it help in other domains?",
    "budget": "How many annotations are enough?",
}

RUNGS: dict[RungName, tuple[str, str]] = {
    "none": ("No maps", "without maps"),
    "any": ("Any map", "with any map"),
    "teacher": ("Teacher's maps", "with the Teacher's maps"),
    "human": ("All human maps", "with all human maps"),
}
"""Name of each rung, and the same within a sentence."""

_NOT_ITS_OWN = (
    "the controls were trained at the Student's α instead of their own, so that this does not "
    "measure what the place is worth"
)
_COMPARED = ("RQ3", "control", "detector", "ceiling")  # beside the baselines


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a study.

    Args:
        kind: won, ahead, mixed, lost or open.
        headline: Headline of a few words.
        text: One or two sentences.
        place: Sentence on what the place of the Teacher's maps is worth; "" if it is unknown.
    """

    kind: str
    headline: str
    text: str
    place: str = ""

    @property
    def sentences(self) -> str:
        """All sentences."""
        return f"{self.text} {self.place}".strip()


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
    parts = {}
    for name, plan in study.plans.items():
        one = found.by_domain[name]
        said = [
            *sentences(plan, one.comparisons, one.shares),
            *rung_sentences(one.ladders_on(one.primary)),
        ]
        parts[name] = DomainFindings(verdict(one), answers(plan, one), said)
    if not study.has_domains:
        return Findings(parts[""].verdict, parts)
    return Findings(verdict(found), parts, across_domains(found.domains, [*study.plans]))


# The verdict


def verdict(results: Results | StudyResults) -> Verdict:
    """Conclusion on the primary sets of all domains, given the number of seeds.

    Of an unfinished study it is the conclusion so far, with the number of finished trainings. With
    a fixed number of seeds the Student has not won before all seeds are compared: a test at an
    earlier time, chosen by its result, would have a larger error than stated.
    """
    done, total = results.progress
    progress = f"{done} of {total} trainings are finished"
    if unscored := len(results.unscored):
        have = "have" if unscored > 1 else "has"
        progress += f", and {unscored} of them {have} no scores of the test sets"
    facts: dict[str, Any] = {"progress": progress, "unfinished": False, "count": 0}
    family = results.family
    if family.empty or family["mean"].isna().any():
        facts["case"] = "none"
    elif results.untested:  # a correction for a part of the family would be too weak
        facts |= {"case": "part", "untested": results.untested}
    else:
        facts |= _against_baselines(results, family.reset_index(drop=True))
        facts["unfinished"] = done < total or bool(unscored)
    headline, _, text = _say("verdict", **facts).partition(" --- ")
    kind = {"none": "open", "part": "open", "few": "open", "early": "ahead"}
    return Verdict(kind.get(facts["case"], facts["case"]), headline, text, place_sentence(results))


def _against_baselines(results: Results | StudyResults, family: pd.DataFrame) -> dict[str, Any]:
    """Facts on the Student and both baselines, which are compared."""
    several, backbones = family["domain"].nunique() > 1, family["backbone"].nunique()
    units = family["backbone"].astype(str)
    what = "backbone"
    if several:
        what = "domain" if backbones == 1 else "domain and backbone"
        units = family["domain"].astype(str) + ("" if backbones == 1 else " with " + units)
    worst = family.groupby(units, sort=False)["mean"].min()
    better, worse = significant(family)
    ahead, count, n = int((worst > 0).sum()), len(worst), int(family["n"].min())
    many = "pairs of domain and backbone" if what == "domain and backbone" else f"{what}s"
    below = units[worse.index].unique().tolist()
    worse_words = f"; it is significantly below a baseline for {names_of(below)}" if below else ""
    if below and count == 1:
        which = "both baselines" if len(worse) > 1 else f"“{worse['b'].iloc[0]}”"
        worse_words = f"; it is significantly below {which}"
    case = "ahead" if ahead == count else "mixed" if ahead else "lost"
    if n < 3:
        case = "few"
    elif len(better) == len(family):
        case = "early" if results.seeds is not None and n < results.seeds else "won"
    stronger = records(family.sort_values("mean", kind="stable"))[0]
    loss = count > 1 or stronger["high"] < 0  # of a loss that is shown, `worse` says more
    possible = (seeds for seeds in range(n, 64) if len(family) * p_floor(seeds) <= LEVEL)
    return {
        "case": case,
        "what": what,
        "count": count,
        "ahead": ahead,
        "where": f"{ahead} of {count} {many}" if count > 1 else worst.index[0],
        "winners": [str(name) for name in worst.index[worst > 0]],
        "worse": worse_words,
        "qualified": "" if loss else qualifying_words(stronger, results.relevant_difference),
        "here": sum(only_here(line) for line in records(family)),
        "n": n,
        "seeds": results.seeds,
        "family": len(family),
        "needed": next(possible, None),
    }


# Answers


def answers(plan: Plan, results: Results) -> dict[str, str]:
    """Answers to the questions about one domain: RQ1, RQ2, RQ3, and budget."""
    study, compared = plan.protocol.study, results.comparisons
    pairs, family = _asked(compared, "RQ1"), _family(compared)
    choice = plan.teacher_choice
    found = {
        "RQ1": _say(
            "rq1",
            margin=RELEVANT_DIFFERENCE,
            data_driven=study.data_driven,
            pairs=pairs,
            above=sum(line["low"] > 0 for line in pairs),
            below=sum(line["high"] < 0 for line in pairs),
            winner=choice.winner if choice else None,
        ),
        "RQ2": _say(
            "rq2",
            primary=plan.protocol.primary,
            count=len(study.students),
            **_counted(family, "backbone"),
        ),
        "RQ3": _how_much(plan, results),
    }
    if study.budgets:
        gain, winner = RELEVANT_DIFFERENCE, plan.winner()
        steps = [
            (name, enough(results.budget, name, "student", gain, study.budgets))
            for name in study.students
        ]
        found["budget"] = _say(
            "budget",
            known=[(name, step) for name, step in steps if step is not None],
            several=len(study.students) > 1,
            gain=gain,
            draws=study.draws,
            given=winner is not None and winner.kind == "given",
            sizes=len(study.budgets),
        )
    return found


def across_domains(found: pd.DataFrame, names: Sequence[str]) -> str:
    """Answer to RQ4: results in each domain.

    Args:
        found: Results by domain, see `StudyResults.domains`.
        names: All domains of the study, also those without results.
    """
    return _say("rq4", names=names, **_counted(found, "domain"))


def _how_much(plan: Plan, results: Results) -> str:
    compared, shares = results.comparisons, results.shares
    family = _family(compared)
    lines = family
    if not family.empty:
        overall = compared[(compared["question"] == "overall") & (compared["backbone"] == OVERALL)]
        overall = overall[overall["b"].isin(family["b"])]
        lines = family if overall.empty else overall
    known = (
        shares[(shares["key"] == "student") & shares["share"].notna()] if len(shares) else shares
    )
    return _say(
        "rq3",
        line=records(lines.sort_values("mean", kind="stable"))[0] if len(lines) else None,
        overall=lines is not family,
        margin=results.relevant_difference,
        place=place_clause(
            results.ladders_on(results.primary), results.controls_alpha, results.relevant_difference
        ),
        share=records(known)[0] if len(known) else None,
        several=len(plan.protocol.study.students) > 1,
    )


def _asked(compared: pd.DataFrame, question: str) -> list[dict[str, Any]]:
    return records(compared[compared["question"] == question]) if len(compared) else []


def _family(compared: pd.DataFrame) -> pd.DataFrame:
    return compared[compared["question"] == "RQ2"] if len(compared) else compared


def _counted(family: pd.DataFrame, by: str) -> dict[str, Any]:
    """Backbones or domains above both baselines, significantly so, and significantly below one."""
    if family.empty:
        return {"lines": 0}
    groups = {str(name): part for name, part in family.groupby(by, sort=False)}
    ahead = [
        name
        for name, part in groups.items()
        if (part["mean"] > 0).all() and (part.groupby("backbone")["b"].nunique() == 2).all()
    ]
    return {
        "lines": len(family),
        "ahead": ahead,
        "proven": [name for name in ahead if (groups[name]["p_holm"] <= LEVEL).all()],
        "worse": significant(family)[1][by].astype(str).unique().tolist(),
        "floor": floor_note(int(family["n"].min()), float(family["p_floor"].max())),
    }


def significant(family: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Comparisons in which the Student is significantly above the baseline, and those below it.

    Args:
        family: Comparisons of the tested family, with corrected p-values.
    """
    sure = family["p_holm"] <= LEVEL
    return family[sure & (family["mean"] > 0)], family[sure & (family["mean"] < 0)]


# Comparisons and ladders


def sentences(plan: Plan, compared: pd.DataFrame, shares: pd.DataFrame) -> list[str]:
    """Every comparison of a domain, and its shares of the way, in a sentence."""
    study = plan.protocol.study
    if compared.empty:
        return ["No Student has been compared with a baseline yet."]
    said, family = [], _family(compared)
    if len(family):
        facts = _counted(family, "backbone")
        better, worse = map(len, significant(family))
        facts |= {"better": better, "worse": worse, "count": len(study.students)}
        said.append(_say("family", primary=plan.protocol.primary, **facts))

    def add(questions: Iterable[str], backbone: str | None = None) -> None:
        for question in questions:
            for line in _asked(compared, question):
                if backbone in (None, line["backbone"]):
                    facts = {"primary": plan.protocol.primary, "draws": study.draws}
                    facts |= {"line": line, "margin": RELEVANT_DIFFERENCE}
                    said.append(_say("comparison", note=_alpha(plan, line), **facts))

    for backbone in study.students:
        add(("RQ2", *_COMPARED, "start"), backbone)
    add(("overall", "RQ1", "saliency"))
    if len(study.saliency) > 1 and plan.teacher_choice is not None:
        said.append(f"Teacher selected on validation: {plan.teacher_choice.reason}")
    add(("variant",))
    for line in records(shares):
        known = line["share"] is not None and bool(np.isfinite(line["share"]))
        said.append(_say("share", line=line, known=known))
    return said


def _alpha(plan: Plan, line: Mapping[str, Any]) -> str:
    """Note on the α of a control; "" for other rows."""
    if line["question"] != "control":
        return ""
    if line["alpha_b"] == 1:
        return "without guidance; "
    # Controls of plugins are trained at the Student's α alone.
    own = line["key_b"] in CONTROLS
    whose = "its own" if own else "the Student's"
    return f"at {whose} α, {line['alpha_b']:g}; "


def place_sentence(found: Results | StudyResults) -> str:
    """Sentence on the gain of the Teacher's maps over any map; "" without it."""
    parts = [found] if isinstance(found, Results) else [*found.by_domain.values()]
    several = [ladder for one in parts for ladder in one.ladders_on(one.primary)]
    clause = place_clause(several, parts[0].controls_alpha, parts[0].relevant_difference)
    return f"{clause[:1].upper()}{clause[1:]}." if clause else ""


def place_clause(found: Iterable[Ladder], controls_alpha: str, margin: float) -> str:
    """Clause on the gain of the Teacher's maps over any map; "" without it.

    Args:
        found: Ladders on the primary set, of every backbone (and domain).
        controls_alpha: α of the controls, see `StudyConfig`.
        margin: Smallest relevant difference in AUC.
    """
    known = [(one, one.place) for one in found if one.place and np.isfinite(one.place.mean)]
    if not known:
        return ""
    ladders, places = [one for one, _ in known], [place for _, place in known]
    first, place = known[0]
    line = {"low": place.low, "high": place.high}
    line |= dict(zip(("image_low", "image_high"), first.place_images, strict=True))
    ends = [min(one.mean for one in places), max(one.mean for one in places)]
    return _say(
        "place",
        ladders=ladders,
        place=place,
        ends=[*dict.fromkeys(map(_signed, ends))],
        own=controls_alpha != "student",
        not_own=_NOT_ITS_OWN,
        sure=any(interval(one.low, one.high) != DASH for one in places),
        other=other_smallest(first),
        only_here=only_here(line),
        margin_words=margin_words(place.low, place.high, margin, first.place_images),
        above=sum(one.above_all_controls for one in ladders),
        below=sum(one.high < 0 for one in places),
        some=sum(one.low > 0 and not ladder.above_all_controls for ladder, one in known),
    )


def other_smallest(ladder: Ladder) -> ControlGain | None:
    """Smallest gain over a control, if this control is not the one that stands for any map."""
    found = ladder.smallest
    if found is None or ladder.any_map is None or found.control == ladder.any_map.control:
        return None
    return found


def gained(paired: PairedResult) -> str:
    """Gain with its interval, if it has one."""
    spread = interval(paired.low, paired.high)
    return f"{_signed(paired.mean)}{f' ({spread})' if spread != DASH else ''}"


def rung_sentences(found: Iterable[Ladder]) -> list[str]:
    """AUC of every rung, one sentence per ladder."""
    said = []
    for ladder in found:
        values = []
        for rung in ladder.rungs:
            which = f" ({short(rung.key)}, {rung.setting})" if rung.name == "any" else ""
            values.append(f"{number(rung.mean)} {RUNGS[rung.name][1]}{which}")
        said.append(_say("ladder", backbone=ladder.backbone, set=ladder.set, values=values))
    return said


def any_map_words(found: Iterable[Ladder]) -> str:
    """Definition of any map, and the control that was selected for each backbone."""
    known = [(ladder.backbone, ladder.any_map) for ladder in found if ladder.any_map is not None]
    among = dict.fromkeys(f"“{short(key)}”" for _, one in known for key in one.among)
    chosen = [f"“{short(one.control)}” for {backbone}" for backbone, one in known]
    return _say("any_map", among=[*among], chosen=chosen) if among else ""


def agreement_words(found: Iterable[Ladder]) -> str:
    """Agreement of the models' maps with human maps on each rung; "" without human maps."""
    said = []
    for ladder in found:
        known = [
            f"{number(rung.agreement, 2)} {RUNGS[rung.name][1]}"
            for rung in ladder.rungs
            if np.isfinite(rung.agreement)
        ]
        said += [f"{ladder.backbone}: {names_of(known)}"] if known else []
    return _say("agreement", said=said) if said else ""


# What intervals say


def gain_words(low: float, high: float, mean: float) -> str:
    """Relation of two sides, by the interval of their difference."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "above" if mean > 0 else "not above"
    if mean == low == high == 0:
        return "equal to that of"
    return "above" if low > 0 else "below" if high < 0 else "not distinguishable from"


def margin_words(
    low: float, high: float, margin: float, images: tuple[float, float] = UNDEFINED
) -> str:
    """Relevant differences that intervals exclude, in words; "" if they exclude neither side.

    Args:
        low, high: Ends of the interval of a difference over seeds.
        margin: Smallest relevant difference.
        images: Interval over seeds and images; NaN if there is none, so that what is excluded is
            only so for these test images.

    Example:
        >>> margin_words(-0.004, 0.006, 0.01)
        'equivalent within ±0.01 on these test images'
        >>> margin_words(-0.02, 0.006, 0.01, images=(-0.03, 0.008))
        'a gain of 0.01 is excluded'
    """
    words = {
        Excluded.BOTH: f"equivalent within ±{margin:g}",
        Excluded.GAIN: f"a gain of {margin:g} is excluded",
        Excluded.LOSS: f"a loss of {margin:g} is excluded",
        Excluded.NEITHER: "",
    }[excluded(low, high, margin, images)]
    return f"{words} on these test images" if words and not np.isfinite(images).all() else words


def only_here(line: Mapping[str, Any]) -> bool:
    """Whether an interval over seeds excludes 0, and that over seeds and images does not."""
    images = line["image_low"] <= 0 <= line["image_high"]
    return not line["low"] <= 0 <= line["high"] and bool(images)


def qualifying_words(line: Mapping[str, Any], margin: float) -> str:
    """What the intervals of a comparison show besides its sign, as a further clause; or "".

    If the interval over seeds contains 0, the relevant differences that are excluded; otherwise
    whether the difference is smaller than the margin, or holds for these test images alone.

    Args:
        line: Row of `Results.comparisons`.
        margin: Smallest relevant difference.

    Example:
        >>> line = {"low": 0.001, "high": 0.003, "image_low": -0.01, "image_high": 0.04}
        >>> qualifying_words(line, 0.01)
        '; not shown for other test images'
    """
    low, high, images = line["low"], line["high"], (line["image_low"], line["image_high"])
    words = margin_words(low, high, margin, images)
    if only_here(line):
        words = "not shown for other test images"
    elif not low <= 0 <= high and excluded(low, high, margin, images) is not Excluded.BOTH:
        words = ""
    return f"; {words}" if words else ""


# Templates


def _signed(value: float) -> str:
    return number(value, sign=True)


def _ends(low: float, high: float) -> str:
    found = interval(low, high)
    return "undefined for one seed" if found == DASH else found


def _spread(line: Any) -> str:
    low, high = (line["low"], line["high"]) if isinstance(line, dict) else (line.low, line.high)
    return f"95 % interval {_ends(low, high)}"


def _of_backbones(won: Sequence[str], count: int) -> str:
    if count == 1:
        return "the backbone" if won else "no backbone"
    return f"{len(won) or 'none'} of {count} backbones"


def _seeds(count: int, unit: str = "seed") -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


@pass_context
def _more(context: Context, line: Mapping[str, Any]) -> str:
    return qualifying_words(line, context["margin"])


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("preceptor.report", "templates/words"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "above": lambda line: gain_words(line["low"], line["high"], line["mean"]),
        "gained": gained,
        "images": lambda line: _ends(line["image_low"], line["image_high"]),
        "more": _more,
        "names": names_of,
        "of_backbones": _of_backbones,
        "percent": percent,
        "seeds": _seeds,
        "short": short,
        "signed": _signed,
        "spread": _spread,
    }
    return found


def _say(template: str, **facts: Any) -> str:
    """Sentences of a template."""
    text = _templates().get_template(f"{template}.j2").render(facts)
    return re.sub(r"[ \n]+", " ", text).strip()
