"""Marked images of a manifest in a model's format, with the marks of people or of a Teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from preceptor.config.run import MapSource
from preceptor.config.settings import ImageFormat
from preceptor.data import swaps
from preceptor.data.checks import Findings, check_files
from preceptor.data.geometry import fit_boxes
from preceptor.data.manifest import Manifest
from preceptor.data.resampling import resample
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.maps.sources import marked_classes, place_maps, with_maps
from preceptor.metrics.paired_tests import unit_codes

_SWAPS = 400  # least number of swapped images, nearly
_COPIES = 4  # of an image, in one round of outsides
_BLOCK = 64  # maps resampled at once
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class Marked:
    """Marked images of a manifest."""

    images: swaps.MarkedImages
    table: pd.DataFrame  # (n rows) of the manifest
    splits: tuple[str, ...]

    @property
    def units(self) -> NDArray[np.int64]:
        """(n,) group of each image, or the image itself."""
        return unit_codes(self.table["group"], len(self.table))


def read_marked(
    manifest: Manifest,
    form: ImageFormat,
    classes: Sequence[str],
    *,
    splits: Sequence[str] | None = None,
    maps: Path | None = None,
    most: int | None = None,
    seed: int = 0,
) -> Marked:
    """Images that people have examined, in a model's format, with their marks.

    Args:
        manifest: Manifest of the images.
        form: Format of the model's input.
        classes: Class names in the order of the labels.
        splits: Names of splits; None = all validation sets with marks, or else training images.
        maps: Map store or folder of maps instead of human maps; a map is cut at half of its
            maximum. Classes that have no human map have no marks.
        most: Largest number of images, drawn with `seed` and of all classes alike; None = all.

    Raises:
        InputError: Nothing can be swapped, see `check_marks`, or a file is invalid.
    """
    table, source = manifest.table, str(manifest.source or "the manifest")
    known = with_maps(maps, table["name"].to_numpy(object)) if maps else manifest.map_mask
    examined = known if maps else manifest.annotated_mask
    if splits is None:
        with_marks = set(table["split"][known])
        held = [one for one in manifest.eval_splits("val") if one in with_marks]
        splits = held or sorted(with_marks & {"train"}) or sorted(set(table["split"]))
    if unknown := sorted(set(splits) - set(table["split"])):
        raise InputError(f"{source}: there is no split {unknown[0]!r}; check --split")
    chosen = np.flatnonzero(table["split"].isin(splits).to_numpy() & examined)
    if most is not None and len(chosen) > most:
        drawn = pd.Series(np.random.default_rng(seed).permutation(chosen))
        turn = drawn.groupby(table["label"].to_numpy()[drawn]).cumcount()
        chosen = np.sort(drawn.iloc[turn.argsort(kind="stable")[:most]].to_numpy())
    own = replace(manifest, table=table.iloc[chosen].reset_index(drop=True), contents=None)
    findings = Findings(source)
    findings.rows = (chosen + 2).tolist()
    check_files(own.table, own.root, findings)
    findings.raise_if_any()
    rows, workspace = np.arange(len(chosen)), Workspace(own)
    images, labels = workspace.images(form, "none"), workspace.rows(rows, form, classes).labels
    boxes = fit_boxes(images.sizes, form.fit, form.side).copy()
    without = np.zeros(len(rows), bool)
    regions = np.tile(_UNIT.numpy(), (len(rows), 1))
    values: NDArray[np.generic] | None = None
    if maps is not None:
        placed = place_maps(
            MapSource(kind="store", path=maps), form.fit, own.table, images, rows, scaled=True
        )
        assert placed is not None
        # The last one is for images without a map.
        values = np.append(placed.maps, np.zeros_like(placed.maps[:1]), 0)[placed.index]
        regions = placed.regions
        marked = marked_classes(manifest, manifest.annotated_mask)
        without = ~own.table["label"].isin(marked).to_numpy() & bool(marked)
    masks = np.zeros((len(rows), form.size, form.size), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        given = images.human_maps(part) if values is None else values[part]
        covers, to = torch.from_numpy(regions[part].copy()), torch.from_numpy(boxes[part])
        grid = torch.from_numpy(given.astype(np.float32))
        masks[part] = resample(grid, covers, to, (form.size, form.size))
    masks /= np.maximum(masks.max((1, 2), keepdims=True), 1e-9)
    masks[without] = 0
    pixels = np.zeros((0, form.size, form.size, form.channels), np.uint8)
    found = swaps.MarkedImages(images.canvases(rows) if len(rows) else pixels, masks, labels)
    swaps.check_marks(found, f"{source} ({', '.join(splits)})")
    return Marked(found, own.table, tuple(splits))


def swap_marked(marked: Marked, classes: int, seed: int) -> swaps.SwappedImages:
    """Swapped images of marked ones, about 400 at least."""
    each = min(classes, _COPIES)
    # More copies of few images narrow the intervals, which include the choice of outsides.
    per_image = each * max(1, _SWAPS // (each * len(marked.images)))
    return swaps.swap(marked.images, classes=classes, per_image=per_image, seed=seed)
