"""Map targets of a run: human maps, or the maps of a map store, a folder or a control.

**Maps without people** (`pca`): the part of each image that lies in the first principal components.
The training images as thumbnails x_1 … x_n have the mean μ and the principal components u_1 … u_k.
The map of image i is the magnitude of its reconstruction from these components,

    m_i = |Σ_j u_j u_jᵀ (x_i − μ)|,

min-max normalized. It knows neither labels nor marks. Principal components of images are the
eigenfaces of Turk and Pentland, "Eigenfaces for Recognition", Journal of Cognitive Neuroscience
3(1), 1991. Webster and Scheirer, "What's Old is New Again", arXiv:2606.13528, 2026, guide by maps
from eigenfaces and Fisherfaces; the formula above adapts the idea, not their procedure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.config.run import PCA_COMPONENTS, MapSource, RunConfig
from preceptor.config.settings import Fit
from preceptor.data.cache import ImageSource
from preceptor.data.geometry import MAP_SIDE, fit_boxes
from preceptor.data.images import decode_map, image_suffixes
from preceptor.data.loader import MapArray, MapTargets, Masks
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import on_unit_square, resample
from preceptor.errors import InputError, without_secrets
from preceptor.maps.store import is_store, read_store
from preceptor.utils.files import walk

# Control with a centered map: one Gaussian on the unit square of every image.
CENTRE_SIDE = 32
CENTRE_SIGMA = 0.25  # as a fraction of the image's side

UNIT = (0.0, 0.0, 1.0, 1.0)  # the whole image


@dataclass(frozen=True)
class PlacedMaps:
    """Maps of a source other than human maps, for the rows of a run."""

    maps: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]  # (m, h, w)
    index: NDArray[np.int64]  # (n,) position of each row's map; −1 = none
    regions: NDArray[np.float64]  # (n, 4) part of each row's image that a map covers
    excluded: NDArray[np.bool_]  # (n,) rows whose map has too large an error

    def array(self) -> MapArray:
        """Maps, each over the region of its own image."""
        # One map for all images, the centered one, covers each image whole.
        return MapArray(self.maps, self.regions[self.index >= 0][: len(self.maps)])

    def received(self, index: NDArray[np.int64]) -> tuple[MapArray, NDArray[np.int64]]:
        """Maps in the order of the rows that receive them, and the positions of rows in them."""
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

    If `scaled`, the largest value of each map of a folder becomes 1.
    """
    if source.kind == "human":
        return None
    if source.kind == "centre":
        axis = (np.arange(CENTRE_SIDE) + 0.5) / CENTRE_SIDE - 0.5
        line = np.exp(-(axis**2) / (2 * CENTRE_SIGMA**2))
        maps = (line[:, None] * line[None]).astype(np.float32)[None]
        return _over_whole_images(maps, np.zeros(len(rows), np.int64))
    if source.kind == "pca":
        if problem := too_few_for_components(len(rows)):
            raise InputError(f"maps: {problem}")
        small, regions = thumbnails(images, rows, fit)
        index, excluded = np.arange(len(rows)), np.zeros(len(rows), bool)
        return PlacedMaps(principal_maps(small, PCA_COMPONENTS), index, regions, excluded)
    names, path = table["name"].to_numpy(), source.path
    assert path is not None
    if not path.is_dir():
        raise InputError(f"maps: {path} is not a folder")
    if not is_store(path):
        maps, index = _from_folder(path, names, scaled=scaled)
        return _over_whole_images(maps, index)
    return _from_store(path, names, images.sizes[rows])


def with_maps(path: Path, names: NDArray[np.object_]) -> NDArray[np.bool_]:
    """(n,) whether a folder of maps or a map store has a map of each image; no map is decoded."""
    if is_store(path):
        return np.isin(names.astype(str), read_store(path, columns=()).paths.astype(str))
    return np.array([file is not None for file in map_files(path, names.tolist())], bool)


def shows_marks(path: Path) -> bool:
    """Whether a folder is a map store of a mapper, with probabilities of a mark."""
    return is_store(path) and read_store(path, columns=()).info.method == "cells"


