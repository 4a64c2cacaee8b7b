"""Search among the candidates of a selection: which get further seeds, and which are dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from preceptor.study.selection import Choice, Rule, comparable


def survivors(choice: Choice, rule: Rule, search: Literal["racing", "halving"]) -> list[str]:
    """Names of the candidates that stay in a search after a comparison on some of the seeds.

    Args:
        choice: Comparison: the choice on these seeds only.
        rule: Rule of the selection. By the rule `highest` nothing is tied, so that a candidate
            stays if the interval of its difference to the best includes 0.
        search: racing drops only candidates that are worse with significance; halving keeps at
            most half of the candidates (rounded down, at least one) as well.

    Returns:
        The names, the preferred first.

    Source:
        Racing: Maron and Moore, 1997; successive halving: Jamieson and Talwalkar, 2016.
    """
    possible = {str(row["name"]) for row in choice.table if not float(row["high"]) < 0}
    kept = [name for name in preferred(choice, rule) if name in possible]
    return kept[: max(1, len(choice.table) // 2)] if search == "halving" else kept


def preferred(choice: Choice, rule: Rule) -> list[str]:
    """Names of the candidates of a choice, in the order in which its rule prefers them.

    Candidates that are tied with the best come first, in the order that breaks ties; the others
    follow by AUC.
    """

    def order(row: Mapping[str, Any]) -> tuple[float, ...]:
        value = -float(row["value"])
        if not row["tied"]:
            return 1.0, value
        agrees = float(row["agreement"])
        by_map = rule == "guided" and all(
            math.isfinite(float(one["agreement"])) for one in choice.table if one["tied"]
        )
        if by_map:
            return 0.0, -agrees
        by_alpha = comparable(one for one in choice.table if one["tied"])
        return (0.0, float(row["alpha"]), value) if by_alpha else (0.0, value)

    rows = sorted(choice.table, key=order)
    names = [str(row["name"]) for row in rows]
    return [choice.winner, *(name for name in names if name != choice.winner)]


def with_dropped(choice: Choice, dropped: Sequence[Mapping[str, Any]], seeds: int) -> Choice:
    """Choice with the candidates that were dropped before it.

    Args:
        choice: New choice among the remaining candidates.
        dropped: Rows of the dropped candidates, each with its number of seeds.
        seeds: Number of seeds of the study.
    """
    if not dropped:
        return choice
    told = "; ".join(f"{row['name']} after {row['seeds']} of {seeds} seeds" for row in dropped)
    whole = ({**row, "seeds": seeds} for row in choice.table)
    rows = (*whole, *({**row, "tied": False} for row in dropped))
    return replace(choice, reason=f"{choice.reason} Dropped: {told}.", table=rows)
