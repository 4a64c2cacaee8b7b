"""Checks of a study before training, and its estimated time and disk space."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from preceptor.config.run import RunConfig
from preceptor.config.settings import Amount
from preceptor.config.training import Training
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.notes import primary_problems, selection_problems, small_marks
from preceptor.data.store import arrow_hashes
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.losses.guidance import Guidance, GuidanceBatch, GuidedForward
from preceptor.maps.sources import check_matches, marked_classes, too_few_for_components
from preceptor.metrics.split_names import kind_of
from preceptor.models.build import with_pool
from preceptor.models.frozen import cut
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.study.config import StudyConfig
from preceptor.study.protocol import plain_run, training_of
from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces
from preceptor.training.last_layer import check_images, check_last_layer, clean_sets
from preceptor.training.prepare import (
    build_for,
    image_formats,
    method_of,
    pixels_needed,
    step_seconds,
)
from preceptor.training.validation import check_readout

# Share of marks under half a cell from which on a grid is noted as coarse.
COARSE_SHARE = 0.25


def check_study(
    study: StudyConfig, workspaces: Workspaces, *, networks: bool = True, maps_cached: bool = False
) -> list[str]:
    """Check a study before training; all problems are reported together, as an InputError.

    Returns notes: grids that are coarse compared with the human marks (if `maps_cached`), changes
    of images that tell the class, and test images that several seeds share. Without `networks` no
    backbone is built.
    """
    problems = list(_problems(study, workspaces))
    notes: list[str] = []
    methods: list[Guidance | None] = []
    clean = study.dfr_set or clean_sets(workspaces.first.manifest)
    for name in study.guidances:
        try:
            methods.append(method_of(training_of(study, name)))
        except InputError as error:
            problems.append(f"guidances.{name}: {error}")
    twice = any(method is not None and "gradient" in method.needs for method in methods)
    for backbone in study.backbone_names if networks else ():
        try:
            model = build_for(plain_run(study, backbone), workspaces.first.manifest.classes)
            grid = model.guidable_grid()
            if "dfr" in study.controls and clean and backbone in study.students:
                try:
                    check_last_layer(model)
                except InputError as error:
                    raise InputError(f"controls: dfr: {error}") from error
            training = training_of(study)
            if training.readout == "auto":
                check_readout(model)
            also = study.students if study.starts_from_mapper else ()
            if study.mapper and backbone in (*study.teachers, *also):
                _check_mapper(model, training)
            if twice and backbone in study.students:
                _check_second_derivative(model)
            if maps_cached:
                notes += coarse_grid(model, grid, training, workspaces.first)
        except InputError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n  ".join(problems)
        raise InputError(f"the study has {len(problems)} problems\n  {lines}")
    notes += _changes_that_tell_the_class(study, methods, workspaces.first)
    share, words = shared_images(workspaces)
    if share >= _NOTED:
        notes.append(
            f"manifest: {words}; use one manifest with several seeds, whose intervals are "
            "for these images, or data without common images for each seed"
        )
    return notes


def _check_mapper(model: GuidedModel, training: Training) -> None:
    if model.spec.cam != "cam":
        raise InputError(
            f"{model.spec.backbone}: mapper needs an exact class activation map, and the backbone "
            "has Grad-CAM only; use another backbone, or mapper: false"
        )
    with_pool(model, Pool("top", training.pool_top))


def _check_second_derivative(model: GuidedModel) -> None:
    """Raise InputError if a network cannot be guided by its input gradients."""
    spec = model.spec
    image = torch.zeros(1, spec.in_chans, spec.input_size, spec.input_size)
    batch = GuidanceBatch(image, torch.zeros(1, dtype=torch.int64))
    try:
        GuidedForward(model).begin(batch, frozenset({"gradient"}))
    except InputError as error:
        raise InputError(f"guidances: {spec.backbone}: {error}") from error


def _problems(study: StudyConfig, workspaces: Workspaces) -> Iterator[str]:
    manifest = workspaces.first.manifest
    classes, tests = manifest.classes, manifest.eval_splits("test")
    if study.primary is not None and study.primary not in tests:
        yield f"primary: {study.primary!r} is not one of the test sets {tests}"
    if len(classes) == 2 and study.positive is None:
        yield f"positive: name which of {classes} is the positive class"
    if study.positive is not None and study.positive not in classes:
        yield f"positive: {study.positive!r} is not among {classes}"
    seeds = study.seed_list if study.draws else study.seed_list[:1]
    negatives, primary = study.validation_negatives, study.primary or tests[0]
    for seed in seeds:
        one = workspaces.of(seed).manifest
        where = f"{study.manifest_of(seed)}: " if study.draws else ""
        for problem in (*selection_problems(one, negatives), *primary_problems(one, primary)):
            yield f"{where}{problem}"
    if unknown := sorted(set(study.guide_classes or ()) - set(classes)):
        yield f"guide_classes: {unknown} not among the classes {classes}"
    every = study.seed_list if study.annotated_per_seed else seeds
    drawn = [(study.annotated, seed if study.annotated_per_seed else 0, seed) for seed in every]
    yield from _first(_without_maps(study, workspaces, "annotated", drawn))
    for size in study.budgets:
        drawn = [(size, seed, seed) for seed in study.seed_list]
        yield from _first(_without_maps(study, workspaces, "budget", drawn))
    opened = [workspaces.of(seed) for seed in seeds]
    if "pca" in study.controls:
        images = (int(workspace.train_mask.sum()) for workspace in opened)
        problems = filter(None, map(too_few_for_components, images))
        yield from _first(f"controls: pca: {problem}, or remove pca" for problem in problems)
    if (chosen := study.dfr_set) is not None:
        checks = (partial(check_images, workspace.manifest, chosen) for workspace in opened)
        yield from _first(f"dfr_set: {error}" for error in _errors(checks))
    for name, path in study.maps.items():
        if not path.is_dir():
            yield f"maps.{name}: {path} is not a folder"
            continue
        names = (one.manifest.table["name"].to_numpy(object)[one.train_mask] for one in opened)
        errors = _errors(partial(check_matches, path, some) for some in names)
        yield from _first(f"maps.{name}: {error.removeprefix('maps: ')}" for error in errors)


def _first(problems: Iterable[str]) -> Iterator[str]:
    """The first of equal problems of several seeds."""
    yield from itertools.islice(problems, 1)


def _errors(checks: Iterable[Callable[[], None]]) -> Iterator[str]:
    """Messages of the checks that raise an InputError."""
    for check in checks:
        try:
            check()
        except InputError as error:
            yield str(error)


def _without_maps(
    study: StudyConfig,
    workspaces: Workspaces,
    key: str,
    drawn: Iterable[tuple[Amount | None, int, int]],
) -> Iterator[str]:
    """Draws of annotated images, by amount, random seed and seed of the study, without a map."""
    for amount, number, seed in drawn:
        workspace = workspaces.of(seed)
        try:
            mask = workspace.drawn(amount, number)
        except InputError as error:
            yield str(error) if key == "annotated" else f"{key}: {error}"
            continue
        table = workspace.manifest.table
        classes = {*(study.guide_classes or ())} & {*table["label"]}
        mask = mask & workspace.manifest.map_mask & (table["map_weight"] > 0).to_numpy()
        if not (mask & table["label"].isin(classes).to_numpy() if classes else mask).any():
            images = "annotated training images" if key == "annotated" else f"{amount} images"
            yield f"{key}: none of the {images} drawn for seed {seed} has a human map"


def coarse_share(
    workspace: Workspace, training: Training, side: int, grid: tuple[int, int]
) -> float:
    """Share of human maps that mark less than half a cell of a grid; 0 below `COARSE_SHARE`."""
    rows = np.flatnonzero(workspace.train_mask & workspace.manifest.map_mask)
    images = workspace.images(training.image_format(side), training.cache)
    small, seen = small_marks(images, rows, grid)
    return small / seen if seen and small / seen >= COARSE_SHARE else 0.0


def coarse_grid(
    model: GuidedModel, grid: tuple[int, int], training: Training, workspace: Workspace
) -> Iterator[str]:
    """Note on a grid whose cells are larger than many human marks."""
    if share := coarse_share(workspace, training, model.spec.input_size, grid):
        arguments = f" or backbone_args: {{{model.spec.backbone}: {{output_stride: 8}}}}"
        finer = "" if "output_stride" in model.spec.backbone_args else arguments
        yield (
            f"{share:.0%} of the human maps mark less than half a cell of the {grid[0]} × "
            f"{grid[1]} grid of {model.spec.backbone}, where guidance can hardly show them; a "
            f"larger input_size{finer} has finer cells"
        )


# Methods that train the label on changed images.
_CHANGING = ("faithful", "outside", "robust")


def _changes_that_tell_the_class(
    study: StudyConfig, methods: Sequence[Guidance | None], workspace: Workspace
) -> Iterator[str]:
    """Note on images that are changed by their maps, which are of some of the classes."""
    manifest = workspace.manifest
    marked = study.guide_classes or marked_classes(manifest, workspace.train_mask)
    names = [one.name for one in methods if one is not None and one.name in _CHANGING]
    if study.training.augmentation.outside != "none":
        names.append("augmentation.outside")
    if names and set(marked) != set(manifest.classes):
        yield (
            f"{', '.join(dict.fromkeys(names))}: human maps guide only {', '.join(marked)}, so "
            "that changed images are all of these classes, and the change itself can tell the "
            "class; compare with another method, such as l2"
        )


# Share of common test images from which on a study notes them; the methods section names any.
_NOTED = 0.01


def shared_images(workspaces: Workspaces) -> tuple[float, str]:
    """Largest share of a seed's test images that are in the manifest of another seed, by content,
    and a clause on it; 0 and "" if there are none.
    """
    several = workspaces.all()
    if len(several) < 2:
        return 0.0, ""
    distinct = [pc.unique(arrow_hashes(workspace.hashes.images)) for workspace in several]
    counts = pc.value_counts(pa.concat_arrays(distinct))
    common = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    shares = []
    for one in several:
        tests = arrow_hashes(one.hashes.images[one.split_rows("test")])
        shares.append(pc.mean(pc.is_in(tests, value_set=common)).as_py() or 0.0)
    if not any(shares):
        return 0.0, ""
    return max(shares), (
        f"up to {100 * max(shares):.3g} % of the test images of a seed are in the manifest of "
        f"another seed ({sum(share > 0 for share in shares)} of {len(several)} seeds), so that "
        "seeds are not independent draws of the data, and the intervals over draws are too narrow"
    )


class Size(NamedTuple):
    """Size of a study on one's own images."""

    backbone: str
    input_size: int
    steps: int
    seeds: int


