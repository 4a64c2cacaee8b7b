"""Map targets of a run: human maps, maps of a Teacher or a folder, or maps of a control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from preceptor.config.image_format import Fit
from preceptor.config.maps import MapSource, PostProcessing, Trust
from preceptor.config.run import RunConfig
from preceptor.data.cache import ImageSource
from preceptor.data.cache_folder import MAP_SIDE, on_unit_square
from preceptor.data.geometry import fit_boxes
from preceptor.data.images import decode_map
from preceptor.data.manifest import Manifest
from preceptor.data.rows import MapArray, MapTargets, Masks
from preceptor.errors import InputError
from preceptor.maps.principal_components import (
    principal_maps,
    thumbnails,
    too_few_for_components,
)
from preceptor.maps.store import is_store, read_store
from preceptor.saliency.agreement import entropy
from preceptor.saliency.postprocess import post_process

# Control with a centred map: one Gaussian on the unit square of every image.
CENTRE_SIDE = 32
CENTRE_SIGMA = 0.25  # as a fraction of the image's side

UNIT = (0.0, 0.0, 1.0, 1.0)  # the whole image


def build_map_targets(
    config: RunConfig,
    manifest: Manifest,
    images: ImageSource,
    rows: NDArray[np.int64],
    annotated: NDArray[np.bool_],
) -> MapTargets | None:
    """Map targets of the training rows of a run, or None for a run that uses no maps.

    Args:
        config: Config of the run: source of the maps (`maps`), guided classes, and post-processing
            (`human_post` of human maps, `post` of all others).
        manifest: Manifest of the run.
        images: Images, whose original sizes determine the position of a Teacher's grid.
        rows: (n,) manifest rows used for training.
        annotated: (len(manifest),) bool, rows whose human maps may be used.

    Raises:
        InputError: No guided row has a map, or the maps cannot be read, or they lack the values
            required by `trust`.
    """
    if not config.uses_maps:
        return None
    table, source = manifest.table.iloc[rows], config.maps
    labels = table["label"].to_numpy()
    has_human = (table["saliency"] != "").to_numpy() & annotated[rows]
    as_masks = config.guided_by_masks
    placed = _placed_maps(source, config.training.fit, manifest, images, rows, scaled=as_masks)
    index = np.full(len(rows), -1, np.int64) if placed is None else placed.index
    keeps_human = placed is None or source.human == "keep"
    if keeps_human:
        index = np.where(has_human, -1, index)
    usable = (index >= 0) | (has_human & keeps_human)
    masks = None
    marked = has_human
    if config.labels == "class" and (as_masks or source.marks):
        marked = np.isin(labels, marked_classes(manifest, annotated))
    if as_masks:
        examined = manifest.annotated_mask[rows] & annotated[rows]
        whole = (
            ~marked & ~has_human & (source.kind in ("centre", "pca") or (examined & keeps_human))
        )
        shows_marks = placed is None or source.marks
        masks = Masks(whole, ~marked & ~whole & shows_marks, config.training.cell_full)
        usable |= whole
    elif source.marks:
        # Scaled to [0, 1], a map without marks would be one of noise.
        usable &= marked | (has_human & keeps_human)
    if config.labels == "marks" and not has_human.any():
        raise _no_map(source, len(rows), 0)
    array = None if placed is None else placed.array()
    trust = None if placed is None else placed.trust_of(index)
    human_rows: NDArray[np.int64] | None = None
    if source.shuffle_seed is not None:
        whose = _shuffled(usable, labels, source.shuffle_seed)
        index, human_rows = index[whose], rows[whose]
        if placed is not None:
            trust = placed.trust_of(index)  # the trust belongs to the map
            array, index = placed.received(index)  # the region to the image
    excluded = np.zeros(len(rows), bool) if placed is None else placed.excluded
    if config.guide_classes is not None:
        guided = np.isin(labels, config.guide_classes)
        usable, excluded = usable & guided, excluded & guided
    if not usable.any():
        raise _no_map(source, len(rows), int(excluded.sum()))
    weight = np.where(usable, table["map_weight"].to_numpy(np.float32), 0).astype(np.float32)
    if trust is not None:
        weight *= _mean_one(trust, (weight > 0) & (index >= 0), source)
    post, human_post = _applied(config.post), _applied(config.human_post)
    return MapTargets(weight, array, index, post, human_post, human_rows, masks)


def marked_classes(manifest: Manifest, annotated: NDArray[np.bool_]) -> list[str]:
    """Classes with a human map in any training image whose annotation is used.

    The others are defined by the absence of marks.

    Args:
        manifest: Manifest.
        annotated: (len(manifest),) bool, rows whose annotation is used.
    """
    with_map = manifest.map_mask & manifest.train_mask & annotated
    return sorted(set(manifest.table["label"].to_numpy()[with_map]))


def _no_map(source: MapSource, rows: int, excluded: int) -> InputError:
    """Error of a run without any map that can guide."""
    if excluded:
        return InputError(
            f"maps: none of the {excluded:,} maps of {source.path} reached the tolerance; use more "
            "masks (max_masks) or a larger tolerance"
        )
    return InputError(
        f"maps: none of the {rows:,} training images has a map that can guide "
        f"(maps: {source.kind}{f' {source.path}' if source.path else ''})"
    )


@dataclass(frozen=True)
class _PlacedMaps:
    """Maps of a source other than human maps, for the rows of a run.

    Args:
        maps: (m, h, w) maps.
        index: (n,) position of each row's map; −1 = none.
        regions: (n, 4) part of each row's image that a map covers.
        trust: (m,) trust weights, or None.
        excluded: (n,) bool, rows whose map was excluded because of its error.
    """

    maps: NDArray[np.uint8] | NDArray[np.float32]
    index: NDArray[np.int64]
    regions: NDArray[np.float64]
    trust: NDArray[np.float32] | None
    excluded: NDArray[np.bool_]

    def array(self) -> MapArray:
        """Maps, each over the region of its own image."""
        # One map for all images, the centred one, covers each image whole.
        return MapArray(self.maps, self.regions[self.index >= 0][: len(self.maps)])

    def trust_of(self, index: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """(n,) trust weights of the maps at these positions; 0 without a map."""
        if self.trust is None:
            return None
        found = np.zeros(len(index), np.float32)
        found[index >= 0] = self.trust[index[index >= 0]]
        return found

    def received(self, index: NDArray[np.int64]) -> tuple[MapArray, NDArray[np.int64]]:
        """Maps in the order of the rows that receive them, each over the region of its image, and
        the positions of the rows in them."""
        has_map = index >= 0
        array = MapArray(self.maps[index[has_map]], self.regions[has_map])
        return array, np.where(has_map, np.cumsum(has_map) - 1, -1)


def _applied(settings: PostProcessing) -> Callable[[Tensor], Tensor] | None:
    """Post-processing as a function of maps; None if there is none."""
    return None if settings == PostProcessing() else partial(post_process, settings=settings)


def _mean_one(
    worth: NDArray[np.float32], from_store: NDArray[np.bool_], source: MapSource
) -> NDArray[np.float32]:
    """(n,) factors of the map weights: mean 1 over the rows guided by the store, 1 elsewhere.

    With mean 1, the total weight of the store's maps, and thus the meaning of α, is unchanged.
    """
    if not from_store.any():
        return np.ones_like(worth)
    mean = worth[from_store].mean(dtype=np.float64)
    if mean == 0:
        raise InputError(
            f"maps: trust: {source.trust} is 0 for all {int(from_store.sum()):,} maps of "
            f"{source.path}; set trust to none or to another measure"
        )
    return np.where(from_store, worth / mean, 1).astype(np.float32)


def trust_weights(
    trust: Trust,
    maps: NDArray[np.float32],
    scores: NDArray[np.float32] | None = None,
    agreement: NDArray[np.float32] | None = None,
) -> NDArray[np.float32] | None:
    """Trust weights of a Teacher's maps, before they are scaled to mean 1.

    Args:
        trust: score, agreement (negative values become 0), entropy (1 − normalized entropy of the
            map as a distribution) or none.
        maps: (m, h, w) maps.
        scores: (m,) the Teacher's probability of the class of each map, or None.
        agreement: (m,) agreement of the members of a committee, or None.

    Returns:
        (m,) weights ≥ 0; 0 for non-finite values and for the entropy of a constant map. None for
        trust none.

    Raises:
        InputError: The values required by `trust` are missing.

    Example:
        >>> maps = np.array([[[0, 1], [0, 1]], [[0, 0], [0, 1]], [[1, 1], [1, 1]]], np.float32)
        >>> trust_weights("entropy", maps).tolist()
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


