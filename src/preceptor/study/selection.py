"""Selection among configurations on validation data only.

The score of a configuration is its AUC on its worst validation set, averaged over seeds, and the
highest score is selected. Among Teachers, a mapper that is tied with the best is preferred. They
are tied if the interval of the difference of their scores (paired bootstrap, or t over draws), each
on its own worst set, includes 0. Several such mappers are compared by their scores.
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
from preceptor.metrics.bootstrap import Side, bootstrap_difference
from preceptor.metrics.paired_tests import paired_difference
from preceptor.metrics.scores import set_auc, stack, validation_rows
from preceptor.study.config import Setting
from preceptor.utils.results import digest, with_nan

# Increased if the rules of a choice change, so that earlier choices are made again.
_RULES = 4
_MAY_BE_NAN = ("value", "low", "high", "agreement")


@dataclass(frozen=True)
class Candidate:
    """Candidate configuration."""

    name: str
    setting: Setting
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
        """Setting of the selected candidate."""
        (row,) = (row for row in self.table if row["name"] == self.winner)
        return setting_of(row)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """Inverse of `asdict`, after `strict_json`."""
        rows = (
            {**row, **with_nan({name: row[name] for name in _MAY_BE_NAN})}
            for row in values["table"]
        )
        return cls(values["winner"], values["reason"], tuple(rows), values["evidence"])


def setting_of(row: Mapping[str, Any]) -> Setting:
    """Setting in a row of a choice; archives of before have no several lengths."""
    return Setting(float(row["alpha"]), str(row["guidance"]), int(row.get("steps", 0)))


def choose(
    candidates: Sequence[Candidate],
    classes: Sequence[str],
    positive: str | None,
    draws: bool = False,
    negatives: str | None = None,
) -> Choice:
    """Select one of the candidates by their validation scores; NaN scores are an InputError.

    With `draws`, seeds have images of their own, and the interval of a difference is over seeds.
    `negatives` is a validation set whose images are used for the classes that another set lacks.
    """
    sets = list(dict.fromkeys(candidates[0].scores[0]["split"]))

    def auc_of(frame: pd.DataFrame, name: str) -> float:
        return set_auc(validation_rows(frame, name, classes, negatives), classes, positive)

    # (candidates, seeds, sets)
    aucs = np.array(
        [[[auc_of(table, name) for name in sets] for table in one.scores] for one in candidates]
    )
    if np.isnan(aucs).any():
        at, seed, place = np.argwhere(np.isnan(aucs))[0].tolist()
        raise InputError(
            f"selection: {candidates[at].name} has no AUC on {sets[place]} (seed number {seed}); "
            "every validation set needs images of every class, or set validation_negatives"
        )
    worst, values = aucs.mean(1).argmin(1), aucs.mean(1).min(1)
    names = [sets[column] for column in worst]
    # Of equal values the one with the smaller α, independently of the order of the candidates.
    order = sorted(range(len(candidates)), key=lambda at: candidates[at].setting)
    best = max(order, key=lambda at: values[at])
    rows = []
    for at, candidate in enumerate(candidates):
        low = high = 0.0
        if at != best and draws:
            paired = paired_difference(aucs[at, :, worst[at]], aucs[best, :, worst[best]])
            low, high = paired.low, paired.high
        elif at != best:
            both = [
                Side(labels, [scores], groups)
                for labels, scores, groups in (
                    stack(candidates[side].scores, names[side], classes, positive, negatives)
                    for side in (at, best)
                )
            ]
            same = names[at] == names[best]
            result = bootstrap_difference(*both, same_images=same, resamples=1000)
            low, high = result.low, result.high
        rows.append(
            {
                "name": candidate.name,
                "value": float(values[at]),
                "worst_set": names[at],
                "low": low,
                "high": high,
                "tied": bool(at == best or high >= 0),
                "agreement": candidate.agreement,
                "alpha": candidate.setting.alpha,
                "guidance": candidate.setting.guidance,
                "steps": candidate.setting.steps,
            }
        )
    where = names[best] if len(sets) == 1 else f"the worst validation set ({names[best]})"
    why = f"it has the highest AUC on {where}"
    preferred = [at for at in order if candidates[at].preferred and rows[at]["tied"]]
    winner = max(preferred or order, key=lambda at: values[at])
    if winner != best:
        tied = sum(row["tied"] for row in rows)
        among = f"of {tied} tied on validation, mappers are preferred"
        why = f"{among}; of {len(preferred)} of them, {why}" if len(preferred) > 1 else among
    elif (equal := int((values == values[best]).sum())) > 1:
        why += f", first of {equal} with this AUC, by α"
    highest = "" if winner == best else f", best {values[best]:.3f}"
    name = candidates[winner].name
    return Choice(name, f"{name}: {why}; AUC {values[winner]:.3f}{highest}.", tuple(rows))


def evidence_of(
    candidates: Sequence[tuple[str, Setting, Sequence[str], float]],
    classes: Sequence[str],
    positive: str | None,
    *others: object,
) -> str:
    """Hash of all data on which a choice depends."""
    facts = [(name, asdict(setting), *rest) for name, setting, *rest in candidates]
    return digest([_RULES, facts, [classes, positive, *others]])


def read_choices(file: Path, domains: Sequence[str]) -> dict[str, dict[str, Choice]]:
    """Choices of an earlier start, by domain and name; none from a missing or damaged file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        chosen = {"": values} if list(domains) == [""] else values
        return {
            domain: {name: Choice.from_json(entry) for name, entry in chosen[domain].items()}
            for domain in domains
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