def guided_by_marks(config: RunConfig) -> bool:
    """Whether the maps that guide a run show marks, by its config or by its map store."""
    maps = config.maps
    return maps.marks or (config.guided and maps.path is not None and shows_marks(maps.path))


def check_matches(path: Path, names: NDArray[np.object_]) -> None:
    """Check that a folder of maps or a map store has a map of an image; no map is decoded."""
    if not with_maps(path, names).any():
        stored = read_store(path, columns=()).paths if is_store(path) else None
        raise _no_match(path, names, stored)


def _over_whole_images(maps: NDArray[np.float32], index: NDArray[np.int64]) -> PlacedMaps:
    regions, excluded = np.tile(UNIT, (len(index), 1)), np.zeros(len(index), bool)
    return PlacedMaps(maps, index, regions, excluded)


def _from_store(path: Path, names: NDArray[np.object_], sizes: NDArray[np.int32]) -> PlacedMaps:
    """Maps of a map store, given the (n, 2) original sizes of the images."""
    store = read_store(path, columns=("map", "error"))
    positions = {name: position for position, name in enumerate(store.paths)}
    rows = np.array([positions.get(name, -1) for name in names], np.int64)
    if not (rows >= 0).any():
        raise _no_match(path, names, store.paths)
    # Min-max normalization would turn noise into a regular map. The last entry is for −1 (no map).
    excluded = np.append(~store.settled, False)[rows]
    rows[excluded] = -1
    used = np.flatnonzero(rows >= 0)
    index = np.full(len(names), -1, np.int64)
    index[used] = np.arange(len(used))
    maps = store.maps[rows[used]]  # float16: a training process holds all of them
    regions = fit_boxes(sizes, store.info.fit, store.info.side)
    return PlacedMaps(maps, index, regions, excluded)


def _no_match(
    path: Path, names: NDArray[np.object_], stored: NDArray[np.object_] | None = None
) -> InputError:
    """Error if no map belongs to an image of the run; `stored`: image names of the map store."""

    def shown(names: NDArray[np.object_]) -> str:
        return repr(without_secrets(str(names[0])))

    reason = "no map has the name of one"
    if stored is not None:
        reason = f"its first image is {shown(stored)}" if len(stored) else "it has no map"
    return InputError(
        f"maps: {path} contains none of the {len(names):,} training images: {reason}, and that of "
        f"the manifest is {shown(names)}; make maps for this manifest, or name its images as the "
        "maps do, in a column name"
    )