def _placed_maps(
    source: MapSource,
    fit: Fit,
    manifest: Manifest,
    images: ImageSource,
    rows: NDArray[np.int64],
    *,
    scaled: bool,
) -> _PlacedMaps | None:
    """Maps of the source of a run; None for human maps, which the loader reads itself.

    With `scaled`, the largest value of each map of a folder is 1.
    """
    if source.kind == "human":
        return None
    if source.kind == "centre":
        return _centred(len(rows))
    if source.kind == "pca":
        return _principal(source.components, fit, images, rows)
    path = source.path
    assert path is not None
    if not path.is_dir():
        raise InputError(f"maps: {path} is not a folder")
    names = manifest.table["name"].to_numpy()[rows]
    if not is_store(path):
        maps, index = _from_folder(path, names, scaled=scaled)
        trust = trust_weights(source.trust, maps.astype(np.float32))
        regions = np.tile(UNIT, (len(rows), 1))
        return _PlacedMaps(maps, index, regions, trust, np.zeros(len(rows), bool))
    return _from_store(path, source.trust, names, images.sizes[rows])


def _centred(count: int) -> _PlacedMaps:
    """One Gaussian in the center of every image."""
    axis = (np.arange(CENTRE_SIDE) + 0.5) / CENTRE_SIDE - 0.5
    line = np.exp(-(axis**2) / (2 * CENTRE_SIGMA**2))
    maps = (line[:, None] * line[None]).astype(np.float32)[None]
    regions = np.tile(UNIT, (count, 1))
    return _PlacedMaps(maps, np.zeros(count, np.int64), regions, None, np.zeros(count, bool))


