"""A Teacher marks images: its saliency for a manifest, written as a map store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.run import Method, Precision, RiseSettings
from preceptor.data.loader import Guides, Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.predict import predict, to_device, uses_channels_last
from preceptor.inference.shards import RISE_IMAGES
from preceptor.maps.store import MapStore, StoreInfo, write_store
from preceptor.models.guided_model import GuidableModel
from preceptor.models.precision import autocast
from preceptor.saliency.agreement import correlation
from preceptor.saliency.normalise import normalise
from preceptor.saliency.rise import RiseResult
from preceptor.saliency.rise import rise as estimate_rise

CamClass = Literal["label", "predicted"]


def annotate(
    model: GuidableModel,
    manifest: Manifest,
    method: Method = "cam",
    *,
    out: str | Path,
    splits: str = "train",
    cam_class: CamClass = "label",
    turns: bool = False,
    rise: RiseSettings | None = None,
    precision: Precision = "32-true",
    teacher: str | None = None,
    workspace: Workspace | None = None,
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[..., Any] | None = None,
) -> MapStore:
    """Mark the images of a manifest by a model's saliency and write the map store.

    Args:
        model: The Teacher.
        manifest: What to mark.
        method: cam, what the model is guided by (the class activation map, or Grad-CAM where its
            head has none), or rise, which looks at scores alone.
        out: Folder of the store.
        splits: train, all, or one split's name.
        cam_class: Whose map: of the image's label, or of the predicted class.
        turns: Of cam: the map is the mean of the normalised CAMs over the eight flips and quarter
            turns of the image, each turned back; probabilities are the mean over them too, and the
            predicted class is that of the mean. Eight forwards instead of one.
        rise: Settings of rise; None = its defaults.
        precision: Of rise's forwards.
        teacher: Name kept in the store; None = a hash of the model's weights.
        workspace: The manifest, opened already.
        cache: As in `Training`.
        forward: The model's forward, where precision wraps it.

    Returns:
        The store, as written; of rise with an error a map, and settings that say above which error
        a map counts as noise.

    Raises:
        InputError: No image to mark, or turns with rise.
    """
    workspace = workspace or Workspace(manifest)
    store = mark_rows(
        model, workspace, rows_of(manifest, splits), method, cam_class=cam_class, turns=turns,
        rise=rise, precision=precision, teacher=teacher, cache=cache, forward=forward,
    )  # fmt: skip
    write_store(Path(out), store)
    return store


def mark_rows(
    model: GuidableModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    method: Method = "cam",
    *,
    cam_class: CamClass = "label",
    turns: bool = False,
    rise: RiseSettings | None = None,
    precision: Precision = "32-true",
    teacher: str | None = None,
    cache: Literal["memmap", "none"] = "memmap",
    forward: Callable[..., Any] | None = None,
) -> MapStore:
    """The maps of these manifest rows; arguments and errors as in `annotate`.

    Args:
        chosen: (n,) manifest rows.
    """
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is not one of {', '.join(get_args(Method))}")
    if turns and method == "rise":
        raise InputError("turns go with cam; rise takes a mean over thousands of masks already")
    rows = workspace.rows(chosen, model.spec.image_format, model.spec.classes, cache=cache)
    how: dict[str, float | str] = {"cam_class": cam_class}
    error: NDArray[np.float32] | None = None
    if method == "cam":
        found = predict(model, rows, cams=cam_class, forward=forward, turns=turns)
        assert found.cams is not None
        assert found.cam_classes is not None
        maps, classes = found.cams, found.cam_classes
        if turns:
            how["turns"] = True
    else:
        rise = rise or RiseSettings()
        found = predict(model, rows, forward=forward)
        classes = rows.labels if cam_class == "label" else found.probabilities.argmax(1)
        marked = rise_rows(model, rows, classes, rise, precision)
        maps, error = marked.maps, marked.error.numpy()
        how |= rise.model_dump() | {"masks": int(marked.masks_used.sum())}
    return MapStore(
        StoreInfo(
            teacher=teacher or model_digest(model),
            method=model.spec.cam if method == "cam" else "rise",
            fit=model.spec.fit,
            side=model.spec.input_size,
            classes=model.spec.classes,
            settings=how,
        ),
        workspace.manifest.table["name"].to_numpy(object)[chosen],
        normalise(maps).numpy().astype(np.float16),
        classes.astype(np.int32),
        found.probabilities[np.arange(len(chosen)), classes],
        found.probabilities,
        error=error,
    )


def rise_rows(
    model: GuidableModel,
    rows: Rows,
    classes: NDArray[np.int64],
    settings: RiseSettings,
    precision: Precision = "32-true",
) -> RiseResult:
    """RISE maps of rows, on the model's grid and the CPU.

    Args:
        model: Its device and memory layout are used.
        rows: In order, without augmentation.
        classes: (n,) whose score is followed.
        settings: Of rise.
        precision: Of the forwards.
    """
    parts: list[RiseResult] = []
    layout = uses_channels_last(model)
    for positions, batch in in_order(rows, RISE_IMAGES):
        images = model.preprocess(to_device(batch.images, model.device, layout))
        with autocast(model.device, precision):
            found = estimate_rise(
                model, images, torch.from_numpy(classes[positions]), **settings.model_dump()
            )
        parts.append(RiseResult(*(part.cpu() for part in found)))
    return RiseResult(*(torch.cat(part) for part in zip(*parts, strict=True)))


def rise_correlations(
    model: GuidableModel,
    workspace: Workspace,
    chosen: NDArray[np.int64],
    settings: RiseSettings,
    precision: Precision = "32-true",
    *,
    cache: Literal["memmap", "none"] = "memmap",
) -> list[float]:
    """How well RISE's maps of images agree with human ones, as `validate` says of a model's own.

    Args:
        chosen: (n,) manifest rows with human maps.

    Returns:
        The correlation of each image whose maps have one: neither is constant.
    """
    guides = Guides(np.ones(len(chosen), np.float32), None, np.full(len(chosen), -1, np.int64))
    rows = workspace.rows(
        chosen, model.spec.image_format, model.spec.classes, cache=cache,
        guides=guides, grid=model.grid(),
    )  # fmt: skip
    human = rows.maps_on_grid(np.arange(len(rows)))
    maps = rise_rows(model, rows, rows.labels, settings, precision).maps
    values, valid = correlation(maps, human)
    return [float(value) for value in values[valid]]


def marking_record(store: MapStore) -> dict[str, int]:
    """What a marking cost and what it is worth, for the record: of RISE the model evaluations, and
    how many maps never settled and will not guide."""
    if store.error is None:
        return {}
    return {"masks": int(store.info.settings["masks"]), "unsettled": int((~store.settled).sum())}


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
