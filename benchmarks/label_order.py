"""What an order of marking is worth: the AUC of a Student by the number of images that were marked.

    FORGED=$PWD/forged python benchmarks/label_order.py benchmarks/forged_small.yaml --to FOLDER
        [--orders random uncertainty gain] [--counts 40 80 120 160] [--jobs 2]

For every seed of the study and every order, simulated people mark images through the real server,
while a Teacher is trained at each count and orders the open images. The first images of each count
then make a manifest: a mapper learns their marks, marks all training images, and a Student with the
study's settings is trained on these maps. Teachers of the page, mapper and Student are of the
study's first Student backbone. Until the first Teacher all orders are the same. A finished part is
not repeated. `map_correlation` is that of the mapper's maps with human maps, over the training
images that have one and were not marked; `map_correlation_common` over those that no order of the
table has marked, which are the same images for all rows of a seed. `groups` is the number of groups
(patients) of the images with a mark, `mark_area` the median share of the pixels of their human maps
that are above half.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.yaml_file import load_config
from preceptor.data.loader import MapTargets
from preceptor.data.workspace import Workspace
from preceptor.evaluation.paired_tests import paired_difference
from preceptor.inference.annotate import annotate
from preceptor.inference.score import evaluate
from preceptor.label.database import connect
from preceptor.label.export import export_marks
from preceptor.label.settings import Order
from preceptor.label.simulate import Simulation, simulate
from preceptor.label.teacher_config import TeacherConfig
from preceptor.maps.store import read_store
from preceptor.models.model_folder import load_model
from preceptor.runtime.result_folder import write_atomically
from preceptor.saliency.agreement import correlation
from preceptor.study.config import StudyConfig
from preceptor.training.run import train


def teacher_config(study: StudyConfig, every: int, seed: int) -> TeacherConfig:
    """Settings of the Teachers: the study's first Student backbone as a mapper."""
    backbone = study.students[0]
    return TeacherConfig(
        every=every,
        backbone=backbone,
        weights=study.weights,
        backbone_args=study.backbone_args.get(backbone, {}),
        training=study.training,
        seed=seed,
    )


def student_config(study: StudyConfig, manifest: Path, alpha: float, seed: int) -> RunConfig:
    """Run config of a Student, without its maps."""
    backbone = study.students[0]
    return RunConfig(
        manifest=manifest,
        backbone=backbone,
        weights=study.weights,
        backbone_args=study.backbone_args.get(backbone, {}),
        positive=study.positive,
        alpha=alpha,
        training=study.training,
        seed=seed,
    )


def manifest_of(study: StudyConfig, seed: int) -> Path:
    """Manifest of a seed, with all human maps."""
    return Path(str(study.manifest).replace("{seed}", str(seed)))


def marked(
    study: StudyConfig, work: Path, order: Order, counts: Sequence[int], seed: int
) -> tuple[Path, pd.DataFrame]:
    """Manifest with all marks of a simulation, and its answers in their order."""
    folder = work / order
    exported = folder / "exported"
    if not (folder / "simulation.csv").is_file():
        config = None if order == "random" else teacher_config(study, counts[0], seed)
        simulate(
            manifest_of(study, seed),
            folder,
            Simulation(images=counts[-1], order=order, teacher=config, seed=seed),
            tell=lambda line: print(f"seed {seed}, {order}: {line}", flush=True),
        )
    if not exported.is_dir():
        database = folder / "marks.sqlite"
        with closing(connect(database, readonly=True)) as connection:
            export_marks(connection, database, exported)
    return exported / "manifest.csv", pd.read_csv(folder / "simulation.csv")


def first_images(manifest: Path, answers: pd.DataFrame, count: int) -> Path:
    """Manifest of which only the first answered images are annotated."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    names = table["path"].map(lambda path: Path(path).name)
    kept = names.isin(answers["image"][:count]) & (table["split"] == "train")
    assert kept.sum() == count, "two images of one name"
    table.loc[~kept, ["saliency", "annotated"]] = ["", "0"]
    target = manifest.with_name(f"first-{count}.csv")
    table.to_csv(target, index=False)
    return target


def map_quality(
    study: StudyConfig, work: Path, store: Path, marked_names: Collection[str], seed: int
) -> float:
    """Mean correlation of a mapper's maps with the human maps of training images, but for some."""
    source = Workspace.open(manifest_of(study, seed), work / "cache")
    table = source.manifest.table
    names = table["path"].map(lambda path: Path(path).name)
    asked = source.manifest.train_mask & (table["saliency"] != "") & ~names.isin(marked_names)
    positions = np.flatnonzero(asked)
    found = read_store(store)
    order = pd.Index([Path(path).name for path in found.paths]).get_indexer(
        pd.Index(names.iloc[positions])
    )
    assert (order >= 0).all()
    maps = torch.from_numpy(found.maps[order].astype(np.float32))
    form = study.training.image_format(study.training.input_size or 0)
    targets = MapTargets.human(np.ones(len(positions), np.float32))
    rows = source.rows(positions, form, targets=targets, grid=(maps.shape[1], maps.shape[2]))
    values, valid = correlation(maps, rows.maps_on_grid(np.arange(len(positions))))
    return float(values[valid].mean())


