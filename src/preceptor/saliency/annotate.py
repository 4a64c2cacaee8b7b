"""A Teacher marks images: its saliency for a manifest, written as a map store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.evaluation.predict import predict
from preceptor.models import GuidableModel, ModelOutput
from preceptor.saliency.maps import normalise
from preceptor.saliency.store import MapStore, StoreInfo, write_store
from preceptor.workspace import Workspace, plain_settings


def annotate(
    model: GuidableModel,
    manifest: Manifest,
    method: Literal["cam"] = "cam",
    *,
    out: str | Path,
    splits: str = "train",
    cam_class: Literal["label", "predicted"] = "label",
    turns: bool = False,
    teacher: str | None = None,
    workspace: Workspace | None = None,
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[[Tensor], ModelOutput] | None = None,
) -> MapStore:
    """Mark the images of a manifest by a model's saliency and write the map store.

    Args:
        model: The Teacher.
        manifest: What to mark.
        method: cam, the class activation map.
        out: Folder of the store.
        splits: train, all, or one split's name.
        cam_class: Whose map: of the image's label, or of the predicted class.
        turns: The map is the mean of the normalised CAMs over the eight flips and quarter turns of
            the image, each turned back; probabilities are the mean over them too, and the
            predicted class is that of the mean. Eight forwards instead of one.
        teacher: Name kept in the store; None = a hash of the model's weights.
        workspace: The manifest, opened already.
        cache: As in `Training`.
        forward: The model's forward, where precision wraps it.

    Returns:
        The store, as written.

    Raises:
        InputError: No image to mark.
    """
    if method != "cam":
        raise ValueError(f"method {method!r} is not cam")
    workspace = workspace or Workspace(manifest)
    chosen = rows_of(manifest, splits)
    settings = plain_settings(model, cache)
    rows = workspace.rows(chosen, settings, model.spec.input_size, model.spec.classes)
    found = predict(model, rows, cams=cam_class, forward=forward, turns=turns)
    assert found.cams is not None
    assert found.cam_classes is not None
    how: dict[str, float | str] = {"cam_class": cam_class}
    if turns:
        how["turns"] = True
    store = MapStore(
        StoreInfo(
            teacher=teacher or model_digest(model),
            method=method,
            fit=settings.fit,
            side=model.spec.input_size,
            classes=model.spec.classes,
            settings=how,
        ),
        manifest.table["name"].to_numpy(object)[chosen],
        normalise(found.cams).numpy().astype(np.float16),
        found.cam_classes.astype(np.int32),
        found.probabilities[np.arange(len(chosen)), found.cam_classes],
        found.probabilities,
    )
    write_store(Path(out), store)
    return store


def rows_of(manifest: Manifest, splits: str) -> NDArray[np.int64]:
    """The rows of a split by its name, or `all`.

    Raises:
        InputError: There are none.
    """
    names = manifest.table["split"]
    mask = np.ones(len(manifest), bool) if splits == "all" else (names == splits).to_numpy()
    if not mask.any():
        raise InputError(f"split {splits!r}: no image; there are {sorted(names.unique())}")
    return np.flatnonzero(mask)


def model_digest(model: GuidableModel) -> str:
    """A hash of a model's weights."""
    state = hashlib.blake2b(digest_size=10)
    for key, value in sorted(model.backbone.state_dict().items()):
        state.update(key.encode())
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
