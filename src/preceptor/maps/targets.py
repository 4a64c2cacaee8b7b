"""Map targets of a run: human maps, maps of a Teacher or a folder, or maps of a control."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.data.cache import ImageSource
from preceptor.data.loader import MapTargets, Masks
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.maps.sources import place_maps


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
    labels = table["label"].to_numpy()
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
    if config.labels == "class" and (as_masks or source.marks):
        marked = np.isin(labels, marked_classes(manifest, annotated))
    if as_masks:
        examined = manifest.annotated_mask[rows] & annotated[rows]
        whole = (
            ~marked
            & ~has_human
            & (source.kind not in ("human", "store") or (examined & keeps_human))
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
    human_rows: NDArray[np.int64] | None = None
    if source.shuffle_seed is not None:
        groups = table["group"].to_numpy(object) if source.shuffle_groups else None
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
    """Classes with a human map in any training image whose annotation is used."""
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
        order = generator.permutation(len(members))
        if groups is not None:
            codes = pd.factorize(groups[members])[0]
            alone = np.arange(len(members)) + len(members)
            order = _apart(order, np.where(groups[members] == "", alone, codes))
        whose[members] = members[order]
    return whose


def _apart(order: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) permutation of which as few elements as possible keep their group."""
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