# From small to large: networks with pretrained weights, which are frozen where there is no GPU, and
# one that learns from random weights.
PRETRAINED, SCRATCH = "mobilenetv2_100", "resnet10t"
SIZES = [Size(PRETRAINED, 160, *one) for one in ((200, 3), (400, 3), (600, 5), (1000, 5))]
SIZES += [Size("resnet18", 160, 1000, 5), Size("resnet50", 224, 1000, 5)]
SIZES += [Size("resnet50", 224, 3000, 10)]
SCRATCH_SIZES = [Size(SCRATCH, 64, *one) for one in ((150, 3), (300, 3), (600, 3))]
SCRATCH_SIZES += [Size(SCRATCH, 96, 1000, 5), Size(SCRATCH, 128, 2000, 5)]
FROZEN = 0.75  # of mobilenetv2_100: blocks 0 to 4, after which a step takes a ninth of the time
FORWARD_SHARE = 1 / 3  # of a training step
REAL_STEP = 1.25  # time of a training step with its images ÷ a timed one, fitted on four data sets
STEP_OVERHEAD = 1.5  # seconds of a step of a study beside its images: data, model, results
_rates: dict[str, float] = {}  # seconds of an image; the same for both stages of a study
# Time of a step ÷ a plain one, of methods with several further passes; see benchmarks/RESULTS.md.
_COSTS = {"robust": 4.5, "faithful": 3.3, "saliency_guided": 3.0}


