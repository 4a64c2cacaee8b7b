"""Words of the report: the verdict and the answers to the questions.

Here it is decided what the numbers support; the sentences themselves are in `templates/words`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from preceptor.metrics.paired_tests import (
    RELEVANT_DIFFERENCE,
    UNDEFINED,
    Excluded,
    PairedResult,
    excluded,
    p_floor,
)
from preceptor.report.blocks import names_of, short
from preceptor.results.comparisons import LEVEL, shown
from preceptor.results.domain import Hints, Results, StudyResults, hints_of
from preceptor.results.ladder import ControlGain, Ladder, RungName, enough
from preceptor.results.record import records, whole_set
from preceptor.study.plan import Plan, StudyPlan
from preceptor.utils.text import DASH, duration, interval, number, percent

SHOWN = (
    "A difference is shown if its 95 % interval does not contain 0 and its exact p, for a baseline "
    "after Holm's correction, is at most 0.05; a gain from the place of the maps is shown if this "
    "holds over every control."
)
"""The rule of the report, see `comparisons.shown`."""

QUESTIONS = {
    "RQ1": "Which Teacher?",
    "RQ2": "Does guidance improve every architecture?",
    "RQ3": "By how much?",
    "RQ4": "Does it help in other domains?",
    "budget": "How many annotations are enough?",
}

RUNGS: dict[RungName, str] = {
    "none": "No maps",
    "any": "Any map",
    "teacher": "Teacher's maps",
    "human": "All human maps",
}
"""Name of each rung."""


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a study."""

    kind: str  # won, ahead, mixed, lost or open
    headline: str
    text: str
    place: str = ""

    @property
    def sentences(self) -> str:
        """All sentences."""
        return f"{self.text} {self.place}".strip()


@dataclass(frozen=True)
class DomainFindings:
    """Findings of one domain."""

    verdict: Verdict
    answers: dict[str, str]  # answers by question (RQ1, RQ2, RQ3, budget)
    best: str  # the model in `best/`; "" without one
    hints: list[tuple[str, str]]  # titles and sentences of `Hints`


@dataclass(frozen=True)
class Findings:
    """Findings of a study."""

    verdict: Verdict
    by_domain: dict[str, DomainFindings]  # findings by domain; one entry under "" without domains
    across: str = ""  # answer to RQ4; "" without domains
    best: str = ""  # the models in `best/`


def closing(findings: Findings, study: StudyResults) -> dict[str, str]:
    """What a study found, how sure this is, and the model that it hands over."""
    verdict, results = findings.verdict, study.first
    lines = [] if study.has_domains or results.untested else hardest(results.comparisons)
    facts = {"line": lines[0] if lines else None, "primary": results.setup.primary}
    several = _asked(results.comparisons, "RQ2")["backbone"].nunique() > 1
    found, sure = parts_of("closing", verdict=verdict, several=several, **facts)
    return {"found": found, "sure": sure, "best": findings.best}


def study_findings(study: StudyPlan, results: StudyResults) -> Findings:
    """Findings of a study, once its p-values are corrected over all domains."""
    parts = {
        name: DomainFindings(
            verdict(domain),
            answers(study.plans[name], domain),
            say("best", best=domain.best) if domain.best else "",
            _hints(hints_of(study.plans[name], domain)),
        )
        for name, domain in results.by_domain.items()
    }
    if not study.has_domains:
        return Findings(parts[""].verdict, parts, best=parts[""].best)
    students = len(results.first.setup.students)
    across = across_domains(results.domains, [*study.plans], results.seeds, students)
    best = " ".join(f"{name}: {part.best}" for name, part in parts.items() if part.best)
    return Findings(verdict(results), parts, across, best)


# The verdict


def verdict(results: Results | StudyResults) -> Verdict:
    """Conclusion on the primary sets of all domains, given the number of seeds."""
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
    headline, text = parts_of("verdict", **facts)
    kind = {"none": "open", "part": "open", "few": "open", "early": "ahead", "solved": "mixed"}
    return Verdict(kind.get(facts["case"], facts["case"]), headline, text, place_sentence(results))


SOLVED = 0.9995
"""AUC that is 1.000 in tables, above which nothing can be gained."""


