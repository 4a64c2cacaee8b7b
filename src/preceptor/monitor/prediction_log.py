"""Log of predictions: the table that `preceptor predict` writes, of all its formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.batch_prediction.rows import WRITERS, read_rows
from preceptor.errors import InputError, reason
from preceptor.predictor.map_statistics import MAP_STATISTICS

_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class PredictionLog:
    """Predictions of n images, in their order.

    Args:
        probabilities: (n, C).
        distances: (n,) distances from the training images; None = not logged.
        flagged: (n,) whether the image was flagged as unfamiliar; None = not logged.
        maps: (n, 4) statistics of the maps, NaN for constant maps; None = not logged.
        features: (n, p); None = not logged.
        bad: Number of images that could not be read.
    """

    probabilities: NDArray[np.float64]
    distances: NDArray[np.float64] | None
    flagged: NDArray[np.bool_] | None
    maps: NDArray[np.float64] | None
    features: NDArray[np.float32] | None
    bad: int

    def __len__(self) -> int:
        return len(self.probabilities)


def check_log(file: Path) -> None:
    """Check the name of a log, before a model is loaded for it.

    Raises:
        InputError: There is no such file, or it has another format.
    """
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "there is no such file"
        raise InputError(f"{file}: {what}; name a table of preceptor predict")
    if file.suffix.lower() not in WRITERS:
        raise InputError(f"{file}: unknown format; a log is {', '.join(WRITERS)}")


def read_log(file: Path, classes: Sequence[str]) -> PredictionLog:
    """Read a table of `preceptor predict`.

    Args:
        file: .csv, .parquet or .jsonl.
        classes: Class names of the model.

    Raises:
        InputError: The file is no such table, is of another model, or has no predictions.
    """
    check_log(file)
    try:
        frame = _frame(file, file.suffix.lower())
        return _log(frame, classes)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except Exception as error:  # damaged files, of three formats
        raise InputError(f"{file}: no table of preceptor predict: {reason(error, 120)}") from error


def _frame(file: Path, suffix: str) -> pd.DataFrame:
    if suffix == ".csv":
        return pd.read_csv(file, dtype={"path": str, "decision": str, "map": str, "error": str})
    if suffix in (".parquet", ".pq"):
        return pd.read_parquet(file)
    rows = []
    for row in read_rows(file):
        values = row.pop("probabilities", {})
        rows.append(row | {f"score_{name}": value for name, value in values.items()})
    return pd.DataFrame(rows)


def _log(frame: pd.DataFrame, classes: Sequence[str]) -> PredictionLog:
    scores = [f"score_{name}" for name in classes]
    missing = [name for name in scores if name not in frame]
    if missing:
        raise InputError(
            f"it has no column {missing[0]}; give a table that preceptor predict wrote with the "
            "same model"
        )
    error = frame["error"] if "error" in frame else pd.Series(None, frame.index, dtype=object)
    is_bad = (error.notna() & (error != "")).to_numpy(bool)
    good = frame[~is_bad]
    if good.empty:
        raise InputError("it has no predictions")
    probabilities = good[scores].to_numpy(np.float64)
    # Not more than rounding above 1; NaN fails as well.
    if not ((probabilities >= 0) & (probabilities <= 1 + _ROUNDING)).all():
        raise InputError("a probability is missing or not a number from 0 to 1")
    features = None
    if "features" in good:
        features = np.array(good["features"].tolist(), np.float32)
    return PredictionLog(
        probabilities=probabilities,
        distances=good["distance"].to_numpy(np.float64) if "distance" in good else None,
        flagged=good["unfamiliar"].to_numpy(bool) if "unfamiliar" in good else None,
        maps=(
            good[list(MAP_STATISTICS)].to_numpy(np.float64)
            if set(MAP_STATISTICS) <= set(good)
            else None
        ),
        features=features,
        bad=int(is_bad.sum()),
    )
