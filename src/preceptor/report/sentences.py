"""Sentences of the report: what the numbers support, and what they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from preceptor.evaluation.paired_tests import (
    RELEVANT_DIFFERENCE,
    UNDEFINED,
    Excluded,
    excluded,
    floor_note,
)
from preceptor.results.rows import CONTROLS, records
from preceptor.runtime.text import DASH, interval, number, percent
from preceptor.study.plan import Plan

LEVEL = 0.05
"""Significance level of corrected p-values."""
_OTHERS = ("RQ3", "control", "detector", "ceiling")  # beside the baselines


def sentences(plan: Plan, compared: pd.DataFrame, shares: pd.DataFrame) -> list[str]:
    """Every comparison of a domain in a sentence."""
    said: list[str] = []
    primary, margin = plan.protocol.primary, RELEVANT_DIFFERENCE
    if compared.empty:
        return ["No Student has been compared with a baseline yet."]
    for backbone in plan.protocol.study.students:
        mine = compared[compared["backbone"] == backbone]
        for line in records(mine[mine["question"] == "RQ2"]):
            seeds = interval_words(line["low"], line["high"])
            over = seeds_of(line["n"])
            if plan.protocol.study.draws:
                over = f"{seeds_of(line['n'], 'draw')} of the data"
            else:
                images = interval_words(line["image_low"], line["image_high"])
                over += f"; over seeds and images {images}"
            over += qualifying_words(line, margin)
            said.append(
                f"{backbone}: the Student's AUC on {primary} is "
                f"{gain_words(line['mean'], line['low'], line['high'])} {line['b']} "
                f"({signed(line['mean'])}, 95 % interval {seeds} over {over})."
            )
        others = (mine[mine["question"] == one] for one in _OTHERS)
        for line in records(pd.concat(others)):
            gain = _gain(line, f"“{line['b']}”", margin, _alpha(plan, line))
            said.append(f"{backbone}: the Student's AUC is {gain}.")
        for line in records(mine[mine["question"] == "start"]):
            gain = _gain(line, f"“{line['b']}”", margin)
            said.append(f"{backbone}: “{line['a']}” is {gain}.")
    for line in records(compared[compared["question"] == "overall"]):
        said.append(f"Mean over backbones: the Student's AUC is {_gain(line, line['b'], margin)}.")
    family = compared[compared["question"] == "RQ2"]
    if not family.empty:
        better, worse = significant(family)
        won = len(ahead_of_both(family, "backbone"))
        below = f" and significantly below it in {len(worse)}" if len(worse) else ""
        said.insert(
            0,
            f"On {primary}, the Student's mean AUC is above both baselines for "
            f"{of_words(won, len(plan.protocol.study.students))}; "
            f"after Holm's correction it is significantly above the baseline in {len(better)} of "
            f"{len(family)} comparisons{below} ({floor_words(family)}).",
        )
    for line in records(compared[compared["question"] == "RQ1"]):
        said.append(
            f"RQ1: {line['a']} minus {line['b']}: AUC {signed(line['mean'])} "
            f"({spread_words(line)}{qualifying_words(line, margin)})."
        )
    for line in records(compared[compared["question"] == "saliency"]):
        if line["stopped"]:
            said.append(
                f"RISE or CAM: {line['a']} minus {line['b']}: AUC {signed(line['mean'])} "
                f"({spread_words(line)})."
            )
        else:
            said.append(f"RISE or CAM: {line['a']} are {_gain(line, line['b'], margin)}.")
    choice = plan.teacher_choice
    if len(plan.protocol.study.saliency) > 1 and choice is not None:
        said.append(f"Teacher selected on validation: {choice.reason}")
    for line in records(compared[compared["question"] == "variant"]):
        gain = _gain(line, "the study's own Student", margin)
        said.append(f"{line['backbone']}: {line['a']} is {gain}.")
    for line in records(shares):
        whose = "the Student" if line["key"] == "student" else line["title"]
        if line["share"] is not None and np.isfinite(line["share"]):
            said.append(
                f"{line['backbone']}: {whose} covers {percent(line['share'])} of the way "
                "from its better baseline to the ceiling (95 % interval "
                f"{percent(line['low'])} to {percent(line['high'])})."
            )
        else:
            said.append(
                f"{line['backbone']}: share of the way to the ceiling of {whose} is not given: "
                f"{line['reason']}."
            )
    return said


def spread_words(line: Mapping[str, Any]) -> str:
    """Interval of a comparison of Teachers, or why it has none."""
    if line["stopped"]:
        return f"stopped early by validation, after {seeds_of(line['n'])}; no interval"
    return f"95 % interval {interval_words(line['low'], line['high'])}"


def _gain(line: dict[str, Any], other: str, margin: float, note: str = "") -> str:
    """Relation to the other side of a comparison, with the difference and its interval."""
    better = gain_words(line["mean"], line["low"], line["high"])
    spread = interval_words(line["low"], line["high"])
    more = qualifying_words(line, margin)
    return f"{better} {other} ({note}{signed(line['mean'])}, 95 % interval {spread}{more})"


def _alpha(plan: Plan, line: dict[str, Any]) -> str:
    """Note on the α of a control; "" for other rows."""
    if line["question"] != "control":
        return ""
    if line["alpha_b"] == 1:
        return "without guidance; "
    # Controls of plugins are trained at the Student's α alone.
    own = line["key_b"] in CONTROLS
    whose = "its own" if own else "the Student's"
    return f"at {whose} α, {line['alpha_b']:g}; "


def floor_words(family: pd.DataFrame) -> str:
    """Note on the smallest attainable p-value of comparisons with the fewest seeds."""
    return floor_note(int(family["n"].min()), float(family["p_floor"].max()))


def gain_words(mean: float, low: float, high: float) -> str:
    """Relation of two sides, by the interval of their difference."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "above" if mean > 0 else "not above"
    if mean == low == high == 0:
        return "equal to that of"
    if low > 0:
        return "above"
    if high < 0:
        return "below"
    return "not distinguishable from"


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


