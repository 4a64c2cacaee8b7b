"""Map making: a Teacher's saliency maps for a manifest, written as a map store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.maps import METHOD_NAMES, Method, RiseSettings, check_method
from preceptor.config.training import CamClass, Precision
from preceptor.data.loader import MapTargets, Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.plugin_method import plugin_method_maps
from preceptor.inference.predict import predict, to_device, uses_channels_last
from preceptor.inference.shards import RISE_IMAGES
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.models.guided_model import GuidedModel, autocast
from preceptor.saliency.maps import correlation, normalize
from preceptor.saliency.rise import RiseResult, read_state, write_state
from preceptor.saliency.rise import rise as estimate_rise


def annotate(
    model: GuidedModel,
    manifest: Manifest,
    method: Method = "cam",
    *,
    out: str | Path,
    splits: str = "train",
    cam_class: CamClass = "label",
    rise: RiseSettings | None = None,
    precision: Precision = "32-true",
    teacher: str | None = None,
    workspace: Workspace | None = None,
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[..., Any] | None = None,
) -> MapStore:
    """Compute saliency maps of the images of a manifest and write them as a map store.

    Args:
        model: Teacher.
        manifest: Manifest of the images.
        method: cam (class activation map, or Grad-CAM for models without an exact one); rise, which
            uses scores only; cells (probability of a mark in each cell, for a mapper), which is
            not normalized; or the name of a plugin.
        out: Folder of the map store.
        splits: Images: train, all, or the name of a split.
        cam_class: Maps of the label (of the image), of the predicted class, or decision maps (of
            the label's log-odds).
        rise: Settings of rise; None = defaults.
        precision: Precision of the forward passes of rise.
        teacher: Teacher id in the metadata; None = a hash of the model's weights.
        workspace: The opened manifest, if available.
        cache: Image cache: memmap or none.
        forward: Forward function of the model in its precision; None = the model itself.

    Returns:
        The map store. For rise it has an error for each map, and settings with the tolerance.

    Raises:
        InputError: There are no images, or there is no such method.
    """
    workspace = workspace or Workspace(manifest)
    store = compute_maps(
        model,
        workspace,
        rows_of(manifest, splits),
        method,
        cam_class=cam_class,
        rise=rise,
        precision=precision,
        teacher=teacher,
        cache=cache,
        forward=forward,
    )
    write_store(Path(out), store)
    return store


def compute_maps(
    model: GuidedModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    method: Method = "cam",
    *,
    cam_class: CamClass = "label",
    rise: RiseSettings | None = None,
    precision: Precision = "32-true",
    teacher: str | None = None,
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[..., Any] | None = None,
    progress: Path | None = None,
) -> MapStore:
    """Saliency maps of manifest rows; arguments and errors as in `annotate`.

    Args:
        chosen: (n,) manifest rows.
        progress: File of the progress of rise, see `rise_rows`.
    """
    check_method(method)
    rows = workspace.rows(chosen, model.spec.image_format, model.spec.classes, cache=cache)
    how: dict[str, float | str] = {"cam_class": cam_class} if method != "cells" else {}
    error: NDArray[np.float32] | None = None
    if method in ("cam", "cells"):
        cams = cam_class if method == "cam" else "cells"
        found = predict(model, rows, cams=cams, forward=forward)
        assert found.cams is not None
        assert found.cam_classes is not None
        maps, classes = found.cams, found.cam_classes
    else:
        found = predict(model, rows, forward=forward)
        if cam_class == "decision":
            raise InputError("cam_class: decision needs method cam; remove it, or use cam")
        classes = rows.labels if cam_class == "label" else found.probabilities.argmax(1)
    if method not in METHOD_NAMES.own:
        maps = plugin_method_maps(method, model, rows, classes)
    elif method == "rise":
        rise = rise or RiseSettings()
        marked = rise_rows(model, rows, classes, rise, precision, progress)
        maps, error = marked.maps, marked.error.numpy()
        how |= rise.model_dump() | {"masks": int(marked.masks_used.sum())}
    probabilities = found.probabilities.astype(np.float32)
    return MapStore(
        StoreInfo(
            teacher=teacher or model_digest(model),
            method=model.spec.cam if method == "cam" else method,
            fit=model.spec.fit,
            side=model.spec.input_size,
            classes=model.spec.classes,
            settings=how,
        ),
        workspace.manifest.table["name"].to_numpy(object)[chosen],
        (maps if method == "cells" else normalize(maps)).numpy().astype(np.float16),
        classes.astype(np.int32),
        probabilities[np.arange(len(chosen)), classes],
        probabilities,
        error=error,
    )


def rise_rows(
    model: GuidedModel,
    rows: Rows,
    classes: NDArray[np.int64],
    settings: RiseSettings,
    precision: Precision = "32-true",
    progress: Path | None = None,
) -> RiseResult:
    """RISE maps of rows on the model's grid, on the CPU.

    Args:
        model: Model, on the device and in the memory layout of the computation.
        rows: Rows in order, without augmentation.
        classes: (n,) class of each map.
        settings: Settings of rise.
        precision: Precision of the forward passes.
        progress: File that is replaced after each block of masks, from which an interrupted call
            continues; only for rows of one batch. None = no file.
    """
    if len(rows) > RISE_IMAGES:
        progress = None
    start = None if progress is None else read_state(progress)
    keep = None if progress is None else partial(write_state, progress)
    parts: list[RiseResult] = []
    layout = uses_channels_last(model)
    for positions, batch in in_order(rows, RISE_IMAGES):
        images = model.preprocess(to_device(batch.images, model.device, layout))
        with autocast(model.device, precision):
            found = estimate_rise(
                model,
                images,
                torch.from_numpy(classes[positions]),
                **settings.model_dump(),
                start=start,
                keep=keep,
            )
        parts.append(RiseResult(*(part.cpu() for part in found)))
    return RiseResult(*(torch.cat(part) for part in zip(*parts, strict=True)))


def map_correlations(
    model: GuidedModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    method: Method,
    rise: RiseSettings | None = None,
    precision: Precision = "32-true",
    *,
    cache: Literal["memmap", "none"] = "memmap",
    progress: Path | None = None,
) -> list[float]:
    """Correlations of the maps of rise or of a plugin with human maps.

    Maps of rise above the tolerance are included: Teachers and methods are compared on the same
    images, and a Teacher whose maps do not settle has a lower agreement.

    Args:
        model, workspace, method, rise, precision, cache, progress: As in `compute_maps`.
        chosen: (n,) manifest rows with human maps.

    Returns:
        Correlations of the images for which neither map is constant.
    """
    targets = MapTargets.human(np.ones(len(chosen), np.float32))
    rows = workspace.rows(
        chosen,
        model.spec.image_format,
        model.spec.classes,
        cache=cache,
        targets=targets,
        grid=model.grid(),
    )
    human = rows.targets_on_grid
    if method == "rise":
        rise = rise or RiseSettings()
        maps = rise_rows(model, rows, rows.labels, rise, precision, progress).maps
    else:
        maps = plugin_method_maps(method, model, rows, rows.labels)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(maps), 4)
        maps = resample(maps, whole, whole, (human.shape[1], human.shape[2]))
    values, valid = correlation(maps, human)
    return [float(value) for value in values[valid]]


def maps_record(store: MapStore) -> dict[str, int]:
    """Record of map making with RISE: numbers of model evaluations and of inaccurate maps."""
    if store.error is None:
        return {}
    return {"masks": int(store.info.settings["masks"]), "unsettled": int((~store.settled).sum())}


def rows_of(manifest: Manifest, splits: str) -> NDArray[np.int64]:
    """Manifest rows of a split, or of all splits (`all`).

    Raises:
        InputError: There are none.
    """
    names = manifest.table["split"]
    mask = np.ones(len(manifest), bool) if splits == "all" else (names == splits).to_numpy()
    if not mask.any():
        raise InputError(f"split {splits!r} has no images; choose one of {sorted(names.unique())}")
    return np.flatnonzero(mask)


def model_digest(model: GuidedModel) -> str:
    """Hash of a model's weights."""
    state = hashlib.blake2b(digest_size=10)
    for key, value in sorted(model.backbone.state_dict().items()):
        state.update(key.encode())
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
