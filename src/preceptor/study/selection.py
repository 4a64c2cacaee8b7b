"""Choosing among configurations on validation alone.

The worst of several validation sets counts, averaged over seeds. By the rule `highest` the highest
AUC wins. By the others, whatever cannot be told from the best (the paired bootstrap interval of the
difference includes 0) is tied with it, and ties go to the maps that agree best with human maps of
validation images (`guided`), or to the smaller α (`val_auc`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preceptor.errors import InputError
from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.paired_tests import paired_difference
from preceptor.evaluation.scores import set_auc, stack, validation_rows
from preceptor.runtime.result_folder import digest
from preceptor.runtime.strict_json import with_nan

# Raised when the same scores would be judged otherwise, so that earlier choices are made again.
_RULES = 1
_MAY_BE_NAN = ("value", "low", "high", "agreement")


@dataclass(frozen=True)
class Candidate:
    """One configuration.

    Args:
        name: For people, unique.
        alpha: Breaks ties: the smaller wins. None where it has none (a Teacher without guidance).
        scores: Score tables of validation rows, one a seed, seeds in the same order for all.
        agreement: Mean correlation of its maps with human maps of validation images; NaN = none.
    """

    name: str
    alpha: float | None
    scores: Sequence[pd.DataFrame]
    agreement: float = math.nan


@dataclass(frozen=True)
class Choice:
    """What was chosen and why.

    Args:
        winner: The candidate's name.
        reason: One plain sentence.
        table: A row a candidate: name, value (worst-set AUC, mean over seeds), low and high of its
            difference to the best, tied, agreement, alpha.
        evidence: A hash of what it was chosen by, see `evidence_of`; "" where there was no choice.
    """

    winner: str
    reason: str
    table: tuple[Mapping[str, Any], ...]
    evidence: str = ""

    @property
    def alpha(self) -> float:
        """The winner's α.

        Raises:
            ValueError: It has none.
        """
        values = {row["name"]: row["alpha"] for row in self.table}
        return float(values[self.winner])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """What `as_dict` gave, after `strict_json`.

        Raises:
            KeyError, TypeError, AttributeError: It is something else.
        """
        rows = [
            dict(row) | with_nan({name: row[name] for name in _MAY_BE_NAN})
            for row in values["table"]
        ]
        return cls(values["winner"], values["reason"], tuple(rows), values["evidence"])


def choose(
    candidates: Sequence[Candidate],
    *,
    classes: Sequence[str],
    positive: str | None,
    rule: str = "guided",
    draws: bool = False,
    negatives: str | None = None,
) -> Choice:
    """Choose one of the candidates by their validation scores.

    Args:
        candidates: At least one.
        classes: Class names in score order.
        positive: The positive class or None.
        rule: highest, or how ties are broken: guided or val_auc.
        draws: Whether every seed has images of its own: then seeds alone are resampled.
        negatives: As of `validation_rows`.

    Raises:
        InputError: A candidate has no AUC on a validation set.
    """
    sets = list(dict.fromkeys(candidates[0].scores[0]["split"]))
    # (candidates, seeds, sets)
    aucs = np.array(
        [
            [
                [
                    set_auc(validation_rows(frame, name, classes, negatives), classes, positive)
                    for name in sets
                ]
                for frame in candidate.scores
            ]
            for candidate in candidates
        ]
    )
    if np.isnan(aucs).any():
        at, seed, place = (int(found[0]) for found in np.isnan(aucs).nonzero())
        raise InputError(
            f"selection: {candidates[at].name} has no AUC on {sets[place]} (seed number {seed}); "
            "every validation set needs images of every class, or set validation_negatives"
        )
    per_set = aucs.mean(1)
    worst = per_set.argmin(1)
    values = per_set.min(1)
    # Of equal values the one with the smaller α, whatever the order of the candidates.
    best = min(
        range(len(candidates)),
        key=lambda index: (-values[index], _or_inf(candidates[index].alpha)),
    )
    judged = sets[int(worst[best])]
    rows = []
    for index, candidate in enumerate(candidates):
        low = high = 0.0
        if index != best:
            if draws:
                at = sets.index(judged)
                paired = paired_difference(aucs[index, :, at], aucs[best, :, at])
                low, high = paired.low, paired.high
            else:
                low, high = _difference(
                    candidate, candidates[best], judged, classes, positive, negatives
                )
        rows.append(
            {
                "name": candidate.name,
                "value": float(values[index]),
                "worst_set": sets[int(worst[index])],
                "low": low,
                "high": high,
                "tied": bool(index == best or (rule != "highest" and high >= 0)),
                "agreement": candidate.agreement,
                "alpha": candidate.alpha,
            }
        )
    tied = [index for index, row in enumerate(rows) if row["tied"]]
    agreements = np.array([candidates[index].agreement for index in tied])
    equal = int((values == values[best]).sum())
    if len(tied) == 1:
        winner, why = best, f"it has the highest AUC on {judged}"
        if equal > 1:
            why = f"of {equal} with the same, highest AUC on {judged}, it has the smallest α"
    elif rule == "guided" and np.isfinite(agreements).all():
        winner = tied[int(agreements.argmax())]
        why = (
            f"of {len(tied)} that validation cannot tell apart, its maps agree best with human "
            f"maps of validation images (r = {candidates[winner].agreement:.2f})"
        )
    elif any(candidates[index].alpha is None for index in tied):
        # α says nothing between a Teacher that is guided and one that is not.
        winner = best
        why = (
            f"of {len(tied)} that validation cannot tell apart, it has the highest AUC on {judged}"
        )
    else:
        winner = min(tied, key=lambda index: (_or_inf(candidates[index].alpha), -values[index]))
        why = f"of {len(tied)} that validation cannot tell apart, it has the smallest α"
    return Choice(
        candidates[winner].name,
        f"{candidates[winner].name}: {why}; AUC {values[winner]:.3f}, best {values[best]:.3f}.",
        tuple(rows),
    )


def evidence_of(
    candidates: Sequence[tuple[str, float | None, Sequence[str], float]], *settings: object
) -> str:
    """A hash of all that a choice depends on.

    Args:
        candidates: Name, α, checksums of the score tables and agreement of each.
        settings: The other arguments of `choose`.
    """
    return digest([_RULES, candidates, settings])


def read_choices(file: Path, domains: Sequence[str]) -> dict[str, dict[str, Choice]]:
    """The choices of an earlier start, by domain and by name of the selection.

    Args:
        file: selection.json of the study folder. One that is missing or damaged, or has been
            written by an earlier version, holds none.
        domains: Of the study; [""] where it has none.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = {"": values} if list(domains) == [""] else values
        return {
            domain: {name: Choice.from_json(one) for name, one in found[domain].items()}
            for domain in domains
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _or_inf(alpha: float | None) -> float:
    return math.inf if alpha is None else alpha


def _difference(
    one: Candidate,
    best: Candidate,
    name: str,
    classes: Sequence[str],
    positive: str | None,
    negatives: str | None,
) -> tuple[float, float]:
    """Interval of the AUC difference one − best on a validation set."""
    labels, ours, groups = stack(one.scores, name, classes, positive, negatives)
    _, theirs, _ = stack(best.scores, name, classes, positive, negatives)
    result = two_level_bootstrap(labels, ours, theirs, groups, resamples=1000)
    return float(result.low), float(result.high)