def limit_words(
    low: float, high: float, margin: float, images: tuple[float, float] = UNDEFINED
) -> str:
    """What limits a difference whose interval over seeds excludes 0, in words; "" for nothing.

    Args:
        low, high: Ends of this interval.
        margin: Smallest relevant difference.
        images: Interval over seeds and images; NaN if there is none.

    Example:
        >>> limit_words(0.001, 0.03, 0.01, images=(-0.01, 0.04))
        'not shown for other test images'
        >>> limit_words(0.001, 0.003, 0.01, images=(0.001, 0.004))
        'equivalent within ±0.01'
        >>> limit_words(0.02, 0.03, 0.01, images=(0.01, 0.04))
        ''
    """
    if only_here(low, high, images):
        return "not shown for other test images"
    found = excluded(low, high, margin, images)
    return margin_words(low, high, margin, images) if found is Excluded.BOTH else ""


def only_here(low: float, high: float, images: tuple[float, float]) -> bool:
    """Whether an interval over seeds excludes 0, and that over seeds and images does not."""
    return not low <= 0 <= high and bool(images[0] <= 0 <= images[1])


def qualifying_words(line: Mapping[str, Any], margin: float) -> str:
    """What the intervals of a comparison show besides its sign, as a further clause of a sentence.

    If the interval over seeds contains 0, the relevant differences that are excluded; otherwise
    whether the difference is smaller than the margin, or holds for these test images alone.

    Args:
        line: Row of `Results.comparisons`.
        margin: Smallest relevant difference.

    Returns:
        The clause, or "".
    """
    low, high, images = line["low"], line["high"], (line["image_low"], line["image_high"])
    decided = not low <= 0 <= high
    words = (limit_words if decided else margin_words)(low, high, margin, images)
    return f"; {words}" if words else ""


def interval_words(low: float, high: float) -> str:
    """Interval of differences in a sentence."""
    found = interval(low, high)
    return "undefined for one seed" if found == DASH else found


def signed(value: float) -> str:
    """Difference with its sign."""
    return number(value, sign=True)


def ahead_of_both(family: pd.DataFrame, by: str) -> list[str]:
    """Backbones or domains whose Student is above both baselines, which must both be there."""
    return [
        str(name)
        for name, part in family.groupby(by, sort=False)
        if (part["mean"] > 0).all() and (part.groupby("backbone")["b"].nunique() == 2).all()
    ]


def significant(family: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Comparisons in which the Student is significantly above the baseline, and those below it.

    Args:
        family: Comparisons of the tested family, with corrected p-values.
    """
    sure = family["p_holm"] <= LEVEL
    return family[sure & (family["mean"] > 0)], family[sure & (family["mean"] < 0)]


def of_words(won: int, backbones: int) -> str:
    """Number of backbones in a sentence."""
    if backbones == 1:
        return "the backbone" if won else "no backbone"
    return f"{won or 'none'} of {backbones} backbones"


def seeds_of(count: int, unit: str = "seed") -> str:
    """Number of seeds in a sentence.

    Example:
        >>> seeds_of(1), seeds_of(3)
        ('1 seed', '3 seeds')
    """
    return f"{count} {unit}{'' if count == 1 else 's'}"


def names_of(names: Iterable[str]) -> str:
    """Names as an enumeration in a sentence.

    Example:
        >>> names_of(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
