"""Repair: the last layer of a classifier, trained again on swapped images (see `last_layer`).

A repair removes what a model has learned of a shortcut outside the marks, as far as its features
hold other evidence. The marks are those of people, or of a Teacher, which marks all training
images: a mapper that is trained from the weights of the model itself on the marks of people.

A repaired model is *worse* if the 95 % interval of its gain in AUC on swapped validation images
lies below 0. It is then not written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from preceptor.auditing.audit import Examined, audit, ranged
from preceptor.auditing.models import Normalization, OpenedModel, open_model
from preceptor.config.run import MapSource, RunConfig
from preceptor.config.settings import NetworkFactory
from preceptor.config.training import Training
from preceptor.data.manifest import Manifest
from preceptor.data.swaps import binary
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError, PreceptorError
from preceptor.inference.annotate import compute_maps, rows_of
from preceptor.inference.predict import score_frame
from preceptor.maps.marked import Marked, read_marked
from preceptor.maps.store import write_store
from preceptor.metrics.scores import fixed_thresholds
from preceptor.models.build import WEIGHTS, load_model, save_model
from preceptor.models.guided_model import GuidedModel
from preceptor.report.blocks import Cell, Line, PlainPage, Section, Table, Text, render_plain_page
from preceptor.training.last_layer import MOST_REPAIRED, Repaired, repaired
from preceptor.training.run import train
from preceptor.training.validation import MOST_SWAPPED
from preceptor.utils.files import replacing
from preceptor.utils.results import strict_json

# Of the Teacher. On decoys (draws 300 and 301, 60 marks), its maps repair to an AUC of 0.927 from
# the weights of the model with these settings, 0.914 from random weights, 0.928 in 900 steps.
_TEACHER = {
    "optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01, "schedule": "one_cycle", "epochs": 1,
    "steps": 300, "batch_size": 24, "checkpoint": "last", "cache": "none",
}  # fmt: skip
_BLIND = (
    "A repair removes shortcuts outside the marks. It does not fit a model to images from "
    "elsewhere (another camera, hospital or place), where it may be worse than before: test it."
)


class NotRepairedError(PreceptorError):
    """The model with a new last layer is worse; nothing was written."""


@dataclass(frozen=True)
class Repair:
    """Repair of a model, and what was said about it."""

    name: str  # of the model before
    notes: tuple[str, ...]  # what was assumed about it
    result: Repaired
    sentences: tuple[str, ...]
    audits: tuple[Examined, Examined] | None  # before and after; None without validation marks


def repair(
    model: str | Path | nn.Module,
    manifest: str | Path | Manifest,
    to: str | Path,
    *,
    teacher: bool = False,
    maps: Path | None = None,
    splits: list[str] | None = None,
    positive: str | None = None,
    input_size: int | None = None,
    normalization: Normalization | None = None,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Repair:
    """Train the last layer of a classifier again on swapped images, and write a model folder.

    Args:
        model: Trained classifier, see `open_model`.
        manifest: Manifest with marked training images, and marked validation images if possible.
        to: New model folder, with the page `repair.html` and `repair.json`.
        teacher: Train a mapper on the marks first, and let it mark all training images.
        maps: Map store or folder of maps of training images, instead of the marks of people.
        splits: Names of validation sets; None = all with marks. Without any, the training images
            are split into three folds.
        positive, input_size, normalization: See `open_model`.
        seed: Seed of all draws.
        tell: Function that receives what is being done.

    Raises:
        InputError: The model has no features, it cannot be written, there are too few marks, or
            `to` exists.
        NotRepairedError: The model would be worse; nothing is written.
    """
    to, tell = Path(to), tell or (lambda line: None)
    if teacher and maps is not None:
        raise InputError("--teacher makes maps, and --maps has them; give one of the two")
    if to.exists() or not to.absolute().parent.is_dir():
        what = "exists already" if to.exists() else f"is in no folder: {to.parent} does not exist"
        raise InputError(f"{to}: {what}; name a new folder")
    table = manifest
    if not isinstance(table, Manifest):
        table = Manifest.read(table, verify=False, need=("train",))
    opened = open_model(
        model, classes=table.classes, positive=positive, input_size=input_size,
        normalization=normalization,
    )  # fmt: skip
    network = _network_of(opened)
    form, classes = opened.image_format, opened.classes
    val = _validation_sets(table, splits)
    with ExitStack() as stack:
        if teacher:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            maps = _marked_by_teacher(network, table, folder, seed, tell)
        marked = read_marked(table, form, classes, splits=["train"], maps=maps, most=MOST_REPAIRED)
    held = read_marked(table, form, classes, splits=val, most=MOST_SWAPPED) if val else None
    tell("training the last layer")
    result = repaired(
        network, marked.images, held.images if held else None, seed=seed,
        train_groups=marked.units, validation_groups=held.units if held else None,
    )  # fmt: skip
    new = result.model
    new.spec = replace(new.spec, positive=opened.positive, thresholds={})
    by = "a Teacher's maps" if teacher else "given maps" if maps else "the marks of people"
    said = _sentences(result, marked, held, by)
    if result.worse:
        raise NotRepairedError(
            f"{opened.name}: a new last layer is worse on swapped images, AUC "
            f"{ranged(result.before)} before and {ranged(result.after)} after (gain "
            f"{ranged(result.gain, sign=True)}); nothing was written, mark more images"
        )
    audits = None
    if val:
        tell("audit before and after")
        after = replace(opened, guided=new)
        before, then = (audit(one, table, splits=val, seed=seed) for one in (opened, after))
        audits = before, then
    found = Repair(opened.name, opened.notes, result, said, audits)
    _write(found, Workspace(table), to)
    return found


def _network_of(opened: OpenedModel) -> GuidedModel:
    """Network of a model, which a model folder can hold."""
    model = opened.guided
    if model is None:
        raise InputError(
            f"{opened.name}: an ONNX file has no layers to train; name the model that it was "
            "exported from"
        )
    if model.spec.module is not None and not model.spec.factory:
        raise InputError(
            f"{opened.name}: a model folder can name only declared functions; write "
            "@preceptor.network_factory above the function that returns the network"
        )
    return model


def _validation_sets(table: Manifest, splits: list[str] | None) -> list[str]:
    """Validation sets with marks."""
    marked = set(table.table["split"][table.map_mask])
    if splits is None:
        return [one for one in table.eval_splits("val") if one in marked]
    if wrong := [one for one in splits if one not in table.eval_splits("val")]:
        known = ", ".join(table.eval_splits("val")) or "none"
        raise InputError(f"split {wrong[0]!r} is no validation set; the manifest has {known}")
    return splits


def _marked_by_teacher(
    model: GuidedModel, table: Manifest, folder: Path, seed: int, tell: Callable[[str], None]
) -> Path:
    """Map store of all training images, by a mapper that starts from the model's weights."""
    spec = model.spec
    if spec.cam != "cam" or spec.cam_source != "head_input":
        raise InputError(
            f"{spec.backbone}: --teacher needs an exact class activation map, which it has not; "
            "give maps of another Teacher (--maps), or repair by the marks alone"
        )
    tell(f"training a Teacher on {int((table.map_mask & table.train_mask).sum()):,} marks")
    save_model(model, folder / "model")
    size = {"input_size": spec.input_size, "in_chans": spec.in_chans, "fit": spec.fit}
    own = NetworkFactory(factory=spec.factory, args=spec.backbone_args) if spec.factory else None
    config = RunConfig(
        manifest=Path(table.source or table.root),
        backbone=spec.backbone,
        network=own,
        backbone_args={} if own else spec.backbone_args,
        weights=str(folder / "model" / WEIGHTS),
        weights_identity="repair",  # the head is new
        positive=spec.positive or spec.classes[-1],
        rows="annotated",
        maps=MapSource(kind="human"),
        alpha=0.0,
        labels="marks",
        seed=seed,
        training=Training.model_validate(size | _TEACHER).of_mapper(),
    )
    workspace = Workspace(table)
    run = train(config, folder / "runs", workspace=workspace)
    tell("marking the training images")
    mapper, rows = load_model(run.folder / "model"), rows_of(table, "train")
    write_store(folder / "maps", compute_maps(mapper, workspace, rows, "cells", cache="none"))
    return folder / "maps"


