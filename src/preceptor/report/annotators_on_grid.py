"""Agreement among annotators on a Teacher's grid, beside the agreement of the Teacher's maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from preceptor.annotations.agreement import (
    AnnotatorMaps,
    mean_of,
    pearson,
    people_of,
    read_annotators,
)
from preceptor.annotations.write import ANNOTATORS
from preceptor.config.settings import Fit
from preceptor.data.geometry import fit_box
from preceptor.data.images import image_size
from preceptor.data.manifest import Manifest
from preceptor.data.remote import is_plain
from preceptor.data.resampling import resample
from preceptor.errors import PreceptorError
from preceptor.maps.store import is_store, read_store
from preceptor.models.model_folder import load_model
from preceptor.study.plan import Plan
from preceptor.study.steps import Role
from preceptor.utils.results import is_finished
from preceptor.utils.text import number

# Images that are read: their mean correlation is known to 0.01 or so.
_MOST = 400
_UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class Grid:
    """Grid of maps, and the part of an image that it covers."""

    height: int
    width: int
    fit: Fit
    side: int


@dataclass(frozen=True)
class GridAgreement:
    """Agreement of annotators on a grid, as means over images.

    Args:
        with_others: Mean correlation of each annotator's map with the mean of the others'.
        attainable: Correlation of a map of what all have in common with the mean of all maps, see
            `attainable_correlation`.
        images: Number of images where both are defined.
    """

    with_others: float
    attainable: float
    images: int


def annotator_sentence(plan: Plan) -> str:
    """Agreement of the annotators of validation images in words; "" if there are not several.

    Args:
        plan: Plan of a domain, whose Teacher is selected.
    """
    manifest = plan.protocol.workspaces.first.manifest
    folder = folder_of(manifest)
    if folder is None:
        return ""
    try:
        grid = _grid(plan)
        if grid is None:
            return ""
        found = agreement_on_grid(read_annotators(folder), manifest, grid)
    except PreceptorError:  # the report is of the study: other files may be gone
        return ""
    if not found.images:
        return ""
    return (
        f"Agreement among people: on {found.images:,} validation images with several annotators, "
        f"the map of a person has a mean correlation of {number(found.with_others, 2)} with the "
        f"mean of the others' maps, on the grid of the selected Teacher ({grid.height} × "
        f"{grid.width}). With the mean of all maps, a map of what the people have in common would "
        f"have a correlation of {number(found.attainable, 2)} (Spearman-Brown), if their errors "
        "are independent."
    )


def folder_of(manifest: Manifest) -> Path | None:
    """Folder of the annotators' maps: that of the manifest, or of its human maps."""
    places = [manifest.source.parent] if manifest.source is not None else []
    first = next((str(path) for path in manifest.table["saliency"] if path and is_plain(path)), "")
    places += list(Path(first).parents)[1:4]  # maps may lie in folders of their own
    for place in places:
        if (place / ANNOTATORS).is_dir() and len(people_of(place)) > 1:
            return place
    return None


def attainable_correlation(pairwise: float, count: int) -> float:
    """Correlation of the common part of several maps with their mean.

        √(n r ÷ (1 + (n − 1) r)),

    the square root of the reliability of the mean of n maps by the formula of Spearman and Brown,
    where r is their mean correlation in pairs. It is the largest expected correlation of a map with
    this mean if the errors of the n maps are independent of each other and of the map.

    Args:
        pairwise: Mean correlation r of two of the maps.
        count: Number n of maps.

    Returns:
        The correlation; 0 if r is not positive.

    Example:
        >>> [round(attainable_correlation(0.5, count), 2) for count in (1, 2, 3, 5)]
        [0.71, 0.82, 0.87, 0.91]
    """
    common = max(pairwise, 0.0)
    return math.sqrt(count * common / (1 + (count - 1) * common))


def agreement_on_grid(maps: AnnotatorMaps, manifest: Manifest, grid: Grid) -> GridAgreement:
    """Agreement of the annotators of each image on a grid.

    Args:
        maps: Maps of the annotators.
        manifest: Manifest; only images of its validation sets are compared.
        grid: Grid.
    """
    sets = manifest.table["split"].isin(manifest.eval_splits("val"))
    wanted = set(manifest.table.loc[sets, "path"])
    shared = [
        file
        for file, people in maps.files.items()
        if len(people) > 1 and maps.table.loc[file, "path"] in wanted
    ]
    others, attainable = [], []
    for file in shared[:_MOST]:
        width, height = image_size(str(maps.table.loc[file, "path"]))
        box = torch.tensor([fit_box(width, height, grid.fit, grid.side).as_tuple()])
        own = np.stack(list(maps.maps(file).values())).astype(np.float32)
        count = len(own)
        cells = resample(
            torch.from_numpy(own),
            _UNIT.expand(count, 4),
            box.expand(count, 4),
            (grid.height, grid.width),
        ).numpy()
        total = cells.sum(axis=0)
        value = mean_of([pearson(one, (total - one) / (count - 1)) for one in cells])
        pairs = mean_of([pearson(one, other) for one, other in combinations(cells, 2)])
        if np.isfinite(value) and np.isfinite(pairs):
            others.append(value)
            attainable.append(attainable_correlation(pairs, count))
    return GridAgreement(mean_of(others), mean_of(attainable), len(others))


def _grid(plan: Plan) -> Grid | None:
    """Grid of the selected Teacher; None if there is no model or store of it yet."""
    winner = plan.winner()
    if winner is None:
        return None
    if winner.kind == "given":
        folder = plan.protocol.study.maps[winner.name]
        if not is_store(folder):
            return None
        store = read_store(folder, columns=())
        return Grid(store.maps.shape[1], store.maps.shape[2], store.info.fit, store.info.side)
    role: Role = "mapper" if winner.kind == "mapper" else "teacher"
    for member in plan.members_of(role, winner.name):
        folder = plan.protocol.run_folder(member.run)
        if member.arm.alpha == winner.alpha and is_finished(folder):
            model = load_model(folder / "model")
            height, width = model.grid()
            return Grid(height, width, model.spec.fit, model.spec.image_format.side)
    return None