def estimate_seconds(
    steps: Sequence[Step],
    study: StudyConfig,
    classes: Sequence[str],
    validation: int,
    jobs: int,
    rates: tuple[float, float] | None = None,
) -> float:
    """Estimated wall time of steps in seconds, infinite if a batch does not fit into memory;
    `rates`: seconds of an image in a step, and in one of the whole network; None = measured here.
    """
    seconds = 0.0

    def rate(run: RunConfig) -> float:
        how = run.training
        form = run.backbone, run.backbone_args, run.network, how.input_size, how.batch_size
        part = None if how.frozen is None else (how.frozen, pixels_needed(run))
        speed = how.in_chans, how.precision, how.threads, how.channels_last, part
        key = repr((form, speed, len(classes), jobs))
        if key not in _rates:
            _rates[key] = step_seconds(run, classes, jobs) / how.batch_size
        return _rates[key]  # infinite: a batch does not fit into memory

    for step in steps:
        run = step.config
        if run is None:
            continue
        each, whole = rates or (rate(run), rate(without_frozen(run)))
        own = step.cost * whole
        if step.kind == "train":
            epochs = 0 if run.last_layer is not None else study.training.epochs
            own = step.cost * REAL_STEP * _cost(run) * each
            own += FORWARD_SHARE * validation * (epochs * each + whole)
        seconds += own + STEP_OVERHEAD
    return seconds / max(jobs, 1)