def _from_folder(
    path: Path, names: NDArray[np.object_], *, scaled: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Map images of a folder over the whole images, see `map_files`."""
    files = map_files(path, names.tolist())
    there = np.array([file is not None for file in files])
    if not there.any():
        raise _no_match(path, names)
    maps = np.empty((there.sum(), MAP_SIDE, MAP_SIDE), np.float32)
    for number, file in enumerate(filter(None, files)):
        values = on_unit_square(decode_map(file))
        maps[number] = values / max(float(values.max()), 1e-12) if scaled else values
    return maps, np.where(there, there.cumsum() - 1, -1)


def map_files(folder: Path, names: Sequence[str]) -> list[Path | None]:
    """Map image of each image, None = it has none.

    A map has the relative path of its image, or its file name alone. It may have another suffix, or
    one more (`a.jpg.png` for `a.jpg`, where there is an `a.png` as well).
    """
    lookup = _Folder(folder)
    owners: dict[Path, str] = {}
    files: list[Path | None] = []
    for name in map(str, names):
        file = lookup.map_of(without_secrets(name))
        if file is not None and (owner := owners.setdefault(file, name)) != name:
            texts = without_secrets(owner), without_secrets(name)
            first, other = map(PurePosixPath, texts)
            remedy = "use the folders of the images for the maps"
            if first.parent == other.parent:
                remedy = f"name their maps {first.name}.png and {other.name}.png"
            raise InputError(f"maps: {file} matches both {texts[0]} and {texts[1]}; {remedy}")
        files.append(file)
    return files


_composed = partial(unicodedata.normalize, "NFC")  # names of folders from macOS are decomposed


class _Folder:
    """Map images of a folder by their relative paths, with and without the last suffix."""

    def __init__(self, folder: Path) -> None:
        suffixes = image_suffixes()
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, list[Path]] = {}
        files = (Path(base, name) for base, _, names in walk(str(folder)) for name in names)
        for file in sorted(files):
            if file.suffix.lower() in suffixes and not file.name.startswith("."):
                path = PurePosixPath(_composed(file.relative_to(folder).as_posix()))
                self._by_name[path.as_posix()] = file
                self._by_stem.setdefault(path.with_suffix("").as_posix(), []).append(file)

    def map_of(self, name: str) -> Path | None:
        """Map of an image, by its path or else its file name; None if there is none."""
        image = PurePosixPath(_composed(name))
        for path in (image, PurePosixPath(image.name)):
            if (same := self._by_name.get(str(path))) is not None:
                return same
            for key in (path, path.with_suffix("")):
                files = self._by_stem.get(str(key), [])
                if len(files) > 1:
                    raise InputError(
                        f"maps: {files[0]} and {files[1]} match {name}; remove one of them"
                    )
                if files:
                    return files[0]
        return None


# Cells of a thumbnail's side. The first components of images are smooth, and feature grids have 6
# to 14 cells. As uint8 a map needs 256 bytes, so that a million images fit into memory.
SIDE = 16
_BLOCK = 64  # images resized at once
_LUMA = torch.tensor([0.299, 0.587, 0.114])
# Grey levels of 255: a smaller range of a reconstruction is rounding, which min-max would enlarge.
_ROUNDING = 1e-6


def thumbnails(
    images: ImageSource, rows: NDArray[np.int64], fit: Fit
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(n, 16, 16) gray thumbnails, and the (n, 4) region of its image that each covers."""
    boxes = fit_boxes(images.sizes[rows], fit, images.side)
    regions = boxes.clip(0, 1)
    small = np.empty((len(rows), SIDE, SIDE), np.uint8)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        canvases = torch.from_numpy(images.canvases(rows[part])).float()
        grey = canvases @ _LUMA if canvases.shape[3] == 3 else canvases[..., 0]
        own, to = torch.from_numpy(boxes[part].copy()), torch.from_numpy(regions[part])
        small[part] = resample(grey, own, to, (SIDE, SIDE)).round_().byte().numpy()
    return small, regions


def too_few_for_components(images: int) -> str:
    """Problem of a number of images that has fewer principal components; "" if there is none."""
    few = f"{images} training images have fewer than {PCA_COMPONENTS} principal components"
    return "" if images > PCA_COMPONENTS else f"{few}; add images"


def principal_maps(images: NDArray[np.uint8], components: int) -> NDArray[np.uint8]:
    """(n, h, w) magnitude of the reconstruction of images from their first principal components.

    Maps have the full range from 0 to 255, or are 0 everywhere if it is constant.
    """
    values = torch.from_numpy(images.reshape(len(images), -1))
    mean = values.sum(0, dtype=torch.int64).double() / len(values)
    # In blocks, since the images as float64 would need eight times their memory.
    blocks = [values[start : start + 4096] for start in range(0, len(values), 4096)]
    covariance = torch.zeros((len(mean), len(mean)), dtype=torch.float64)
    for block in blocks:
        centered = block - mean
        covariance += centered.T @ centered
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -components:]
    maps = []
    for block in blocks:
        size = ((block - mean) @ basis @ basis.T).abs()
        low, high = size.amin(1, keepdim=True), size.amax(1, keepdim=True)
        scaled = (size - low) / (high - low).clamp_min(_ROUNDING) * 255
        maps.append(torch.where(high - low > _ROUNDING, scaled, 0).round_().byte())
    pixels: NDArray[np.uint8] = torch.cat(maps).numpy().reshape(images.shape)
    return pixels


