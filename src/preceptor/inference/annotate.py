"""Map making: a Teacher's saliency maps for a manifest, whole or in shards, as a map store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from preceptor.config.run import Method, RiseSettings, check_method
from preceptor.config.training import CamClass, Precision
from preceptor.data.loader import Rows, in_order
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import HeldError, InputError, check_choice
from preceptor.inference.predict import predict, to_device, uses_channels_last
from preceptor.maps.store import MapStore, StoreInfo, is_store, read_store, write_store
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel, autocast
from preceptor.saliency.maps import normalize
from preceptor.saliency.rise import RiseResult
from preceptor.saliency.rise import rise as estimate_rise
from preceptor.utils.leases import lease
from preceptor.utils.process import fix_order_of_sums
from preceptor.utils.results import digest, finish, is_finished
from preceptor.utils.text import progress as progress_bar

# Images that share RISE masks; the number of model evaluations differs between images.
RISE_IMAGES = 32
# Approximate number of RISE masks per image (the stopping rule determines the actual number).
USUAL_MASKS = 1000
# Number of model evaluations of a shard, which an interrupted process repeats: seconds on a GPU,
# minutes on a core. A shard of RISE has more.
SHARD_FORWARDS = 4096


def annotate(
    model: GuidedModel,
    manifest: Manifest,
    method: Method = "cam",
    *,
    out: str | Path,
    splits: str = "train",
    cam_class: CamClass = "label",
    rise: RiseSettings | None = None,
    workspace: Workspace | None = None,
) -> MapStore:
    """Compute saliency maps of the images of a manifest and write them as a map store.

    Args:
        model: Teacher.
        manifest: Manifest of the images.
        method: cam (class activation map, or Grad-CAM for models without an exact one); rise, which
            uses scores only; cells (probability of a mark in each cell, for a mapper), which is
            not normalized.
        out: Folder of the map store.
        splits: Images: train, all, or the name of a split.
        cam_class: Maps of the label (of the image), of the predicted class, or decision maps (of
            the label's log-odds).
        rise: Settings of rise; None = defaults.
        workspace: The opened manifest, if available.

    Returns:
        The map store. For rise it has an error for each map, and settings with the tolerance.

    Raises:
        InputError: There are no images, or there is no such method.
    """
    workspace = workspace or Workspace(manifest)
    store = compute_maps(
        model, workspace, rows_of(manifest, splits), method, cam_class=cam_class, rise=rise
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
) -> MapStore:
    """Saliency maps of manifest rows; arguments and errors as in `annotate`."""
    check_method(method)
    check_choice("cam_class", cam_class, CamClass)
    if model.spec.image_classes is None and method != "cells" and cam_class == "label":
        raise InputError(f"method {method}: a mapper has no map of a label; use cells")
    if method == "cells" and model.spec.image_classes is not None and len(model.spec.classes) > 2:
        raise InputError("method cells: it takes a mapper, or a model of two classes; use cam")
    rows = workspace.rows(chosen, model.spec.image_format, model.spec.image_classes, cache=cache)
    how: dict[str, float | str] = {"cam_class": cam_class} if method != "cells" else {}
    error: NDArray[np.float32] | None = None
    if method in ("cam", "cells"):
        cams = cam_class if method == "cam" else "cells"
        predictions = predict(model, rows, cams=cams)
        assert predictions.cams is not None
        assert predictions.cam_classes is not None
        maps, classes = predictions.cams, predictions.cam_classes
    else:
        if cam_class == "decision":
            raise InputError("decision maps are of method cam; use cam, or another map")
        predictions = predict(model, rows)
        classes = rows.labels if cam_class == "label" else predictions.probabilities.argmax(1)
    if method == "rise":
        rise = rise or RiseSettings()
        marked = rise_rows(model, rows, classes, rise, precision)
        maps, error = marked.maps, marked.error.numpy()
        how |= rise.model_dump() | {"masks": int(marked.masks_used.sum())}
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
        predictions.probabilities[np.arange(len(chosen)), classes].astype(np.float32),
        error=error,
    )


PARTIAL_FOLDER = ".partial"
"""Folder within the store's where shards are kept until all are there."""


def annotate_in_shards(
    model: str | Path,
    manifest: str | Path,
    out: str | Path,
    method: Method = "cam",
    *,
    splits: str = "train",
    cam_class: CamClass = "label",
    rise: RiseSettings | None = None,
    threads: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    cache: Literal["memmap", "none"] = "memmap",
) -> MapStore:
    """Compute the saliency maps of a manifest in shards and write the map store.

    The maps are those of `annotate` (see its arguments) for the model in channels-last. After an
    interrupted call, the same call computes the missing shards.
    """
    check_method(method)
    out = Path(out)
    rise = (rise or RiseSettings()) if method == "rise" else None
    torch.set_num_threads(threads)
    fix_order_of_sums()
    loaded = load_model(model)
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU; write auto or cpu")
    if device != "cpu" and torch.cuda.is_available():
        loaded = loaded.cuda()
    loaded = loaded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = loaded.spec.image_classes
    workspace = Workspace(Manifest.read(manifest, verify=False, need=(), classes=classes))
    table, whose = workspace.manifest, model_digest(loaded)
    shards = shards_of(table, splits, forwards_of(method, rise))
    # The same weights with another pooling have other maps.
    made_by = [whose, asdict(loaded.spec), rise and rise.model_dump(mode="json")]
    made_of = [workspace.hashes.of(rows_of(table, splits), None), splits, method, cam_class]
    work = out / PARTIAL_FOLDER / digest([made_by, made_of, []])
    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    if is_store(out) and not (out / PARTIAL_FOLDER).is_dir():  # with one its writing was stopped
        raise InputError(f"{out}: it has a map store; remove it, or name a new folder")
    try:
        with lease(out / PARTIAL_FOLDER, wait=0.0), progress_bar() as bar:
            task = bar.add_task("making maps", total=len(rows_of(table, splits)), note="")
            folders = [work / f"{number:05d}" for number in range(len(shards))]
            for folder, shard in zip(folders, shards, strict=True):
                if not is_finished(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    chosen = shard.rows(table)
                    made = compute_maps(
                        loaded,
                        workspace,
                        chosen,
                        method,
                        cam_class=cam_class,
                        rise=rise,
                        cache=cache,
                    )
                    write_store(folder, made)
                    finish(folder, {"kind": "maps"})
                bar.advance(task, shard.stop - shard.start)
            store = joined([read_store(folder) for folder in folders])
            write_store(out, store)
            shutil.rmtree(out / PARTIAL_FOLDER, ignore_errors=True)
    except HeldError as error:
        raise InputError(
            f"{out}: another process is making maps in this folder; wait until "
            "it has ended, or choose another --out"
        ) from error
    return store


def rise_rows(
    model: GuidedModel,
    rows: Rows,
    classes: NDArray[np.int64],
    settings: RiseSettings,
    precision: Precision = "32-true",
) -> RiseResult:
    """RISE maps of rows on the model's grid, on the CPU."""
    parts: list[RiseResult] = []
    layout = uses_channels_last(model)
    for positions, batch in in_order(rows, RISE_IMAGES):
        images = model.preprocess(to_device(batch.images, model.device, layout))
        with autocast(model.device, precision):
            result = estimate_rise(
                model, images, torch.from_numpy(classes[positions]), **settings.model_dump()
            )
        parts.append(RiseResult(*(part.cpu() for part in result)))
    return RiseResult(*(torch.cat(part) for part in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Shard:
    """Shard of the images of one split; several machines may compute the shards of a step.

    Its boundaries depend on the data and the method alone, so that one process and a cluster write
    identical map stores.
    """

    split: str  # or `all`
    start: int  # range of its images in manifest order
    stop: int

    def rows(self, manifest: Manifest) -> NDArray[np.int64]:
        """(n,) manifest rows of the images."""
        return rows_of(manifest, self.split)[self.start : self.stop]


def forwards_of(method: Method, rise: RiseSettings | None) -> int:
    """Approximate number of model evaluations per image."""
    if method == "rise":
        return min((rise or RiseSettings()).max_masks, USUAL_MASKS)
    return 1


def shards_of(manifest: Manifest, splits: str, forwards: int) -> tuple[Shard, ...]:
    """Shards of a map-making step."""
    images = max(RISE_IMAGES, SHARD_FORWARDS // forwards // 64 * 64)  # whole batches of RISE
    count = len(rows_of(manifest, splits))
    return tuple(
        Shard(splits, start, min(start + images, count)) for start in range(0, count, images)
    )


def joined(stores: Sequence[MapStore]) -> MapStore:
    """Join the map stores of shards, in order."""
    first = stores[0]
    settings = dict(first.info.settings)
    if "masks" in settings:
        settings["masks"] = sum(int(store.info.settings["masks"]) for store in stores)
    together: dict[str, Any] = {}
    for name in ("paths", "maps", "classes", "scores", "error"):
        parts = [getattr(store, name) for store in stores]
        together[name] = None if parts[0] is None else np.concatenate(parts)
    return MapStore(replace(first.info, settings=settings), **together)


def maps_record(store: MapStore) -> dict[str, int]:
    """Record of map making with RISE: numbers of model evaluations and of inaccurate maps."""
    if store.error is None:
        return {}
    return {"masks": int(store.info.settings["masks"]), "unsettled": int((~store.settled).sum())}


def rows_of(manifest: Manifest, splits: str) -> NDArray[np.int64]:
    """Manifest rows of a split, or of all splits (`all`); InputError if there are none."""
    splits_of_rows = manifest.table["split"]
    rows = np.flatnonzero((splits_of_rows == splits) | (splits == "all"))
    if not len(rows):
        choices = [*filter(None, sorted(splits_of_rows.unique())), "all"]
        raise InputError(f"split {splits!r} has no images; choose one of {choices}")
    return rows


def model_digest(model: GuidedModel) -> str:
    """Hash of a model's weights."""
    state = hashlib.blake2b(digest_size=10)
    for key, value in sorted(model.backbone.state_dict().items()):
        state.update(key.encode())
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