def groups_and_area(manifest: Path, images: Collection[str]) -> dict[str, float]:
    """Groups and median area of the human maps of images that have one."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    names = table["path"].map(lambda path: Path(path).name)
    table = table[names.isin(images) & (table["saliency"] != "")]
    areas = []
    for path in table["saliency"]:
        with Image.open(manifest.parent / path) as image:
            areas.append(float((np.asarray(image.convert("L")) > 127).mean()))
    groups = table["group"].nunique() if "group" in table else len(table)
    return {"groups": groups, "mark_area": float(np.median(areas))}


def mapper_maps(study: StudyConfig, work: Path, manifest: Path, seed: int) -> Path:
    """Map store of a mapper that was taught the marks of a manifest."""
    workspace = Workspace.open(manifest, work / "cache")
    mapper = teacher_config(study, 1, seed).run(manifest)
    mapper = mapper.model_copy(update={"positive": study.positive})
    mapper_run = train(mapper, work / "runs", workspace=workspace)
    store = work / "maps" / mapper_run.id
    if not store.is_dir():
        model = load_model(mapper_run.folder / "model")
        annotate(model, workspace.manifest, "cells", out=store, workspace=workspace)
    return store


def trained(
    study: StudyConfig, work: Path, manifest: Path, alpha: float, seed: int
) -> dict[str, float]:
    """AUC of a Student on each evaluation set, and map correlation of its mapper, after marking."""
    store = mapper_maps(study, work, manifest, seed)
    workspace = Workspace.open(manifest, work / "cache")
    config = student_config(study, manifest, alpha, seed).model_copy(
        update={"maps": MapSource(kind="store", path=store)}
    )
    run = train(config, work / "runs", workspace=workspace)
    table = evaluate(load_model(run.folder / "model"), workspace.manifest, workspace=workspace)
    whole = table[table["source"] == ""].set_index("set")["auc"]
    auc = {str(name): float(value) for name, value in whole.items()}
    examined = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    taught = {Path(path).name for path in examined.loc[examined["annotated"] == "1", "path"]}
    return auc | {"map_correlation": map_quality(study, work, store, taught, seed)}


def curve(
    study: StudyConfig,
    to: Path,
    orders: Sequence[Order],
    counts: Sequence[int],
    alpha: float,
    seed: int,
) -> list[dict[str, object]]:
    """Rows of the table for one seed."""
    rows: list[dict[str, object]] = []
    work, parts, anywhere = to / str(seed), list[Path](), set[str]()
    for order in orders:
        manifest, answers = marked(study, work, order, counts, seed)
        anywhere |= set(answers["image"])
        for count in counts:
            first = answers[:count]
            named = "random" if count <= counts[0] else order
            file = work / f"{named}-{count}.json"
            parts.append(first_images(manifest, answers, count))
            if not file.is_file():
                values = trained(study, work, parts[-1], alpha, seed)
                write_atomically(file, json.dumps(values))
                print(f"seed {seed}, {order}, {count} images: {values}", flush=True)
            rows.append(
                {
                    "seed": seed,
                    "order": order,
                    "images": count,
                    "with_mark": int((first["strokes"] > 0).sum()),
                    "minutes": first["seconds"].sum() / 60,
                    **groups_and_area(manifest_of(study, seed), set(first["image"])),
                    **json.loads(file.read_text(encoding="utf-8")),
                }
            )
    for row, part in zip(rows, parts, strict=True):
        store = mapper_maps(study, work, part, seed)
        row["map_correlation_common"] = map_quality(study, work, store, anywhere, seed)
    return rows


def images_for(counts: np.ndarray, aucs: np.ndarray, asked: float) -> float:
    """Images at which a curve first reaches an AUC, between counts on a line; NaN = nowhere."""
    if aucs[0] >= asked:
        return float(counts[0])
    for at in range(1, len(counts)):
        if aucs[at] >= asked:
            share = (asked - aucs[at - 1]) / (aucs[at] - aucs[at - 1])
            return float(counts[at - 1] + share * (counts[at] - counts[at - 1]))
    return float("nan")


def print_curves(table: pd.DataFrame, primary: str) -> None:
    """Means by order and images, differences to random order, images for its last AUC."""
    for measure in (primary, "map_correlation", "map_correlation_common"):
        means = table.pivot_table(index="order", columns="images", values=measure)
        print(f"{measure}\n{means.round(3).to_string()}")
        counts = means.columns.to_numpy(float)
        last = float(means.loc["random"].to_numpy()[-1])
        seeds = table.set_index(["order", "images", "seed"])[measure].sort_index()
        for order in means.index.drop("random"):
            needed = images_for(counts, means.loc[order].to_numpy(), last)
            print(f"{order}: {needed:.0f} images for {last:.3f}, {needed / counts[-1]:.2f}")
            for count in means.columns[1:]:
                here, there = seeds[order, count], seeds["random", count]
                print(f"  {count} images: {paired_difference(here, there)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--orders", nargs="+", default=["random", "uncertainty", "gain"])
    parser.add_argument("--counts", type=int, nargs="+", default=[40, 80, 120, 160])
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    study = load_config(asked.study, StudyConfig)
    seeds = asked.seeds or list(study.seed_list)
    to = asked.to.resolve()
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        count = len(seeds)
        for part in pool.map(
            curve,
            [study] * count,
            [to] * count,
            [asked.orders] * count,
            [asked.counts] * count,
            [asked.alpha] * count,
            seeds,
        ):
            rows += part
            table = pd.DataFrame(rows)
            table.to_csv(to / "order.csv", index=False, float_format="%.6g")
            print_curves(table, study.primary or "test")


if __name__ == "__main__":
    main()