def build_map_targets(
    config: RunConfig,
    manifest: Manifest,
    images: ImageSource,
    rows: NDArray[np.int64],
    annotated: NDArray[np.bool_],
) -> MapTargets | None:
    """Map targets of the training rows of a run, or None for a run that uses no maps."""
    if not config.uses_maps:
        return None
    table, source = manifest.table.iloc[rows], config.maps
    labels, marks = table["label"].to_numpy(), guided_by_marks(config)
    has_human = (table["saliency"] != "").to_numpy() & annotated[rows]
    as_masks = config.guided_by_masks
    placed = place_maps(source, config.training.fit, table, images, rows, scaled=as_masks)
    index = np.full(len(rows), -1, np.int64) if placed is None else placed.index
    keeps_human = placed is None or source.human == "keep"
    if keeps_human:
        index = np.where(has_human, -1, index)
    usable = (index >= 0) | (has_human & keeps_human)
    masks = None
    marked = has_human
    if config.labels == "class" and (as_masks or marks):
        marked = np.isin(labels, marked_classes(manifest, annotated))
    if as_masks:
        examined = manifest.annotated_mask[rows] & annotated[rows]
        whole = (
            ~marked
            & ~has_human
            & (source.kind not in ("human", "store") or (examined & keeps_human))
        )
        seen = placed is None or marks
        masks = Masks(whole, ~marked & ~whole & seen, config.training.cell_full)
        usable |= whole
    elif marks:
        # Scaled to [0, 1], a map without marks would be one of noise.
        usable &= marked | (has_human & keeps_human)
    if config.labels == "marks" and not has_human.any():
        raise _no_map(source, len(rows), 0)
    array = None if placed is None else placed.array()
    human_rows: NDArray[np.int64] | None = None
    if source.shuffle_seed is not None:
        groups = table["group"].to_numpy(object) if source.shuffle_groups else None
        usable &= (table["map_weight"] > 0).to_numpy()  # such a map may show anything
        whose = _shuffled(usable, labels, source.shuffle_seed, groups)
        index, human_rows = index[whose], rows[whose]
        if placed is not None:
            array, index = placed.received(index)  # the region to the image
    excluded = np.zeros(len(rows), bool) if placed is None else placed.excluded
    if config.guide_classes is not None:
        guided = np.isin(labels, config.guide_classes)
        usable, excluded = usable & guided, excluded & guided
    unmatched = 0
    if placed is not None and source.kind == "store":
        expected = np.isin(labels, config.guide_classes or np.unique(labels))
        if source.marks:
            expected &= marked
        unmatched = int((expected & ~usable & (placed.index < 0) & ~placed.excluded).sum())
    if not usable.any():
        raise _no_map(source, len(rows), int(excluded.sum()))
    weight = np.where(usable, table["map_weight"].to_numpy(np.float32), 0).astype(np.float32)
    return MapTargets(weight, array, index, human_rows=human_rows, masks=masks, unmatched=unmatched)


def marked_classes(manifest: Manifest, annotated: NDArray[np.bool_]) -> list[str]:
    """Classes with a human map in any of the `annotated` rows, which are training images."""
    with_map = manifest.map_mask & annotated
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


def _shuffled(
    usable: NDArray[np.bool_],
    labels: NDArray[np.object_],
    seed: int,
    groups: NDArray[np.object_] | None = None,
) -> NDArray[np.int64]:
    """(n,) position of the map of each row after a permutation of the maps within each class."""
    generator = np.random.default_rng([seed, 3])
    whose = np.arange(len(usable))
    for label in np.unique(labels.astype(str)):
        members = np.flatnonzero((labels == label) & usable)
        alone = np.arange(len(members)) + len(members)  # no image keeps its own map
        codes = alone
        if groups is not None:
            named = pd.factorize(groups[members])[0]
            codes = np.where(groups[members] == "", alone, named)
        whose[members] = members[_apart(generator.permutation(len(members)), codes)]
    return whose


def _apart(order: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) permutation in which as few elements as possible keep their group."""
    order = order.copy()
    full: set[int] = set()  # groups whose elements cannot leave them
    for row in np.flatnonzero(groups[order] == groups):
        own = groups[row]
        if groups[order[row]] != own or own in full:
            continue
        for other in ((row + step) % len(order) for step in range(1, len(order))):
            if own not in (groups[other], groups[order[other]]):
                order[[row, other]] = order[[other, row]]
                break
        else:
            full.add(int(own))
    return order
