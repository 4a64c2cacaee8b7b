"""Score tables of a trained model on the evaluation sets of a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.predict import predict
from preceptor.metrics.scores import check_score_file, figures, write_scores
from preceptor.models.guided_model import GuidedModel, ModelOutput


def check_comparable(
    model: GuidedModel, other: GuidedModel, names: tuple[str, str] = ("a", "b")
) -> str:
    """Check that the AUCs of two models can be compared; returns their positive class."""
    first, second = model.spec, other.spec
    if set(first.classes) != set(second.classes):
        raise InputError(
            f"{names[1]} has the classes {sorted(second.classes)} and {names[0]} "
            f"{sorted(first.classes)}; compare models with the same classes"
        )
    if first.positive != second.positive:
        raise InputError(
            f"the positive class of {names[1]} is {second.positive!r} and that of {names[0]} "
            f"{first.positive!r}; compare models with the same positive class"
        )
    if first.positive is None:
        raise InputError(
            f"{names[0]} has no positive class, which DeLong's test needs; set `positive` in the "
            "config and train again"
        )
    return first.positive


def evaluate(
    model: GuidedModel,
    manifest: Manifest,
    *,
    out: str | Path | None = None,
    workspace: Workspace | None = None,
    cache: Literal["memmap", "none"] = "memmap",
) -> pd.DataFrame:
    """Evaluate a model on the validation and test sets of a manifest.

    Args:
        model: Trained model with the classes of the manifest.
        manifest: Manifest of the images.
        out: Output Parquet file of the scores, or None; an earlier score table is replaced.
        workspace: The opened manifest, if available.
        cache: Image cache: memmap or none.

    Returns:
        Metrics by set and source, see `figures`.

    Raises:
        InputError: `out` is a file other than a score table.
    """
    if out is not None:
        check_score_file(Path(out))
    frame = score_sets(model, workspace or Workspace(manifest), cache)
    if out is not None:
        write_scores(frame, Path(out))
    return figures(frame, model.spec.classes, model.spec.positive)


def score_sets(
    model: GuidedModel, workspace: Workspace, cache: Literal["memmap", "none"] = "memmap"
) -> pd.DataFrame:
    """Scores of all validation and test sets of a manifest: see `score_frame`."""
    manifest = workspace.manifest
    sets = manifest.eval_splits("val") + manifest.eval_splits("test")
    chosen = np.flatnonzero(manifest.table["split"].isin(sets).to_numpy())
    return score_frame(model, workspace, chosen, cache)


def score_frame(
    model: GuidedModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[[Tensor], ModelOutput] | None = None,
) -> pd.DataFrame:
    """Scores of manifest rows: path, label, split, source, group, and `score_CLASS` columns."""
    rows = workspace.rows(chosen, model.spec.image_format, model.spec.classes, cache=cache)
    found = predict(model, rows, forward=forward)
    table = workspace.manifest.table.iloc[chosen]
    columns = {"path": table["name"]} | {
        key: table[key] for key in ("label", "split", "source", "group")
    }
    frame = pd.DataFrame(columns).reset_index(drop=True)
    for index, name in enumerate(model.spec.classes):
        frame[f"score_{name}"] = found.probabilities[:, index]
    return frame