def without_frozen(run: RunConfig) -> RunConfig:
    """The same run of the whole network."""
    return run.model_copy(update={"training": run.training.model_copy(update={"frozen": None})})


def _cost(run: RunConfig) -> float:
    """Time of a training step ÷ that of a plain one."""
    method = method_of(run.training) if run.alpha != 1 else None
    if method is None:
        return 1.0
    return _COSTS.get(method.name, 2.2 if method.needs & {"changed", "gradient"} else 1.0)


def weight_bytes(steps: Sequence[Step], classes: Sequence[str]) -> int:
    """Disk space of the models that the trainings among these steps leave in the store."""
    sizes: dict[str, int] = {}
    total = 0
    for step in steps:
        run = step.config
        if step.kind != "train" or run is None:
            continue
        key = repr((run.backbone, run.backbone_args, run.training.pool))
        if key not in sizes:
            state = build_for(run, classes, load_weights=False).state_dict()
            sizes[key] = sum(value.nbytes for value in state.values())
        total += sizes[key]
    return total


def cache_bytes(study: StudyConfig, workspaces: Sequence[Workspace]) -> int:
    """Disk space of the caches of a study for its manifests, as if none were filled."""
    runs = [plain_run(study, backbone) for backbone in study.backbone_names]
    forms = {(form.side, form.fit, form.channels) for run in runs for form in image_formats(run)}
    tables = [workspace.manifest.table for workspace in workspaces]
    images = {path for table in tables for path in table["path"]}
    maps = {path for table in tables for path in table["saliency"] if path}
    each = sum(side**2 * channels for side, _, channels in forms)
    seen = {path for one in tables for path in one["path"][kind_of(one["split"]) != "test"]}
    trained = {path for one in tables for path in one["path"][one["split"] == "train"]}
    count = len(seen) + study.training.augmentation.flip * len(trained)  # and mirror images
    feature = sum(_feature_bytes(run, workspaces[0].manifest.classes) for run in runs)
    return len(images) * each + len(maps) * MAP_SIDE**2 + count * feature


def _feature_bytes(run: RunConfig, classes: Sequence[str]) -> int:
    """Disk space of the cached features of an image, in half precision."""
    if run.training.frozen is None or pixels_needed(run):
        return 0
    model = build_for(run, classes, load_weights=False)
    return 2 * math.prod(cut(model, model.frozen[-1]).upper.takes)


def count_kinds(steps: Sequence[Step]) -> str:
    """ "12 trainings, 3 map stores" for a list of steps."""
    names = {"train": "training", "maps": "map store", "evaluate": "test scoring"}
    names |= {"shard": "shard", "select": "selection"}
    counts = Counter(names[step.kind] for step in steps)
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
