"""Audit, choice and repair by marks: their numbers beside the test's.

    python benchmarks/ask_marks.py frozen MANIFEST --weights FILE --to CSV
    python benchmarks/ask_marks.py study FOLDER --to CSV
    python benchmarks/ask_marks.py manifests FOLDER|MANIFEST --to NAME.csv|FOLDER
    python benchmarks/ask_marks.py marks MANIFEST --as click --to MANIFEST

`frozen`: a network with ImageNet weights whose last layer is a logistic regression on the
training images (no maps), on 60 marked ones alone, on swapped ones (repair), and on a clean
validation set (dfr). Draws are of marks. `study`: both baselines and the Students of a study
folder at all of their settings, and its network without maps repaired, by marks, by the maps of
its mapper, and by shuffled ones. Marked validation images are those of sets that have the
shortcut of the training.

A row of the table is a network: AUC and worst accuracy of a source on each evaluation set, and for
20, 60 and all marked validation images the AUC on swapped images, the least of it over the classes
that give the outside, and the AUC for the class of the outside; of the network without maps also
the verdict of the audit. Draws that are there are not computed again.

`manifests`: beside each manifest FOLDER/DRAW/manifest.csv one without clean labels: no further
validation set, and marks of 20 validation images. Of one manifest, FOLDER/DRAW.csv for each draw.

`marks`: the same images with the same marks, with the boxes of their regions, or with a click on
the largest region or one on each: a disc around the pixel that is farthest from the region's edge.
`--off` moves each click by a share of the side, `--wrong` puts a share of them anywhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import softmax

from preceptor.annotations.shapes import POINT_RADIUS
from preceptor.auditing.audit import audit, make_pictures
from preceptor.auditing.models import open_model
from preceptor.data.cache import in_memory
from preceptor.data.images import decode_marks
from preceptor.data.loader import Rows
from preceptor.data.manifest import Manifest
from preceptor.data.swaps import MarkedImages, SwappedImages, shuffled
from preceptor.data.workspace import Workspace
from preceptor.errors import PreceptorError
from preceptor.inference.predict import score_sets
from preceptor.maps.marked import read_marked
from preceptor.metrics.auc import log_odds, macro_auc
from preceptor.metrics.scores import set_auc
from preceptor.models.build import build_model, load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.study_folder import reopen
from preceptor.training.last_layer import (
    clean_sets,
    head_inputs,
    repaired,
    with_last_layer_trained,
)

MARKS = (20, 60, 0)  # 0 = all, at most 500 validation and 2,000 training images
Table = NDArray[np.float64]
Networks = Iterator[tuple[str, Callable[[], GuidedModel]]]


def own_sets(manifest: Manifest) -> list[str]:
    """Validation sets that have the shortcut of the training images, if there is one."""
    return [one for one in manifest.eval_splits("val") if one not in clean_sets(manifest)]


@dataclass
class Judge:
    """What judges the networks of a draw: evaluation sets, and swapped validation images.

    With `base`, networks differ from it in the last layer alone, and features are computed once.
    """

    manifest: Manifest
    model: GuidedModel
    draw: int
    base: bool
    whole: Table | None = None  # features of all rows of the manifest

    def __post_init__(self) -> None:
        form, classes = self.model.spec.image_format, self.model.spec.classes
        self.swaps: dict[str, tuple[SwappedImages, Any]] = {}
        for count in MARKS:
            how: dict[str, Any] = {"most": count or 500, "seed": self.draw}
            marked = read_marked(
                self.manifest, form, classes, splits=own_sets(self.manifest), **how
            )
            swapped = make_pictures(marked, form, classes, self.draw).swapped
            images = self.features(swapped.pixels) if self.base else swapped.pixels
            self.swaps[str(count or "all")] = swapped, images

    def features(self, pixels: Any) -> Table:
        form = self.model.spec.image_format
        rows = Rows(in_memory(pixels), np.arange(len(pixels)), np.zeros(len(pixels), np.int64),
                    form.size, form.fit)  # fmt: skip
        return head_inputs(self.model, rows)

    def probabilities(self, model: GuidedModel, images: Any) -> Table:
        if not self.base:
            return open_model(model, classes=self.manifest.classes).probabilities(images)
        weight = model.head.weight.detach().double().numpy()
        return np.asarray(softmax(images @ weight.T + model.head.bias.detach().double().numpy(), 1))

    def scores(self, model: GuidedModel) -> pd.DataFrame:
        """Scores of all evaluation sets."""
        if not self.base:
            return score_sets(model, Workspace(self.manifest))
        values = self.probabilities(model, self.whole)
        columns = {f"score_{one}": values[:, at] for at, one in enumerate(model.spec.classes)}
        return self.manifest.table.assign(**columns)[~self.manifest.train_mask]

    def numbers(self, model: GuidedModel) -> dict[str, Any]:
        """Numbers of a network."""
        classes, found = [*model.spec.classes], dict[str, Any]()
        for name, own in self.scores(model).groupby("split"):
            found[str(name)] = set_auc(own, classes, model.spec.positive)
            best = own[[f"score_{one}" for one in classes]].to_numpy().argmax(1)
            right = pd.Series(best == own["label"].map(classes.index).to_numpy())
            by_source = right.groupby(own["source"].to_numpy(object)).mean()
            found[f"{name} worst source"] = float(by_source.min())
        for of, (swapped, images) in self.swaps.items():
            odds = log_odds(self.probabilities(model, images))
            found[f"swapped {of}"] = macro_auc(swapped.labels, odds)
            found[f"outside {of}"] = macro_auc(swapped.outside_labels, odds)
            on = [swapped.outside_labels == one for one in np.unique(swapped.outside_labels)]
            found[f"least {of}"] = min(macro_auc(swapped.labels[one], odds[one]) for one in on)
        return found

    def verdicts(self, model: GuidedModel) -> dict[str, str]:
        """Verdicts of the audit."""
        opened = open_model(model, classes=self.manifest.classes)
        how: dict[str, Any] = {"splits": own_sets(self.manifest), "seed": self.draw}
        return {
            f"verdict {count or 'all'}": audit(
                opened, self.manifest, most=count or 200, **how
            ).audit.verdict
            for count in MARKS
        }


def repairs(
    model: GuidedModel, manifest: Manifest, draw: int, maps: Path | None, every: bool = True
) -> Networks:
    """The network with its last layer trained again on swapped images.

    Without `every`, not by all marks, which are the same in each draw of marks.
    """
    form, classes = model.spec.image_format, model.spec.classes

    def read(splits: list[str], most: int, store: Path | None = None) -> MarkedImages:
        how: dict[str, Any] = {"splits": splits, "most": most, "seed": draw, "maps": store}
        return read_marked(manifest, form, classes, **how).images

    for name, count, store in (
        *((f"{count or 'all'} marks", count, None) for count in (MARKS if every else MARKS[:-1])),
        *([("the Teacher", 60, maps)] if maps else []),
    ):
        images = read(["train"], 2000 if store else count or 2000, store)
        held = read(own_sets(manifest), count or 500)
        for twin, own in (("", images), (", shuffled", shuffled(images, draw))):
            yield (
                f"repair by {name}{twin}",
                lambda own=own, held=held: repaired(model, own, held, seed=draw).model,
            )


def frozen(given: argparse.Namespace) -> Iterator[tuple[Judge, Networks]]:
    """Networks whose last layer alone is trained."""
    manifest = Manifest.read(given.data, verify=False)
    torch.manual_seed(0)
    size = {"input_size": given.size, "positive": given.positive, "weights": str(given.weights)}
    base = build_model(given.backbone, manifest.classes, **size)
    workspace, table = Workspace(manifest), manifest.table

    def rows(mask: Any) -> Rows:
        return workspace.rows(np.flatnonzero(mask), base.spec.image_format, cache="none")

    whole = head_inputs(base, rows(np.ones(len(table), bool)))
    print("features are there", flush=True)
    plain = with_last_layer_trained(base, rows(manifest.train_mask))

    def networks(draw: int) -> Networks:
        yield "no maps", lambda: plain
        chosen = pd.Series(
            np.random.default_rng(draw).permutation(np.flatnonzero(manifest.train_mask))
        )
        turn = chosen.groupby(table["label"].to_numpy()[chosen]).cumcount()
        alone = chosen.iloc[turn.argsort(kind="stable")[:60]].to_numpy()
        marked = np.isin(np.arange(len(table)), alone)
        yield "60 images alone", lambda: with_last_layer_trained(base, rows(marked))
        for name in clean_sets(manifest):
            there = (table["split"] == name).to_numpy()
            yield f"dfr on {name}", lambda there=there: with_last_layer_trained(base, rows(there))
        yield from repairs(plain, manifest, draw, None, draw == 0)

    for draw in range(given.draws):
        yield Judge(manifest, base, draw, True, whole), networks(draw)


def of_study(given: argparse.Namespace) -> Iterator[tuple[Judge, Networks]]:
    """Networks of a study, by seed."""
    plan = reopen(given.data).first
    protocol, (backbone, *_), teacher = plan.protocol, plan.study.students, plan.winner()
    setting = plan.setting_of("baseline2", backbone)
    assert setting is not None
    assert teacher is not None
    for seed in plan.seeds[: given.draws]:
        run = protocol.baseline2(backbone, setting, seed)
        plain = load_model(protocol.run_folder(run.id) / "model")
        manifest = protocol.workspaces.of(seed).manifest
        folders = {
            f"{one.arm.label}, {one.arm.setting}": protocol.run_folder(one.run) / "model"
            for one in plan.members
            if one.seed == seed and one.arm.role in ("baseline1", "baseline2", "student", "dfr")
        }

        def networks(
            plain: GuidedModel = plain, folders: Any = folders, seed: int = seed
        ) -> Networks:
            yield "no maps", lambda: plain
            for name, folder in folders.items():
                yield name, lambda folder=folder: load_model(folder)
            maps = protocol.maps_of(teacher, seed)[0].path
            yield from repairs(plain, protocol.workspaces.of(seed).manifest, seed, maps)

        yield Judge(manifest, plain, seed, False), networks()


def without_clean_labels(given: argparse.Namespace) -> None:
    """Write manifests without clean labels."""
    files = {int(file.parent.name): file for file in sorted(given.data.glob("*/manifest.csv"))}
    files = files or dict.fromkeys(range(given.draws), given.data)
    for draw, file in files.items():
        table = pd.read_csv(file)
        table = table[~table["split"].str.startswith("val-")].reset_index(drop=True)
        table["annotated"] = table.get("annotated", 1)
        held = table[table["split"] == "val"].sample(frac=1, random_state=draw)
        turn = held.groupby("label").cumcount().sort_values(kind="stable")
        table.loc[turn.index[MARKS[0] :], ["saliency", "annotated"]] = [None, 0]
        if file != given.data:
            table.to_csv(file.with_name(given.to.name), index=False)
            continue
        for column in ("path", "saliency"):
            known = table[column].notna()
            table.loc[known, column] = [str(file.parent / one) for one in table[column][known]]
        given.to.mkdir(parents=True, exist_ok=True)
        table.to_csv(given.to / f"{draw}.csv", index=False)


def other_marks(mask: Any, given: argparse.Namespace, rng: np.random.Generator) -> Any:
    """A mark as it is, as boxes, or as discs of clicks."""
    if given.kind_of == "mask":
        return mask
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    drawn, (high, wide) = np.zeros(mask.shape, bool), mask.shape
    y, x = np.mgrid[:high, :wide]
    for number in [int(sizes.argmax()) + 1] if given.kind_of == "click" else range(1, count + 1):
        if given.kind_of == "box":
            drawn[ndimage.find_objects(regions)[number - 1]] = True
            continue
        inside = ndimage.distance_transform_edt(np.pad(regions == number, 1))[1:-1, 1:-1]
        place = np.array(np.unravel_index(inside.argmax(), mask.shape), float)
        turn = rng.uniform(0, 2 * np.pi)
        place += given.off * min(mask.shape) * np.array([np.sin(turn), np.cos(turn)])
        if rng.random() < given.wrong:
            place = rng.uniform(0, mask.shape)
        place = place.clip(0, [high - 1, wide - 1])
        drawn |= np.hypot(y - place[0], x - place[1]) <= given.radius * min(mask.shape)
    return drawn


def as_other_marks(given: argparse.Namespace) -> None:
    """Write a manifest with other marks."""
    table, base = pd.read_csv(given.data), given.data.parent
    folder = given.to.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for row, name in table["saliency"].dropna().items():
        pixels = decode_marks(str(base / name))
        drawn = other_marks(pixels >= pixels.max() / 2, given, np.random.default_rng(row))
        Image.fromarray((drawn * 255).astype(np.uint8)).save(folder / f"{row}.png")
        table.loc[row, "saliency"] = str(folder.absolute() / f"{row}.png")
    table["path"] = [str((base / one).absolute()) for one in table["path"]]
    table.to_csv(given.to, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=("frozen", "study", "manifests", "marks"))
    parser.add_argument("data", type=Path, help="manifest, study folder, or folder of draws")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--positive")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--as", dest="kind_of", choices=("mask", "box", "click", "clicks"))
    parser.add_argument("--radius", type=float, default=POINT_RADIUS, help="share of the side")
    parser.add_argument("--off", type=float, default=0.0)
    parser.add_argument("--wrong", type=float, default=0.0)
    given = parser.parse_args()
    if given.kind in ("manifests", "marks"):
        (without_clean_labels if given.kind == "manifests" else as_other_marks)(given)
        return
    rows = pd.read_csv(given.to).to_dict("records") if given.to.is_file() else []
    done = {row["draw"] for row in rows}
    for judge, networks in (frozen if given.kind == "frozen" else of_study)(given):
        if judge.draw in done:
            continue
        for name, network in networks:
            started = time.monotonic()
            try:
                model = network()
            except PreceptorError as error:
                print(f"{judge.draw} {name}: {error}", flush=True)
                continue
            row = {"draw": judge.draw, "network": name, "seconds": time.monotonic() - started}
            row |= judge.numbers(model)
            rows.append(row | (judge.verdicts(model) if name == "no maps" else {}))
            print(f"{judge.draw} {name}: {row['seconds']:.0f} s", flush=True)
        pd.DataFrame(rows).to_csv(given.to, index=False)


if __name__ == "__main__":
    main()
