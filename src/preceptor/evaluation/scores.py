"""Metrics of score tables: AUC, EER, accuracy and others by evaluation set and source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.errors import InputError
from preceptor.evaluation.metrics import (
    accuracy,
    auc,
    average_precision,
    brier,
    equal_error_rate,
    macro_auc,
)
from preceptor.evaluation.operating_points import RULES, fixed_threshold
from preceptor.evaluation.split_names import kind_of
from preceptor.runtime.replace_file import replacing

ALL_SOURCES = ""


def check_score_file(path: Path) -> None:
    """Check that writing scores to a path replaces nothing but a score table.

    Raises:
        InputError: The path is a folder, or a file without the columns of a score table.
    """
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
    return frame[[f"score_{name}" for name in classes]].to_numpy(np.float64)


def labels_of(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """(n,) class indices of a score table."""
    index = {name: number for number, name in enumerate(classes)}
    codes: NDArray[np.int64] = np.array([index[label] for label in frame["label"]], np.int64)
    return codes


def set_auc(frame: pd.DataFrame, classes: Sequence[str], positive: str | None) -> float:
    """AUC of the positive class, or macro-averaged one-vs-rest AUC if there is none."""
    if positive is not None:
        return float(auc((frame["label"] == positive).to_numpy(), frame[f"score_{positive}"]))
    return float(macro_auc(labels_of(frame, classes), probabilities(frame, classes)))


def validation_rows(
    frame: pd.DataFrame, name: str, classes: Sequence[str], negatives: str | None
) -> pd.DataFrame:
    """Rows over which the AUC of an evaluation set is computed.

    Args:
        frame: Score table.
        name: Evaluation set.
        classes: Class names.
        negatives: Set whose rows are used for the classes that `name` lacks; None = no set.
    """
    own = frame["split"] == name
    if negatives is not None:
        lacking = set(classes) - set(frame["label"][own])
        own |= (frame["split"] == negatives) & frame["label"].isin(lacking)
    return frame[own]


def fixed_thresholds(
    frame: pd.DataFrame, positive: str | None, rules: Sequence[str] = RULES
) -> dict[str, float]:
    """Thresholds of rules on the scores of all validation sets together.

    Args:
        frame: Score table; its validation rows are used.
        positive: Positive class; None = no threshold.
        rules: Rules, see `fixed_threshold`.

    Returns:
        Thresholds by rule; rules without a threshold on these scores are omitted.
    """
    if positive is None:
        return {}
    own = frame[kind_of(frame["split"]) == "val"]
    truth, scores = (own["label"] == positive).to_numpy(), own[f"score_{positive}"].to_numpy(float)
    found = {rule: fixed_threshold(rule, truth, scores) for rule in rules}
    return {rule: value for rule, value in found.items() if value is not None}


def class_auc(name: str) -> str:
    """Column of `figures` that holds the AUC of a class against the rest."""
    return f"auc_{name}"


def figures(
    frame: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
    negatives: str | None = None,
) -> pd.DataFrame:
    """Metrics of each evaluation set and of each source in it.

    A source with positives only (an attack type) is evaluated with all negatives of its set, a
    source with both classes by itself, and a source with negatives only has accuracy and Brier
    score. Without a positive class, AUC and average precision are macro-averaged one-vs-rest. The
    Brier score is in [0, 1] for two classes and in [0, 2] for more; it is NaN if scores are not
    probabilities.

    Args:
        frame: Score table.
        classes: Class names, in score order.
        positive: Positive class, or None (EER is then NaN).
        negatives: Set with the negatives for AUC, EER and average precision of whole sets, see
            `validation_rows`.

    Returns:
        One row per set and source, with columns set, source ("" = the whole set), images,
        positives, auc, eer, accuracy, average_precision, brier; and, for more than two classes,
        the one-vs-rest AUC `auc_CLASS` of each.
    """
    found = []
    for name, part in frame.groupby("split", sort=False):
        whole = validation_rows(frame, str(name), classes, negatives)
        found.append(_figures(str(name), ALL_SOURCES, part, whole, classes, positive))
        sources = [source for source in sorted(part["source"].unique()) if source]
        for source in sources if len(sources) > 1 else []:
            own = part[part["source"] == source]
            against = own
            if positive is not None and (own["label"] == positive).all():
                against = pd.concat([own, part[part["label"] != positive]])
            found.append(_figures(str(name), source, own, against, classes, positive))
    return pd.DataFrame(found)


def _figures(
    name: str,
    source: str,
    own: pd.DataFrame,
    against: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None,
) -> dict[str, object]:
    eer = float("nan")
    if positive is not None:
        truth = (against["label"] == positive).to_numpy()
        eer = float(equal_error_rate(truth, against[f"score_{positive}"])[0])
    labels, scores = labels_of(own, classes), probabilities(own, classes)
    found: dict[str, object] = {
        "set": name,
        "source": source,
        "images": len(own),
        "positives": int((own["label"] == positive).sum()) if positive is not None else 0,
        "auc": set_auc(against, classes, positive),
        "eer": eer,
        "accuracy": float(accuracy(labels, scores)),
        "average_precision": _set_precision(against, classes, positive),
        "brier": _set_brier(labels, scores),
    }
    if len(classes) > 2:
        found |= {class_auc(one): set_auc(against, classes, one) for one in classes}
    return found


def _set_precision(frame: pd.DataFrame, classes: Sequence[str], positive: str | None) -> float:
    """Average precision of the positive class, or macro average over the classes present."""
    wanted = classes if positive is None else [positive]
    present = [one for one in wanted if (frame["label"] == one).any()]
    found = [average_precision(frame["label"] == one, frame[f"score_{one}"]) for one in present]
    return float(np.mean(found)) if found else float("nan")


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
    """Labels, scores (S, n) or (S, n, C), and groups of one evaluation set over seeds."""
    parts = [validation_rows(frame, name, classes, negatives) for frame in frames]
    first = parts[0]
    groups = first["group"].to_numpy(object) if (first["group"] != "").any() else None
    if positive is not None:
        labels = (first["label"] == positive).to_numpy()
        return (
            labels,
            np.stack([part[f"score_{positive}"].to_numpy(float) for part in parts]),
            groups,
        )
    return (
        labels_of(first, classes),
        np.stack([probabilities(part, classes) for part in parts]),
        groups,
    )
