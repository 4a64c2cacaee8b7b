"""Maps of the models that image panels show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.config.maps import METHOD_NAMES, Method
from preceptor.config.settings import Fit
from preceptor.data.workspace import Workspace
from preceptor.inference.annotate import rise_rows
from preceptor.inference.plugin_method import plugin_method_maps
from preceptor.inference.predict import predict
from preceptor.maps.store import is_store, largest_error, read_store
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model
from preceptor.runtime.results import is_finished
from preceptor.saliency.normalise import normalise
from preceptor.study.config import Setting
from preceptor.study.plan import Plan
from preceptor.study.steps import Role

# Maps are made again for every report: on a CPU, 8,000 masks of 40 images may take hours.
MOST_MASKS = 1000

Shown = Literal["label", "decision"]
"""Maps of classifiers: of the label's class, or decision maps (of the label's log-odds)."""


@dataclass(frozen=True)
class ModelMaps:
    """Maps of a model.

    Args:
        maps: Min-max normalized (h, w) maps by manifest row.
        fit: Fit of the images to the model's input.
        unsettled: Rows whose map has an error above the tolerance and is not shown.
    """

    maps: dict[int, NDArray[np.float32]]
    fit: Fit
    unsettled: frozenset[int] = frozenset()


def teacher_maps(
    plan: Plan, seed: int, rows: NDArray[np.int64], shown: Shown
) -> tuple[str, ModelMaps | None]:
    """Name of the selected Teacher and its maps, from its model or a given store.

    Args:
        plan: Plan of the domain.
        seed: Seed of the Teacher.
        rows: (n,) manifest rows.
        shown: Maps of a Teacher that is a classifier, with the method cam.

    Returns:
        The name, and the maps; None if there are none yet.
    """
    winner = plan.winner()
    if winner is None:
        return "", None
    workspace = plan.protocol.workspaces.of(seed)
    if winner.kind == "given":
        folder = plan.protocol.study.maps[winner.name]
        if not is_store(folder):
            return str(winner), None
        store = read_store(folder, columns=("map", "error"))
        place = {name: position for position, name in enumerate(store.paths)}
        names = workspace.manifest.table["name"]
        there = {int(row): place[names[row]] for row in rows if names[row] in place}
        settled = store.settled
        found = {
            row: np.asarray(store.maps[position], np.float32)
            for row, position in there.items()
            if settled[position]
        }
        return str(winner), ModelMaps(found, store.info.fit, frozenset(there.keys() - found.keys()))
    role: Role = "mapper" if winner.kind == "mapper" else "teacher"
    run = run_of(plan, role, winner.name, Setting(winner.alpha), seed)
    if run is None:
        return str(winner), None
    model = load_model(plan.protocol.run_folder(run) / "model")
    return str(winner), model_maps(plan, workspace, model, rows, shown, winner.method)


def run_of(plan: Plan, role: Role, backbone: str, setting: Setting, seed: int) -> str | None:
    """Finished run of a role and seed."""
    for member in plan.members_of(role, backbone):
        finished = is_finished(plan.protocol.run_folder(member.run))
        if (member.arm.setting, member.seed) == (setting, seed) and finished:
            return member.run
    return None


def model_maps(
    plan: Plan,
    workspace: Workspace,
    model: GuidedModel,
    rows: NDArray[np.int64],
    shown: Shown,
    method: Method = "cam",
) -> ModelMaps:
    """Maps of a model; those of rise and of plugins are of the label's class.

    Args:
        plan, workspace: Plan and manifest.
        model: Model.
        rows: (n,) manifest rows.
        shown: Maps with the method cam.
        method: Saliency method; rise has at most `MOST_MASKS` masks per image.
    """
    study = plan.protocol.study
    data = workspace.rows(rows, model.spec.image_format, cache="memmap")
    settled = np.ones(len(rows), bool)
    if method == "rise":
        most = min(MOST_MASKS, study.rise.max_masks)
        made = rise_rows(
            model, data, data.labels, study.rise.model_copy(update={"max_masks": most})
        )
        cams = made.maps
        settled = made.error.numpy() <= largest_error(study.rise.tolerance)
    elif method not in METHOD_NAMES.own:
        cams = plugin_method_maps(method, model, data, data.labels)
    else:
        found = predict(model, data, cams="cells" if method == "cells" else shown).cams
        assert found is not None
        cams = found
    pairs = zip(rows.tolist(), normalise(cams).numpy(), settled, strict=True)
    maps = {row: cam for row, cam, good in pairs if good}
    return ModelMaps(maps, model.spec.fit, frozenset(rows[~settled].tolist()))