def _is_solved(results: Results | StudyResults) -> bool:
    """Whether the network without maps cannot be improved, on the primary sets of all domains."""
    parts = [results] if isinstance(results, Results) else [*results.by_domain.values()]
    tables = [whole_set(part.table, part.setup.primary) for part in parts]
    aucs = [one.loc[one["key"] == "baseline2", "mean"] for one in tables]
    return all(len(own) and (own >= SOLVED).all() for own in aucs)


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
    ahead, count = int((worst > 0).sum()), len(worst)
    n, most = int(family["n"].min()), int(family["n"].max())
    many = "pairs of domain and backbone" if what == "domain and backbone" else f"{what}s"
    below = units[worse.index].unique().tolist()
    worse_words = f"; it is significantly below a baseline for {names_of(below)}" if below else ""
    if below and count == 1:
        which = "both baselines" if len(worse) > 1 else f"“{worse['b'].iloc[0]}”"
        worse_words = f"; it is significantly below {which}"
    worse_words += " on these test images" if any(map(only_here, records(worse))) else ""
    case = "ahead" if ahead == count else "mixed" if ahead else "lost"
    if _is_solved(results):
        case = "solved"
    elif n < 3:
        case = "few"
    elif len(better) == len(family):
        case = "early" if n < results.seeds else "won"
    stronger = records(family.sort_values("mean", kind="stable"))[0]
    loss = count > 1 or sign_of(stronger) < 0  # of a loss that is shown, `worse` says more
    possible = (seeds for seeds in range(most, most + 64) if len(family) * p_floor(seeds) <= LEVEL)
    return {
        "case": case,
        "what": what,
        "count": count,
        "ahead": ahead,
        "where": f"{ahead} of {count} {many}" if count > 1 else worst.index[0],
        "winners": [str(name) for name in worst.index[worst > 0]],
        "worse": worse_words,
        "qualified": "" if loss else qualifying_words(stronger),
        "proven": len(better),
        "here": sum(only_here(line) for line in records(better)),
        "n": n,
        "most": most,
        "seeds": results.seeds,
        "family": len(family),
        "needed": next(possible, None),
    }


# Answers


def answers(plan: Plan, results: Results) -> dict[str, str]:
    """Answers to the questions about one domain: RQ1, RQ2, RQ3, and budget."""
    study, compared = plan.protocol.study, results.comparisons
    pairs, family = records(_asked(compared, "RQ1")), _asked(compared, "RQ2")
    choice = plan.teacher_choice
    texts = {
        "RQ1": say(
            "rq1",
            both=study.data_driven and bool(study.teacher_alphas),
            pairs=pairs,
            above=sum(sign_of(line) > 0 for line in pairs),
            below=sum(sign_of(line) < 0 for line in pairs),
            winner=choice.winner if choice else None,
        ),
        "RQ2": say(
            "rq2",
            primary=plan.protocol.primary,
            count=len(study.students),
            **_counted(family, "backbone", len(plan.seeds)),
        ),
        "RQ3": _how_much(plan, results),
    }
    if study.budgets:
        gain, winner = RELEVANT_DIFFERENCE, plan.winner()
        sizes, seeds = study.budgets, len(plan.seeds)
        steps = {name: enough(results.budget, name, sizes, seeds) for name in study.students}
        texts["budget"] = say(
            "budget",
            known=[(name, step) for name, step in steps.items() if step is not None],
            several=len(study.students) > 1,
            gain=gain,
            draws=study.draws,
            given=winner is not None and winner.kind == "given",
            sizes=len(study.budgets),
        )
    return texts


def across_domains(
    domains: pd.DataFrame, names: Sequence[str], seeds: int, students: int = 1
) -> str:
    """Answer to RQ4: results in each domain that has all Students, after some of the seeds."""
    return say("rq4", names=names, **_counted(domains, "domain", seeds, students))


def _how_much(plan: Plan, results: Results) -> str:
    lines, shares = hardest(results.comparisons), results.shares
    # An interval wider than twice the way comes of a ceiling that is hardly above the baseline.
    narrow = shares[shares["high"] - shares["low"] < 2] if len(shares) else shares
    return say(
        "rq3",
        line=lines[0] if lines else None,
        share=records(narrow)[0] if len(narrow) else None,
        several=len(plan.protocol.study.students) > 1,
    )


