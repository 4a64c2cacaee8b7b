"""Which map guides which training image: human, a Teacher's, a folder's, or a control's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from preceptor.config.run import MapSource, PostProcessing, RunConfig, Trust
from preceptor.data.cache import ImageSource
from preceptor.data.cache_folder import MAP_SIDE, on_unit_square
from preceptor.data.geometry import fit_boxes
from preceptor.data.images import decode_map
from preceptor.data.loader import Guides, MapArray
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.maps.store import is_store, read_store
from preceptor.saliency.agreement import entropy
from preceptor.saliency.postprocess import post_process

# The centre control: one Gaussian on the unit square of every image.
CENTRE_SIDE = 32
CENTRE_SIGMA = 0.25  # of the image's side


def build_guides(
    config: RunConfig,
    manifest: Manifest,
    images: ImageSource,
    rows: NDArray[np.int64],
    annotated: NDArray[np.bool_],
) -> Guides | None:
    """The guides of a run's training rows, or None for a run without guidance.

    Args:
        config: Names the maps (`maps`) and what they are worth, the guided classes, whether human
            maps are kept, and what is done to the maps (`human_post` to human ones, `post` to the
            others).
        manifest: All rows.
        images: Gives the original sizes, which place a Teacher's grid on each image.
        rows: (n,) the manifest rows that are trained on.
        annotated: (len(manifest),) bool, the rows whose human maps may be used.

    Raises:
        InputError: No guided row has a map, or the maps cannot be read, or they lack what `trust`
            asks for.
    """
    if not config.guided:
        return None
    table = manifest.table.iloc[rows]
    has_human = ((table["saliency"] != "").to_numpy()) & annotated[rows]
    source = config.maps
    array: MapArray | None = None
    factor: NDArray[np.float32] | None = None
    index = np.full(len(rows), -1, np.int64)
    human_rows: NDArray[np.int64] | None = None
    noise = np.zeros(len(rows), bool)
    if source.kind == "human":
        usable = has_human
    else:
        worth: NDArray[np.float32] | None = None
        if source.kind == "centre":
            array, index = _centre(len(rows))
        else:
            maps, regions, index, worth, noise = _from_elsewhere(source, manifest, images, rows)
            array = MapArray(maps, regions[index >= 0])
        usable = index >= 0
        if source.human == "keep":
            index = np.where(has_human, -1, index)
            usable = usable | has_human
        if source.shuffle_seed is not None:
            whose = _shuffled(usable, table["label"].to_numpy(), source.shuffle_seed)
            index, human_rows = index[whose], rows[whose]
        if worth is not None:
            factor = np.zeros(len(rows), np.float32)
            stored = usable & (index >= 0)
            factor[stored] = worth[index[stored]]  # it goes with the map, wherever that went
        if source.shuffle_seed is not None:  # each over the region of the image that receives it
            received = index >= 0
            array = MapArray(maps[index[received]], regions[received])
            index = np.where(received, np.cumsum(received) - 1, -1)
    if config.guide_classes is not None:
        guided = table["label"].isin(config.guide_classes).to_numpy()
        usable, noise = usable & guided, noise & guided
    if noise.any() and not usable.any():
        raise InputError(
            f"maps: none of the {int(noise.sum()):,} maps of {source.path} that could guide has "
            "settled; mark with more masks (max_masks) or a larger tolerance"
        )
    if not usable.any():
        raise InputError(
            f"maps: none of the {len(rows):,} training images has a map to guide by "
            f"(maps: {source.kind}{f' {source.path}' if source.path else ''})"
        )
    weight = np.where(usable, table["map_weight"].to_numpy(np.float32), 0).astype(np.float32)
    if factor is not None:
        weight *= _relative(factor, (weight > 0) & (index >= 0), source)
    post, human_post = _applied(config.post), _applied(config.human_post)
    return Guides(weight, array, index, post, human_post, human_rows)


def _applied(settings: PostProcessing) -> Callable[[Tensor], Tensor] | None:
    """The post-processing as a function of maps; None where nothing is to be done."""
    return None if settings == PostProcessing() else partial(post_process, settings=settings)


def _relative(
    worth: NDArray[np.float32], from_store: NDArray[np.bool_], source: MapSource
) -> NDArray[np.float32]:
    """(n,) factors of the map weights: mean 1 over the rows that the store guides, 1 elsewhere.

    Hence the store's maps keep the pull that they have together, and α its meaning.
    """
    if not from_store.any():
        return np.ones_like(worth)
    mean = worth[from_store].mean(dtype=np.float64)
    if mean == 0:
        raise InputError(
            f"maps: trust: {source.trust} is 0 for each of the {int(from_store.sum()):,} maps of "
            f"{source.path} that would guide; set trust to none or to another measure"
        )
    return np.where(from_store, worth / mean, 1).astype(np.float32)


def worth_of(
    trust: Trust,
    maps: NDArray[np.float32],
    scores: NDArray[np.float32] | None = None,
    agreement: NDArray[np.float32] | None = None,
) -> NDArray[np.float32] | None:
    """What each of a Teacher's maps is worth, before it is compared with the others'.

    Args:
        trust: score, agreement (below 0 counts as 0), entropy (1 − the map's entropy as a
            distribution, in shares of an even spread's) or none.
        maps: (m, h, w).
        scores: (m,) the Teacher's probability of each map's class, where known.
        agreement: (m,) of the members of a committee, where known.

    Returns:
        (m,) ≥ 0, 0 for values that are not finite and for the entropy of a constant map; None for
        none.

    Raises:
        InputError: It is not known.

    Example:
        >>> maps = np.array([[[0, 1], [0, 1]], [[0, 0], [0, 1]], [[1, 1], [1, 1]]], np.float32)
        >>> worth_of("entropy", maps).tolist()
        [0.5, 1.0, 0.0]
    """
    if trust == "none":
        return None
    if not len(maps):
        return np.zeros(0, np.float32)
    if trust == "entropy":
        values = 1 - entropy(torch.from_numpy(maps)).values.numpy()
    else:
        given = scores if trust == "score" else agreement
        if given is None:
            needed = "a Teacher's" if trust == "score" else "a committee's, of 2 or more Teachers,"
            raise InputError(f"maps: trust: {trust} needs {needed} map store; set another trust")
        values = given
    known: NDArray[np.float32] = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    return known.clip(0).astype(np.float32)


def _centre(count: int) -> tuple[MapArray, NDArray[np.int64]]:
    axis = (np.arange(CENTRE_SIDE) + 0.5) / CENTRE_SIDE - 0.5
    line = np.exp(-(axis**2) / (2 * CENTRE_SIGMA**2))
    maps = (line[:, None] * line[None]).astype(np.float32)[None]
    return MapArray(maps, np.array([[0.0, 0.0, 1.0, 1.0]])), np.zeros(count, np.int64)


def _from_elsewhere(
    source: MapSource, manifest: Manifest, images: ImageSource, rows: NDArray[np.int64]
) -> tuple[
    NDArray[np.uint8] | NDArray[np.float32],
    NDArray[np.float64],
    NDArray[np.int64],
    NDArray[np.float32] | None,
    NDArray[np.bool_],
]:
    """Maps of a store or of a folder of map images, of the rows that have one, in their order.

    Returns:
        (m, h, w) maps; (n, 4) the region of each row's image that a map of this origin covers;
        (n,) positions in the maps, −1 = none; (m,) each map's worth, or None; (n,) whether there
        would be one, had it settled.
    """
    path = source.path
    assert path is not None
    if not path.is_dir():
        raise InputError(f"maps: {path} is not a folder")
    names = manifest.table["name"].to_numpy()[rows]
    regions = np.tile(np.array([0.0, 0.0, 1.0, 1.0]), (len(rows), 1))
    if not is_store(path):
        array, index = _from_folder(path, names)
        worth = worth_of(source.trust, array.astype(np.float32))
        return array, regions, index, worth, np.zeros(len(rows), bool)
    extra = () if source.trust in ("none", "entropy") else (source.trust,)  # columns of that name
    store = read_store(path, columns=("map", "error", *extra))
    place = {name: position for position, name in enumerate(store.paths)}
    found = np.array([place.get(name, -1) for name in names], np.int64)
    # Min-max would blow noise up to a map like any other. At the end, for −1: no map, no noise.
    noise = np.append(~store.settled, False)[found]
    found[noise] = -1
    regions = fit_boxes(images.sizes[rows], store.info.fit, store.info.side)
    used = np.flatnonzero(found >= 0)
    index = np.full(len(rows), -1, np.int64)
    index[used] = np.arange(len(used))
    chosen = found[used]
    maps = store.maps[chosen].astype(np.float32)
    scores = store.scores[chosen] if source.trust == "score" else None
    agreement = None if store.agreement is None else store.agreement[chosen]
    worth = worth_of(source.trust, maps, scores, agreement)
    return maps, regions, index, worth, noise


def _from_folder(
    path: Path, names: NDArray[np.object_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Map images with the images' own relative paths or file names, any image suffix."""
    suffixes = Image.registered_extensions()
    files = {
        file.relative_to(path).with_suffix("").as_posix(): file
        for file in sorted(path.rglob("*.*"))
        if file.suffix.lower() in suffixes and not file.name.startswith(".")
    }
    by_name: dict[Path, str] = {}
    maps: list[NDArray[np.float32]] = []
    index = np.full(len(names), -1, np.int64)
    for position, name in enumerate(names):
        stem = Path(str(name)).with_suffix("")
        file = files.get(stem.as_posix())
        if file is None and stem.name in files:
            file = files[stem.name]
            if by_name.setdefault(file, str(name)) != name:
                raise InputError(
                    f"maps: {file} could be of {by_name[file]} or of {name}; "
                    "put the maps into folders as the images are"
                )
        if file is not None:
            index[position] = len(maps)
            maps.append(on_unit_square(decode_map(file)))
    stacked = np.stack(maps) if maps else np.zeros((0, MAP_SIDE, MAP_SIDE), np.float32)
    return stacked, index


def _shuffled(
    usable: NDArray[np.bool_], labels: NDArray[np.object_], seed: int
) -> NDArray[np.int64]:
    """(n,) whose map each row gets: a permutation within each class of the rows that have one."""
    generator = np.random.default_rng([seed, 3])
    whose = np.arange(len(usable))
    for label in np.unique(labels.astype(str)):
        members = np.flatnonzero((labels == label) & usable)
        whose[members] = members[generator.permutation(len(members))]
    return whose
