"""Audit, choice and repair by marks: their numbers beside the test's.

    python benchmarks/ask_marks.py frozen MANIFEST --weights FILE --to CSV
    python benchmarks/ask_marks.py study FOLDER --to CSV

`frozen`: a network with ImageNet weights whose last layer is a logistic regression on the training
images (plain), on 60 marked ones alone, on swapped ones (repair), and on a clean validation set
(dfr). Draws are of marks. `study`: all networks of a study folder are audited, and its networks
without maps repaired, by marks, by the maps of its mapper, and by shuffled maps. A row of the table
is a network: its AUC on each evaluation set, on swapped validation images of 20, 60 and all marks,
and the AUC for the class of the outside on them. Rows that are there are not computed again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from preceptor.auditing.audit import audit
from preceptor.auditing.marked import read_marked
from preceptor.auditing.models import open_model
from preceptor.data.manifest import Manifest
from preceptor.data.swaps import MarkedImages
from preceptor.data.workspace import Workspace
from preceptor.errors import PreceptorError
from preceptor.inference.predict import score_sets
from preceptor.metrics.scores import set_auc
from preceptor.models.build import build_model, load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.study_folder import reopen
from preceptor.training.last_layer import clean_sets, repaired, with_last_layer_trained

MARKS = (20, 60, 0)  # 0 = all
Networks = Iterator[tuple[str, Callable[[], GuidedModel]]]


def numbers(model: GuidedModel, workspace: Workspace, draw: int) -> dict[str, Any]:
    """AUC of a network on all evaluation sets, worst group, and its audits."""
    manifest, positive = workspace.manifest, model.spec.positive
    classes, found = [*model.spec.classes], dict[str, Any]()
    for name, own in score_sets(model, workspace).groupby("split"):
        found[str(name)] = set_auc(own, classes, positive)
        right = own[[f"score_{one}" for one in classes]].to_numpy().argmax(1)
        right = right == own["label"].map(classes.index).to_numpy()
        groups = pd.Series(right).groupby(own["source"].to_numpy()).mean()
        found[f"{name} worst source"] = float(groups.min())
    opened = open_model(model, classes=manifest.classes)
    for count in MARKS:
        try:
            most = {"most": count} if count else {"most": 500}
            told = audit(opened, manifest, seed=draw, **most).audit
        except PreceptorError as error:
            print(f"audit of {count or 'all'} marks: {error}", flush=True)
            continue
        of = str(count or "all")
        found |= {f"swapped {of}": told.swapped.value, f"outside {of}": told.outside.value}
        found |= {f"outside low {of}": told.outside.low, f"verdict {of}": told.verdict}
        found[f"least of outsides {of}"] = min(one.value for one in told.by_outside.values())
    return found


def shuffled(images: MarkedImages, draw: int) -> MarkedImages:
    """The same images with the marks of other images of their class."""
    masks, rng = images.masks.copy(), np.random.default_rng([draw, 9])
    for label in np.unique(images.labels):
        own = np.flatnonzero((images.labels == label) & images.masks.any((1, 2)))
        masks[own] = images.masks[np.roll(rng.permutation(own), 1)][
            np.argsort(rng.permutation(own))
        ]
    return replace(images, masks=masks)


def repairs(model: GuidedModel, manifest: Manifest, draw: int, maps: Path | None) -> Networks:
    """The network with its last layer trained again on swapped images."""
    form, classes = model.spec.image_format, model.spec.classes
    of_val = [one for one in manifest.eval_splits("val") if one not in clean_sets(manifest)]

    def read(splits: list[str], most: int | None, store: Path | None = None) -> MarkedImages:
        how: dict[str, Any] = {"splits": splits, "most": most, "seed": draw, "maps": store}
        return read_marked(manifest, form, classes, **how).images

    def repair(images: MarkedImages, most: int | None) -> GuidedModel:
        return repaired(model, images, read(of_val, most or 500), seed=draw).model

    for count in MARKS:
        name = f"{count or 'all'} marks"
        own = read(["train"], count or 2000)
        yield f"repair by {name}", lambda own=own, count=count: repair(own, count)
        mixed = shuffled(own, draw)
        yield f"repair by {name}, shuffled", lambda own=mixed, count=count: repair(own, count)
    if maps is not None:
        own = read(["train"], 2000, maps)
        yield "repair by the Teacher", lambda: repair(own, 60)
        mixed = shuffled(own, draw)
        yield "repair by the Teacher, shuffled", lambda: repair(mixed, 60)


def frozen(given: argparse.Namespace, manifest: Manifest, draw: int) -> Networks:
    """Networks whose last layer alone is trained."""
    torch.manual_seed(0)
    size = {"input_size": given.size, "positive": given.positive, "weights": str(given.weights)}
    base = build_model(given.backbone, manifest.classes, **size)
    workspace, table = Workspace(manifest), manifest.table
    train = (table["split"] == "train").to_numpy()

    def on(mask: Any) -> GuidedModel:
        rows = workspace.rows(np.flatnonzero(mask), base.spec.image_format, cache="none")
        return with_last_layer_trained(base, rows)

    plain = on(train)
    yield "no maps", lambda: plain
    alone = pd.Series(np.random.default_rng(draw).permutation(np.flatnonzero(train)))
    turn = alone.groupby(table["label"].to_numpy()[alone]).cumcount()
    chosen = alone.iloc[turn.argsort(kind="stable")[:60]].to_numpy()
    yield "60 images alone", lambda: on(np.isin(np.arange(len(table)), chosen))
    for name in clean_sets(manifest):
        yield f"dfr on {name}", lambda name=name: on((table["split"] == name).to_numpy())
    yield from repairs(plain, manifest, draw, None)


def of_study(folder: Path) -> Iterator[tuple[int, Manifest, Networks]]:
    """Networks of a study, by seed."""
    plan = reopen(folder).first
    protocol = plan.protocol
    for seed in plan.seeds:
        members = [one for one in plan.members if one.seed == seed and one.arm.annotated is None]
        workspace = protocol.workspaces.of(seed)

        def networks(members: list[Any] = members, seed: int = seed) -> Networks:
            for one in members:
                model = protocol.run_folder(one.run) / "model"
                if one.arm.role not in ("mapper", "mapper_all") and model.is_dir():
                    yield (
                        f"{one.arm.label}, {one.arm.setting}",
                        lambda model=model: load_model(model),
                    )
            plain = plan.setting_of("baseline2", plan.study.students[0])
            teacher = plan.winner()
            if plain is None or teacher is None:
                return
            run = protocol.baseline2(plan.study.students[0], plain, seed)
            source, _ = protocol.maps_of(teacher, seed)
            base = load_model(protocol.run_folder(run.id) / "model")
            yield from repairs(base, protocol.workspaces.of(seed).manifest, seed, source.path)

        yield seed, workspace.manifest, networks()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=("frozen", "study"))
    parser.add_argument("data", type=Path, help="manifest, or study folder")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--positive")
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    rows = pd.read_csv(given.to).to_dict("records") if given.to.is_file() else []
    done = {(row["draw"], row["network"]) for row in rows}
    if given.kind == "study":
        parts: Any = of_study(given.data)
    else:
        manifest = Manifest.read(given.data, verify=False)
        parts = ((d, manifest, frozen(given, manifest, d)) for d in range(given.draws))
    for draw, manifest, networks in parts:
        workspace = Workspace(manifest)
        for name, network in networks:
            if (draw, name) not in done:
                started = time.monotonic()
                model = network()
                made = time.monotonic() - started
                row = {"draw": draw, "network": name, "seconds": made}
                rows.append(row | numbers(model, workspace, draw))
                pd.DataFrame(rows).to_csv(given.to, index=False)
                print(f"{draw} {name}: {made:.0f} s", flush=True)


if __name__ == "__main__":
    main()