def hardest(compared: pd.DataFrame) -> list[dict[str, Any]]:
    """Comparisons with both baselines, the stronger one first; of several backbones their means."""
    family, overall = (_asked(compared, one).dropna(subset="mean") for one in ("RQ2", "overall"))
    family = family[family.groupby("backbone")["b"].transform("nunique") == 2]
    overall = overall[overall["b"].isin(family["b"])]  # without that of the ceiling
    return records((overall if len(overall) == 2 else family).sort_values("mean", kind="stable"))


def _asked(compared: pd.DataFrame, question: str) -> pd.DataFrame:
    return compared[compared["question"] == question]


def _counted(family: pd.DataFrame, by: str, seeds: int, backbones: int = 1) -> dict[str, Any]:
    """Backbones or domains above both baselines, significantly so, and significantly below one."""
    groups = {
        str(name): part
        for name, part in ([] if family.empty else family.groupby(by, sort=False))
        if (of := part.dropna(subset="mean").groupby("backbone")["b"].nunique()).eq(2).all()
        and len(of) >= backbones
    }
    if not groups:
        return {"compared": 0}
    ahead = [name for name, part in groups.items() if (part["mean"] > 0).all()]
    n = int(family["n"].min())
    missing = f"; only {n} of {seeds} seeds, and the tests need all" if n < seeds else ""
    return {
        "compared": len(groups),
        "ahead": ahead,
        "proven": [
            name for name in ahead if len(significant(groups[name])[0]) == len(groups[name])
        ],
        "worse": significant(family)[1][by].astype(str).unique().tolist(),
        "floor": f"{_seeds(n)}: p cannot fall below {p_floor(n):.3g}{missing}",
    }


