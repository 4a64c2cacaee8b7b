"""Maps of a source placed on the images of a run: a map store, a folder, or those of a control."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.config.image_format import Fit
from preceptor.config.maps import KIND_NAMES, MapSource, Trust
from preceptor.data.cache import ImageSource
from preceptor.data.geometry import fit_boxes
from preceptor.data.images import decode_map
from preceptor.data.loader import MapArray
from preceptor.data.resampling import on_unit_square
from preceptor.errors import InputError, without_secrets
from preceptor.maps.map_folder import map_files
from preceptor.maps.plugin_maps import plugin_maps
from preceptor.maps.principal_components import (
    principal_maps,
    thumbnails,
    too_few_for_components,
)
from preceptor.maps.store import is_store, read_store
from preceptor.runtime.result_folder import is_finished, read_record
from preceptor.saliency.agreement import entropy

# Control with a centred map: one Gaussian on the unit square of every image.
CENTRE_SIDE = 32
CENTRE_SIGMA = 0.25  # as a fraction of the image's side

_NO_NAME = "no map has the name of one"

UNIT = (0.0, 0.0, 1.0, 1.0)  # the whole image


@dataclass(frozen=True)
class PlacedMaps:
    """Maps of a source other than human maps, for the rows of a run.

    Args:
        maps: (m, h, w) maps.
        index: (n,) position of each row's map; −1 = none.
        regions: (n, 4) part of each row's image that a map covers.
        trust: (m,) trust weights, or None.
        excluded: (n,) bool, rows whose map was excluded because of its error.
    """

    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]
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


def place_maps(
    source: MapSource,
    fit: Fit,
    table: pd.DataFrame,
    images: ImageSource,
    rows: NDArray[np.int64],
    *,
    scaled: bool,
) -> PlacedMaps | None:
    """Maps of the source of a run; None for human maps, which the loader reads itself.

    Args:
        source: Source of the maps.
        fit: Part of the images that the run sees.
        table: Rows of the manifest.
        images: Images, whose original sizes determine the position of a Teacher's grid.
        rows: (n,) rows in `images`.
        scaled: Whether the largest value of each map of a folder, or of a plugin, becomes 1.

    Raises:
        InputError: The maps cannot be read, or lack the values required by the trust.
    """
    if source.kind == "human":
        return None
    if source.kind == "centre":
        return _centred(len(rows))
    if source.kind == "pca":
        return _principal(source.components, fit, images, rows)
    if source.kind not in KIND_NAMES.own:
        made = plugin_maps(source.kind, table["path"].tolist(), table["label"].tolist())
        if scaled:
            made = made / made.max((1, 2), keepdims=True).clip(1e-12)
        return _over_whole_images(made, np.arange(len(rows)))
    names, path = table["name"].to_numpy(), source.path
    assert path is not None
    if not path.is_dir():
        raise InputError(f"maps: {path} is not a folder")
    if not is_store(path):
        _check_not_left_out(path)
        maps, index = _from_folder(path, names, scaled=scaled)
        return _over_whole_images(maps, index, source.trust)
    return _from_store(path, source.trust, names, images.sizes[rows])


def with_maps(path: Path, names: NDArray[np.object_]) -> NDArray[np.bool_]:
    """(n,) whether a folder of maps or a map store has a map of each image; no map is decoded."""
    if is_store(path):
        return np.isin(names.astype(str), read_store(path, columns=()).paths.astype(str))
    return np.array([file is not None for file in map_files(path, names.tolist())], bool)


def check_matches(path: Path, names: NDArray[np.object_]) -> None:
    """Check that a folder of maps or a map store has a map of an image; no map is decoded.

    Args:
        path: Folder.
        names: (n,) names of the images.

    Raises:
        InputError: It has none, or it is not clear which one.
    """
    if is_store(path):
        paths = read_store(path, columns=()).paths
        if not set(paths) & set(names):
            raise _no_store_match(path, names, paths)
        return
    _check_not_left_out(path)
    if not any(map_files(path, names.tolist())):
        raise _no_match(path, names, _NO_NAME)


def _check_not_left_out(path: Path) -> None:
    if is_finished(path):
        teacher = path.parent.with_name("runs") / str(read_record(path).get("teacher"))
        raise InputError(
            f"maps: those of {path} were left out of an archive; remove this folder and that "
            f"of its Teacher, {teacher}, and start again: both are computed anew"
        )


def _centred(count: int) -> PlacedMaps:
    """One Gaussian in the center of every image."""
    axis = (np.arange(CENTRE_SIDE) + 0.5) / CENTRE_SIDE - 0.5
    line = np.exp(-(axis**2) / (2 * CENTRE_SIGMA**2))
    maps = (line[:, None] * line[None]).astype(np.float32)[None]
    return _over_whole_images(maps, np.zeros(count, np.int64))


def _over_whole_images(
    maps: NDArray[np.float32], index: NDArray[np.int64], trust: Trust = "none"
) -> PlacedMaps:
    regions, excluded = np.tile(UNIT, (len(index), 1)), np.zeros(len(index), bool)
    return PlacedMaps(maps, index, regions, trust_weights(trust, maps), excluded)


def _principal(
    components: int, fit: Fit, images: ImageSource, rows: NDArray[np.int64]
) -> PlacedMaps:
    """Maps from the principal components of the images of the rows."""
    problem = too_few_for_components(len(rows), components)
    if problem:
        raise InputError(f"maps: {problem}")
    small, regions = thumbnails(images, rows, fit)
    maps, index = principal_maps(small, components), np.arange(len(rows))
    return PlacedMaps(maps, index, regions, None, np.zeros(len(rows), bool))


def _from_store(
    path: Path, trust: Trust, names: NDArray[np.object_], sizes: NDArray[np.int32]
) -> PlacedMaps:
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
    if not (found >= 0).any():
        raise _no_store_match(path, names, store.paths)
    # Min-max normalization would turn noise into a regular map. The last entry is for −1 (no map).
    excluded = np.append(~store.settled, False)[found]
    found[excluded] = -1
    used = np.flatnonzero(found >= 0)
    index = np.full(len(names), -1, np.int64)
    index[used] = np.arange(len(used))
    chosen = found[used]
    maps = store.maps[chosen]  # float16: a training process holds all of them
    scores = store.scores[chosen] if trust == "score" else None
    agreement = None if store.agreement is None else store.agreement[chosen]
    regions = fit_boxes(sizes, store.info.fit, store.info.side)
    weights = trust_weights(trust, maps, scores, agreement)
    return PlacedMaps(maps, index, regions, weights, excluded)


def _no_store_match(
    path: Path, names: NDArray[np.object_], paths: NDArray[np.object_]
) -> InputError:
    known = f"its first image is {_shown(paths)}" if len(paths) else "it has no map"
    return _no_match(path, names, known)


def _no_match(path: Path, names: NDArray[np.object_], known: str) -> InputError:
    """Error of maps of which none is that of an image of the run."""
    return InputError(
        f"maps: {path} contains none of the {len(names):,} training images: {known}, and that of "
        f"the manifest is {_shown(names)}; make maps for this manifest, or name its images as the "
        "maps do, in a column name"
    )


def _shown(names: NDArray[np.object_]) -> str:
    """First one of the names of images."""
    return repr(without_secrets(str(names[0])))


def _from_folder(
    path: Path, names: NDArray[np.object_], *, scaled: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Map images of a folder over the whole images, see `map_files`."""
    maps: list[NDArray[np.float32]] = []
    index = np.full(len(names), -1, np.int64)
    for position, file in enumerate(map_files(path, names.tolist())):
        if file is not None:
            index[position] = len(maps)
            found = on_unit_square(decode_map(file))
            maps.append(found / max(float(found.max()), 1e-12) if scaled else found)
    if not maps:
        raise _no_match(path, names, _NO_NAME)
    return np.stack(maps), index


def trust_weights(
    trust: Trust,
    maps: NDArray[np.float16] | NDArray[np.float32],
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
        values = 1 - entropy(torch.from_numpy(maps.astype(np.float32))).values.numpy()
    else:
        given = scores if trust == "score" else agreement
        if given is None:
            needed = "a Teacher's" if trust == "score" else "a committee's, of 2 or more Teachers,"
            raise InputError(f"maps: trust: {trust} needs {needed} map store; set another trust")
        values = given
    known: NDArray[np.float32] = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    return known.clip(0).astype(np.float32)
