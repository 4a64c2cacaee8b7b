"""Maps of a model outside of a study (`preceptor annotate`), in shards that are kept.

The same call continues where an earlier one stopped.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from preceptor.config.run import METHOD_NAMES, Method, RiseSettings, check_method
from preceptor.data.manifest import Manifest
from preceptor.data.workspace import Workspace
from preceptor.errors import HeldError, InputError
from preceptor.inference.annotate import (
    compute_maps,
    forwards_of,
    joined,
    model_digest,
    rows_of,
    shards_of,
)
from preceptor.maps.store import MapStore, read_store, write_store
from preceptor.models.build import load_model
from preceptor.utils.leases import lease
from preceptor.utils.plugins import source_digest
from preceptor.utils.process import fix_order_of_sums
from preceptor.utils.results import digest, finish, is_finished
from preceptor.utils.text import progress

PARTIAL_FOLDER = ".partial"
"""Folder within the store's where shards are kept until all are there."""


def annotate_in_shards(
    model: str | Path,
    manifest: str | Path,
    out: str | Path,
    method: Method = "cam",
    *,
    splits: str = "train",
    rise: RiseSettings | None = None,
    threads: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    cache: Literal["memmap", "none"] = "memmap",
    cache_dir: Path | None = None,
) -> MapStore:
    """Compute the saliency maps of a manifest in shards and write the map store.

    The maps are those of `annotate` (see its arguments) for the model in channels-last. Finished
    shards are kept in `out`: a repeated call computes the missing ones.
    """
    check_method(method)
    out = Path(out)
    rise = (rise or RiseSettings()) if method == "rise" else None
    torch.set_num_threads(threads)
    fix_order_of_sums()
    loaded = load_model(model)
    if device != "cpu" and torch.cuda.is_available():
        loaded = loaded.cuda()
    loaded = loaded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = loaded.spec.image_classes
    workspace = Workspace(
        Manifest.read(manifest, verify=False, need=(), classes=classes), cache_dir
    )
    table, whose = workspace.manifest, model_digest(loaded)
    shards = shards_of(table, splits, forwards_of(method, rise))
    # The same weights with another pooling have other maps.
    made_by = [whose, asdict(loaded.spec), rise and rise.model_dump(mode="json")]
    made_of = [workspace.hashes.of(rows_of(table, splits), None), splits, method]
    sources = [source_digest(name) for name in METHOD_NAMES.functions([method])]
    work = out / PARTIAL_FOLDER / digest([made_by, made_of, sources])
    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    try:
        with lease(out / PARTIAL_FOLDER, wait=0.0), progress() as bar:
            task = bar.add_task("making maps", total=len(rows_of(table, splits)), note="")
            folders = [work / f"{place:05d}" for place in range(len(shards))]
            for folder, shard in zip(folders, shards, strict=True):
                if not is_finished(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    made = compute_maps(
                        loaded,
                        workspace,
                        shard.rows(table),
                        method,
                        rise=rise,
                        cache=cache,
                        progress=folder / "rise.safetensors",
                    )
                    write_store(folder, made)
                    finish(folder, {"kind": "maps"}, without="rise.safetensors")
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
