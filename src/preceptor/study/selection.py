"""Selection among configurations on validation data only.

The score of a configuration is its AUC on its worst validation set, averaged over seeds. With the
rule `highest`, the highest score is selected. With the other rules, all configurations whose paired
bootstrap interval of the difference to the best (each on its own worst set) includes 0 are tied
with it. Of Teachers tied in this way mappers are preferred, by any rule. With `highest` the highest
score among the mappers is selected; with the other rules ties go to the best agreement with human
maps of validation images (`guided`), or to the smaller α (`val_auc`). α is comparable only within
one way of guiding; between several, the highest score is selected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from preceptor.errors import InputError
from preceptor.metrics.bootstrap import Side, bootstrap_difference
from preceptor.metrics.paired_tests import paired_difference
from preceptor.metrics.scores import set_auc, stack, validation_rows
from preceptor.study.config import Setting
from preceptor.utils.results import digest, with_nan

# Raised when the same scores would be judged otherwise, so that earlier choices are made again.
_RULES = 4
_MAY_BE_NAN = ("value", "low", "high", "agreement")

Rule = Literal["highest", "guided", "val_auc"]
_NO_SETTING = Setting(math.inf)  # after all others


@dataclass(frozen=True)
class Candidate:
    """Candidate configuration."""

    name: str
    setting: Setting | None  # α, of which the smaller one breaks ties, and way of guiding
    scores: Sequence[pd.DataFrame]  # score tables of validation rows, one per seed
    agreement: float = math.nan  # mean correlation of its maps with human maps of validation images
    preferred: bool = False  # whether it is chosen if it is tied with the best


@dataclass(frozen=True)
class Choice:
    """Selected configuration with the reason."""

    winner: str
    reason: str
    table: tuple[Mapping[str, Any], ...]  # a row for each candidate: its AUC, interval, ties
    evidence: str = ""  # hash of the data of the choice, see `evidence_of`

    @property
    def setting(self) -> Setting:
        """α and way of guiding of the selected candidate."""
        (row,) = (row for row in self.table if row["name"] == self.winner)
        return Setting(float(row["alpha"]), str(row["guidance"]))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """Inverse of `asdict`, after `strict_json`."""
        rows = (
            {**row, **with_nan({name: row[name] for name in _MAY_BE_NAN})}
            for row in values["table"]
        )
        return cls(values["winner"], values["reason"], tuple(rows), values["evidence"])


def choose(
    candidates: Sequence[Candidate],
    classes: Sequence[str],
    positive: str | None,
    rule: Rule = "guided",
    draws: bool = False,
    negatives: str | None = None,
) -> Choice:
    """Select one of the candidates by their validation scores; NaN scores are an InputError.

    With `draws`, seeds have images of their own, and the interval of a difference is over seeds.
    `negatives` is a validation set whose images are used for the classes that another set lacks.
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
    order = sorted(range(len(candidates)), key=lambda at: candidates[at].setting or _NO_SETTING)
    rank = {index: place for place, index in enumerate(order)}
    # Of equal values the one with the smaller α, independently of the order of the candidates.
    best = min(order, key=lambda index: (-values[index], rank[index]))
    ties = rule != "highest" or any(candidate.preferred for candidate in candidates)
    rows = []
    for index, candidate in enumerate(candidates):
        low = high = 0.0
        if index != best:
            if draws:
                ours, theirs = (aucs[one, :, worst[one]] for one in (index, best))
                paired = paired_difference(ours, theirs)
                low, high = paired.low, paired.high
            else:
                places = [sets[int(worst[one])] for one in (index, best)]
                sides = (candidate, candidates[best])
                low, high = _difference(sides, places, classes, positive, negatives)
        rows.append(
            {
                "name": candidate.name,
                "value": float(values[index]),
                "worst_set": sets[int(worst[index])],
                "low": low,
                "high": high,
                "tied": bool(index == best or (ties and not high < 0)),
                "agreement": candidate.agreement,
                "alpha": None if candidate.setting is None else candidate.setting.alpha,
                "guidance": "" if candidate.setting is None else candidate.setting.guidance,
            }
        )
    judged = sets[int(worst[best])]
    where = judged if len(sets) == 1 else f"the worst validation set ({judged})"
    tied = [index for index, row in enumerate(rows) if row["tied"]]
    preferred = [index for index in tied if candidates[index].preferred]
    among = f"of {len(tied)} tied on validation"
    if len(preferred) < len(tied) and preferred:
        among += ", mappers are preferred"
        among += f"; of {len(preferred)} of them" if len(preferred) > 1 else ""
    tied = preferred or tied
    if rule == "highest":
        tied = [max(tied, key=lambda index: (values[index], -rank[index]))]
    agreements = np.array([candidates[index].agreement for index in tied])
    equal = [index for index, value in enumerate(values) if value == values[best]]
    if len(tied) == 1 and tied != [best]:
        winner = tied[0]
        why = among if len(preferred) == 1 else f"{among}, it has the highest AUC on {where}"
    elif len(tied) == 1:
        winner, why = best, f"it has the highest AUC on {where}"
        if len(equal) > 1:
            reason = _by_alpha([candidates[index] for index in equal], candidates[best], "is first")
            why = f"of {len(equal)} with the same, highest AUC on {where}, it {reason}"
    elif rule == "guided" and np.isfinite(agreements).all():
        winner = tied[int(agreements.argmax())]
        why = (
            f"{among}, its maps agree best with human maps of validation images "
            f"(r = {candidates[winner].agreement:.2f})"
        )
    elif not comparable(rows[index] for index in tied):
        winner = max(tied, key=lambda index: (values[index], -rank[index]))
        why = f"{among}, it has the highest AUC on {where}"
    else:
        winner = min(
            tied, key=lambda index: (candidates[index].setting or _NO_SETTING, -values[index])
        )
        reason = _by_alpha(
            [candidates[index] for index in tied], candidates[winner], "has the highest AUC"
        )
        why = f"{among}, it {reason}"
    highest = "" if winner == best else f", best {values[best]:.3f}"
    reason = f"{candidates[winner].name}: {why}; AUC {values[winner]:.3f}{highest}."
    return Choice(candidates[winner].name, reason, tuple(rows))