def _sentences(result: Repaired, train: Marked, held: Marked | None, by: str) -> tuple[str, ...]:
    count = int(binary(train.images.masks).any((1, 2)).sum())
    gain = "shown" if result.gain.low > 0 else "not shown"
    if held is None:
        tested = (
            "No validation image is marked: the AUC is that of the training images in "
            f"{result.folds} folds, each scored by a layer that was trained on the others."
        )
    else:
        tested = f"It was measured on {len(held.table):,} images of {', '.join(held.splits)}."
    return (
        f"AUC on swapped images: {ranged(result.before)} before, {ranged(result.after)} after; "
        f"gain {ranged(result.gain, sign=True)}, {gain}.",
        f"The last layer was trained on {result.swaps:,} swaps of {len(train.table):,} training "
        f"images, {count:,} with marks, by {by}; strength of the penalty {result.strength:g}.",
        tested,
    )


def _write(found: Repair, workspace: Workspace, to: Path) -> None:
    """Write the model folder, with thresholds that are fixed on all validation images."""
    model, rows = found.result.model, workspace.split_rows("val")
    thresholds = {}
    if model.spec.positive is not None and len(rows):
        thresholds = fixed_thresholds(
            score_frame(model, workspace, rows, "none"), model.spec.positive
        )
    result = found.result
    record = {
        "model": found.name,
        "strength": result.strength,
        "scores": {f"{one:g}": value for one, value in result.scores.items()},
        "folds": result.folds,
        "swaps": result.swaps,
        **{one: asdict(getattr(result, one)) for one in ("before", "after", "gain")},
    }
    with replacing(to, new=True) as partial:
        save_model(model, partial, thresholds)
        title = f"# {model.spec.backbone}: {' or '.join(model.spec.classes)}\n\n## Repair\n\n"
        text = " ".join((f"Repaired from {found.name}.", *found.sentences, _BLIND))
        (partial / "README.md").write_text(f"{title}{text}\n", encoding="utf-8")
        (partial / "repair.json").write_text(strict_json(record) + "\n", encoding="utf-8")
        (partial / "repair.html").write_text(repair_page(found), encoding="utf-8")