def _principal(
    components: int, fit: Fit, images: ImageSource, rows: NDArray[np.int64]
) -> _PlacedMaps:
    """Maps from the principal components of the images of the rows."""
    problem = too_few_for_components(len(rows), components)
    if problem:
        raise InputError(f"maps: {problem}")
    small, regions = thumbnails(images, rows, fit)
    maps, index = principal_maps(small, components), np.arange(len(rows))
    return _PlacedMaps(maps, index, regions, None, np.zeros(len(rows), bool))


def _from_store(
    path: Path, trust: Trust, names: NDArray[np.object_], sizes: NDArray[np.int32]
) -> _PlacedMaps:
    """Maps of a map store.

    Args:
        path: Folder of the store.
        trust: Measure of the trust weights.
        names: (n,) names of the rows' images.
        sizes: (n, 2) their original widths and heights, in pixels.
    """
    extra = () if trust in ("none", "entropy") else (trust,)  # columns of that name
    store = read_store(path, columns=("map", "error", *extra))
    place = {name: position for position, name in enumerate(store.paths)}
    found = np.array([place.get(name, -1) for name in names], np.int64)
    # Min-max normalization would turn noise into a regular map. The last entry is for −1 (no map).
    excluded = np.append(~store.settled, False)[found]
    found[excluded] = -1
    used = np.flatnonzero(found >= 0)
    index = np.full(len(names), -1, np.int64)
    index[used] = np.arange(len(used))
    chosen = found[used]
    maps = store.maps[chosen].astype(np.float32)
    scores = store.scores[chosen] if trust == "score" else None
    agreement = None if store.agreement is None else store.agreement[chosen]
    regions = fit_boxes(sizes, store.info.fit, store.info.side)
    weights = trust_weights(trust, maps, scores, agreement)
    return _PlacedMaps(maps, index, regions, weights, excluded)


def _from_folder(
    path: Path, names: NDArray[np.object_], *, scaled: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Map images with the relative paths or file names of the images, with any image suffix."""
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
                    f"maps: {file} matches both {by_name[file]} and {name}; use the folders of the "
                    "images for the maps"
                )
        if file is not None:
            index[position] = len(maps)
            found = on_unit_square(decode_map(file))
            maps.append(found / max(float(found.max()), 1e-12) if scaled else found)
    stacked = np.stack(maps) if maps else np.zeros((0, MAP_SIDE, MAP_SIDE), np.float32)
    return stacked, index


def _shuffled(
    usable: NDArray[np.bool_], labels: NDArray[np.object_], seed: int
) -> NDArray[np.int64]:
    """(n,) position of the map of each row after a permutation of the maps within each class."""
    generator = np.random.default_rng([seed, 3])
    whose = np.arange(len(usable))
    for label in np.unique(labels.astype(str)):
        members = np.flatnonzero((labels == label) & usable)
        whose[members] = members[generator.permutation(len(members))]
    return whose