def evidence_of(
    candidates: Sequence[tuple[str, Setting | None, Sequence[str], float]], *settings: object
) -> str:
    """Hash of all data on which a choice depends."""
    facts = [(name, setting and asdict(setting), *rest) for name, setting, *rest in candidates]
    return digest([_RULES, facts, settings])


def read_choices(file: Path, domains: Sequence[str]) -> dict[str, dict[str, Choice]]:
    """Choices of an earlier start, by domain and name; none from a missing or damaged file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        chosen = {"": values} if list(domains) == [""] else values
        return {
            domain: {name: Choice.from_json(one) for name, one in chosen[domain].items()}
            for domain in domains
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def comparable(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the α of candidates are comparable: all are guided, in one way."""
    ways = {(row["alpha"] is not None, row["guidance"]) for row in rows}
    return len(ways) == 1 and all(guided for guided, _ in ways)


def _by_alpha(candidates: Sequence[Candidate], winner: Candidate, then: str) -> str:
    """What the smallest α decides among candidates; `then` decides between those with the same."""
    alphas = [one.setting and one.setting.alpha for one in candidates]
    equal = alphas.count(winner.setting and winner.setting.alpha)
    if equal == 1:
        return "has the smallest α"
    return then if equal == len(alphas) else f"{then} of those with the smallest α"


def _difference(
    sides: Sequence[Candidate],
    names: Sequence[str],
    classes: Sequence[str],
    positive: str | None,
    negatives: str | None,
) -> tuple[float, float]:
    """Interval of the difference of the AUCs of two candidates, each on its validation set."""
    both = []
    for candidate, name in zip(sides, names, strict=True):
        labels, scores, groups = stack(candidate.scores, name, classes, positive, negatives)
        both.append(Side(labels, [scores], groups))
    same = names[0] == names[1]
    result = bootstrap_difference(*both, same_images=same, resamples=1000)
    return result.low, result.high
