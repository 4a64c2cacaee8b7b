"""Metrics of score tables by evaluation set and source: AUC, EER, accuracy, Brier score, others.

Labels, scores and counts of functions of arrays are those of `auc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.metrics.auc import (
    auc,
    average_precision,
    binary_scores,
    class_scores,
    equal_error_rate,
    log_odds,
    macro_auc,
)
from preceptor.metrics.operating_points import RULES, fixed_threshold
from preceptor.metrics.paired_tests import delong
from preceptor.metrics.split_names import kind_of
from preceptor.utils.files import replacing


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Share of images whose highest score is that of their label (ties: the first class)."""
    classes, values = class_scores(labels, probabilities)
    if not len(classes):
        return float("nan")
    return float(np.mean(values.argmax(axis=1) == classes))


def brier(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Brier score: 1/n Σ (p − y)² of (n,) probabilities of the positive class.

    Of (n, C) probabilities, 1/n Σ_i Σ_c (p_ic − [y_i = c])², for two classes twice the former:
    Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    if np.ndim(probabilities) == 2:
        classes, values = class_scores(labels, probabilities)
        errors = ((values - np.eye(values.shape[1])[classes]) ** 2).sum(axis=1)
    else:
        positive, values = binary_scores(labels, probabilities)
        errors = (values - positive) ** 2
    if ((values < 0) | (values > 1)).any():
        raise InputError("probabilities must lie in [0, 1]; pass probabilities, not logits")
    return float(errors.mean()) if len(errors) else float("nan")


ALL_SOURCES = ""


def check_score_file(path: Path) -> None:
    """Check that writing scores to a path replaces nothing but a score table."""
    if not path.exists():
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the scores")
    try:
        columns = set(map(str, pq.read_schema(path).names))
    except (OSError, pa.ArrowException):
        columns = set()
    scores = {name for name in columns if name.startswith("score_")}
    if not scores or columns - scores - {"group"} != {"path", "label", "split", "source"}:
        raise InputError(
            f"{path} exists already and is not a score table (only score tables are replaced); "
            "choose another name"
        )


def write_scores(frame: pd.DataFrame, path: Path) -> None:
    """Write a score table as Parquet, atomically."""
    with replacing(path) as partial:
        frame.to_parquet(partial, index=False)


def probabilities(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.float64]:
    """(n, C) scores of a score table, in class order."""
    return np.stack([frame[f"score_{name}"].to_numpy(np.float64) for name in classes]).T


def log_odds_of(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.float64]:
    """(n, C) log-odds of a score table, by which its images are ranked, in class order."""
    return log_odds(probabilities(frame, classes))


def positive_log_odds(
    frame: pd.DataFrame, classes: Sequence[str], positive: str
) -> NDArray[np.float64]:
    """(n,) log-odds of the positive class."""
    return log_odds_of(frame, classes)[:, list(classes).index(positive)]


def deployed_scores(frame: pd.DataFrame, positive: str) -> NDArray[np.float64]:
    """(n,) scores of a score table as a model in use gives them, which are float32."""
    return frame[f"score_{positive}"].to_numpy(np.float32).astype(np.float64)


def labels_of(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """(n,) class indices of a score table."""
    index = {name: number for number, name in enumerate(classes)}
    labels = frame["label"].to_numpy(object)
    codes: NDArray[np.int64] = np.array([index[label] for label in labels], np.int64)
    return codes


def set_auc(frame: pd.DataFrame, classes: Sequence[str], positive: str | None) -> float:
    """AUC of the positive class, or macro-averaged one-vs-rest AUC if there is none."""
    if positive is not None:
        truth = (frame["label"] == positive).to_numpy()
        return float(auc(truth, positive_log_odds(frame, classes, positive)))
    return float(macro_auc(labels_of(frame, classes), log_odds_of(frame, classes)))


def validation_rows(
    frame: pd.DataFrame, name: str, classes: Sequence[str], negatives: str | None
) -> pd.DataFrame:
    """Rows over which the AUC of an evaluation set is computed."""
    splits = frame["split"].to_numpy(object)
    own: NDArray[np.bool_] = splits == name
    if negatives is not None:
        labels = frame["label"].to_numpy(object)
        lacking = set(classes) - set(labels[own])
        own |= (splits == negatives) & np.isin(labels, [*lacking])
    return frame[own]


def fixed_thresholds(
    frame: pd.DataFrame, positive: str | None, rules: Sequence[str] = RULES
) -> dict[str, float]:
    """Thresholds of rules on the scores of all validation sets together, for a model in use."""
    if positive is None:
        return {}
    own = frame[kind_of(frame["split"]) == "val"]
    truth, scores = (own["label"] == positive).to_numpy(), deployed_scores(own, positive)
    thresholds = {rule: fixed_threshold(rule, truth, scores) for rule in rules}
    return {rule: value for rule, value in thresholds.items() if value is not None and value <= 1}


def class_auc(name: str) -> str:
    """Column of `figures` that holds the AUC of a class against the rest."""
    return f"auc_{name}"


def figures(
    frame: pd.DataFrame, classes: Sequence[str], positive: str | None, negatives: str | None = None
) -> pd.DataFrame:
    """Metrics of each evaluation set and of each source in it.

    A source with positives only (an attack type) is evaluated with all negatives of its set, a
    source with both classes by itself, and a source with negatives only has accuracy and Brier
    score. Without a positive class, AUC and average precision are macro-averaged one-vs-rest. AUC,
    EER and average precision rank the images by their log-odds, see `log_odds`. The
    Brier score is in [0, 1] for two classes and in [0, 2] for more; it is NaN if scores are not
    probabilities.
    """
    return pd.DataFrame(figure_rows(frame, classes, positive, negatives))


def figure_rows(
    frame: pd.DataFrame, classes: Sequence[str], positive: str | None, negatives: str | None = None
) -> list[dict[str, object]]:
    """Rows of `figures`, for tables of many models; arguments as there."""
    # Arrays, not frames: a study has thousands of sets and sources, of a few hundred images each.
    splits, sources = frame["split"].to_numpy(object), frame["source"].to_numpy(object)
    labels, scores = labels_of(frame, classes), probabilities(frame, classes)
    odds = log_odds(scores)
    target = None if positive is None else list(classes).index(positive)

    def area(rows: NDArray[np.intp], of: int | None) -> float:
        if of is not None:
            return auc(labels[rows] == of, odds[rows, of])
        return macro_auc(labels[rows], odds[rows])

    def metrics(
        name: str, source: str, rows: NDArray[np.intp], against: NDArray[np.intp]
    ) -> dict[str, object]:
        wanted = range(len(classes)) if target is None else [target]
        present = [index for index in wanted if (labels[against] == index).any()]
        precisions = [
            average_precision(labels[against] == index, odds[against, index]) for index in present
        ]
        eer, positives = math.nan, 0
        if target is not None:
            eer = equal_error_rate(labels[against] == target, odds[against, target]).eer
            positives = int((labels[rows] == target).sum())
        row: dict[str, object] = {
            "set": name,
            "source": source,
            "images": len(rows),
            "positives": positives,
            "auc": area(against, target),
            "eer": eer,
            "accuracy": accuracy(labels[rows], scores[rows]),
            "average_precision": float(np.mean(precisions)) if precisions else math.nan,
            "brier": _set_brier(labels[rows], scores[rows]),
        }
        if len(classes) > 2:
            row |= {class_auc(name): area(against, number) for number, name in enumerate(classes)}
        return row

    table = []
    for name in dict.fromkeys(splits):
        own = splits == name
        rows, against = np.flatnonzero(own), own
        if negatives is not None:
            lacking = [index for index in range(len(classes)) if index not in labels[rows]]
            against = own | ((splits == negatives) & np.isin(labels, lacking))
        pool = np.flatnonzero(against)
        table.append(metrics(str(name), ALL_SOURCES, rows, pool))
        own_sources = [source for source in sorted(set(sources[rows])) if source]
        for source in own_sources if len(own_sources) > 1 else []:
            part = rows[sources[rows] == source]
            other = part
            if target is not None and (labels[part] == target).all():
                other = np.concatenate([part, pool[labels[pool] != target]])
            table.append(metrics(str(name), str(source), part, other))
    return table


def _set_brier(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Brier score; NaN if scores are not probabilities."""
    if ((scores < -1e-6) | (scores > 1 + 1e-6)).any():
        return float("nan")
    chances = np.clip(scores, 0.0, 1.0)  # means of float32 may exceed 1 in the last place
    return brier(labels == 1, chances[:, 1]) if scores.shape[1] == 2 else brier(labels, chances)


def stack(
    frames: Sequence[pd.DataFrame],
    name: str,
    classes: Sequence[str],
    positive: str | None,
    negatives: str | None = None,
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[Any] | None]:
    """Labels, log-odds (S, n) or (S, n, C), and groups of one evaluation set over seeds."""
    parts = [validation_rows(frame, name, classes, negatives) for frame in frames]
    first = parts[0]
    if not all(np.array_equal(part["path"], first["path"]) for part in parts[1:]):
        raise InputError(f"the score tables of {name} are of different images")
    groups = first["group"].to_numpy(object) if (first["group"] != "").any() else None
    if positive is not None:
        return (
            (first["label"] == positive).to_numpy(),
            np.stack([positive_log_odds(part, classes, positive) for part in parts]),
            groups,
        )
    every = np.stack([log_odds_of(part, classes) for part in parts])
    return labels_of(first, classes), every, groups


def compare_sets(
    ours: pd.DataFrame, theirs: pd.DataFrame, classes: Sequence[str], positive: str
) -> pd.DataFrame:
    """DeLong's test of two models on the same images, for each evaluation set."""
    if list(ours["path"]) != list(theirs["path"]):
        raise InputError("the two score tables differ in their images or in the order of images")
    rows = []
    for name, own in ours.groupby("split", sort=False):
        sides = own, theirs.loc[own.index]
        a, b = (positive_log_odds(side, classes, positive) for side in sides)
        groups = own["group"] if (own["group"] != "").any() else None
        result = delong(own["label"] == positive, a, b, groups)
        units = 0 if groups is None else result.units
        row: dict[str, object] = {"set": str(name), "images": len(own), "groups": units}
        shown = ("auc_a", "auc_b", "difference", "low", "high", "p")
        rows.append(row | {key: getattr(result, key) for key in shown})
    return pd.DataFrame(rows)