def significant(family: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Comparisons in which the Student is significantly above the baseline, and those below it."""
    signs = pd.Series([sign_of(line) for line in records(family)], family.index, dtype=int)
    return family[signs > 0], family[signs < 0]


def sign_of(line: Mapping[str, Any]) -> int:
    """Sign of a difference that is shown, else 0; in the tested family with the corrected p."""
    tested = line.get("question", "RQ2") == "RQ2"  # as all comparisons over domains
    return shown(line["low"], line["high"], line["p_holm" if tested else "p"])


def _hints(hints: Hints) -> list[tuple[str, str]]:
    """Titles and sentences of hints."""
    parts = parts_of("hints", hints=hints)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


# Ladders


def place_sentence(results: Results | StudyResults) -> str:
    """Sentence on the gain of the Teacher's maps over any map; "" without it."""
    parts = [results] if isinstance(results, Results) else [*results.by_domain.values()]
    every = [ladder for part in parts for ladder in part.primary_ladders]
    measured = [(one, one.place) for one in every if one.place and np.isfinite(one.place.mean)]
    if not measured:
        return ""
    ladders, places = zip(*measured, strict=True)
    first, place = measured[0]
    signs = [shown(gain.low, gain.high, gain.p) for gain in places]
    above = sum(ladder.above_all_controls for ladder in ladders)
    ends = [min(gain.mean for gain in places), max(gain.mean for gain in places)]
    low, high = first.place_images
    said = say(
        "place",
        ladders=ladders,
        place=place,
        sign=signs[0],
        ends=[*dict.fromkeys(map(_signed, ends))],
        sure=max(gain.n for gain in places) > 2,
        other=other_smallest(first),
        only_here=first.only_here or (signs[0] < 0 and low <= 0 <= high),
        here=sum(ladder.only_here for ladder in ladders),
        margin_words=margin_words(place.low, place.high, first.place_images),
        above=above,
        below=signs.count(-1),
        some=signs.count(1) - above,
    )
    return f"{said}."


def other_smallest(ladder: Ladder) -> ControlGain | None:
    """Smallest gain over a control, if this control is not the one that stands for any map."""
    smallest, any_map = ladder.smallest, ladder.any_map
    return smallest if smallest and any_map and smallest.control != any_map.control else None


def gained(paired: PairedResult) -> str:
    """Gain with its interval, if it has one of three seeds or more."""
    spread = interval(paired.low, paired.high) if paired.n > 2 else DASH
    return f"{_signed(paired.mean)}{f' ({spread})' if spread != DASH else ''}"


def any_map_words(ladders: Sequence[Ladder]) -> str:
    """Definition of any map, and the control that was selected for each backbone."""
    known = [(ladder.backbone, ladder.any_map) for ladder in ladders if ladder.any_map is not None]
    among = dict.fromkeys(f"“{short(key)}”" for _, chosen in known for key in chosen.among)
    chosen = [f"“{short(one.control)}” for {backbone}" for backbone, one in known]
    only = [rung for ladder in ladders if len(ladders) == 1 for rung in ladder.rungs]
    rungs = [(RUNGS[rung.name], rung.agreement) for rung in only if math.isfinite(rung.agreement)]
    return say("any_map", among=[*among], chosen=chosen, rungs=rungs) if among else ""


# What intervals say


def margin_words(low: float, high: float, images: tuple[float, float] = UNDEFINED) -> str:
    """Relevant differences that intervals exclude, in words; "" if they exclude neither side.

    Without an interval over images, what is excluded is only so for these test images.
    """
    words = {
        Excluded.BOTH: f"equivalent within ±{RELEVANT_DIFFERENCE:g}",
        Excluded.GAIN: f"a gain of {RELEVANT_DIFFERENCE:g} is excluded",
        Excluded.LOSS: f"a loss of {RELEVANT_DIFFERENCE:g} is excluded",
        Excluded.NEITHER: "",
    }[excluded(low, high, images)]
    return f"{words} on these test images" if words and not np.isfinite(images).all() else words


def only_here(line: Mapping[str, Any]) -> bool:
    """Whether a difference is shown over seeds, and its interval over images contains 0."""
    return sign_of(line) != 0 and bool(line["image_low"] <= 0 <= line["image_high"])


def qualifying_words(line: Mapping[str, Any]) -> str:
    """What the intervals of a comparison show besides its sign, as a further clause; or ""."""
    low, high, images = line["low"], line["high"], (line["image_low"], line["image_high"])
    words = margin_words(low, high, images)
    if only_here(line):
        words = "not shown for other test images"
    elif sign_of(line) and excluded(low, high, images) is not Excluded.BOTH:
        words = ""
    return f"; {words}" if words else ""


# Templates

_NEXT = "\x1e"  # the control character "record separator", which no name has


def _signed(value: float) -> str:
    return number(value, sign=True)


def _spread(line: Any) -> str:
    low, high = (line["low"], line["high"]) if isinstance(line, dict) else (line.low, line.high)
    spread = interval(low, high)
    return f"95 % interval {'undefined for one seed' if spread == DASH else spread}"


def _of_backbones(won: Sequence[str], count: int) -> str:
    if count == 1:
        return "the backbone" if won else "no backbone"
    return f"{len(won) or 'none'} of {count} backbones"


def _seeds(count: int, unit: str = "seed") -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


@cache
def templates() -> Environment:
    """Environment of the sentences, with their filters."""
    environment = Environment(
        loader=PackageLoader("preceptor.report", "templates/words"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"NEXT": _NEXT, "LEVEL": LEVEL}
    environment.filters |= {
        "duration": duration,
        "gained": gained,
        "more": qualifying_words,
        "names": names_of,
        "number_g": "{:g}".format,
        "of_backbones": _of_backbones,
        "percent": percent,
        "auc": number,
        "two": lambda value: number(value, 2),
        "seeds": _seeds,
        "short": short,
        "sign": sign_of,
        "signed": _signed,
        "spread": _spread,
    }
    return environment


def say(template: str, **facts: Any) -> str:
    """Sentences of a template."""
    return parts_of(template, **facts)[0]


def parts_of(template: str, **facts: Any) -> list[str]:
    """Parts of a template, between which it has `NEXT`."""
    text = templates().get_template(f"{template}.j2").render(facts)
    return [re.sub(r"[ \n]+", " ", part).strip() for part in text.split(_NEXT)]