def repair_page(found: Repair) -> str:
    """Page as HTML: AUC before and after, and what it does not say."""
    result = found.result
    rows = [("Swapped images", result.before, result.after)]
    if found.audits:
        one, other = (examined.audit for examined in found.audits)
        rows += [
            ("Audit: ordinary images", one.ordinary, other.ordinary),
            ("Audit: class of the outside (0.5 = no effect)", one.outside, other.outside),
            ("Audit: outside alone, marks filled", one.outside_only, other.outside_only),
            ("Audit: inside alone", one.inside_only, other.inside_only),
        ]
    lines = [
        Line(name, [Cell(ranged(before)), Cell(ranged(after))], strong=not at)
        for at, (name, before, after) in enumerate(rows)
    ]
    shown = result.gain.low > 0
    page = PlainPage(
        kind="repair",
        name=Path(found.name).name,
        facts=[found.name, f"classes {', '.join(result.model.spec.classes)}"],
        headline=f"{'Shown' if shown else 'Not shown'}: the repaired model is better on swapped "
        "images",
        sentences=[*found.sentences, *(f"Assumed: {one}." for one in found.notes), _BLIND],
        sections=[
            Section("numbers", "Numbers", "Before and after", [
                Table("AUC with 95 % interval", "", ["before", "after"], lines),
                Text("Thresholds were fixed again; calibrate it again (preceptor calibrate)."),
            ]),
        ],
        footer="Made by preceptor from marked images; the last layer alone was trained.",
        tone="" if shown else "mixed",
    )  # fmt: skip
    return render_plain_page(page)
