"""Checks of a study before training, and its estimated time and disk space."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preceptor.config.maps import PCA_COMPONENTS
from preceptor.config.settings import Amount
from preceptor.config.training import Training
from preceptor.data.cache import bytes_missing
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.notes import primary_problems, selection_problems, small_marks
from preceptor.data.store import FileContents, arrow_hashes
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.maps.sources import check_matches, too_few_for_components
from preceptor.models.guided_model import GuidedModel
from preceptor.study.config import StudyConfig
from preceptor.study.protocol import plain_run, training_of
from preceptor.study.steps import Step
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import build_for, image_formats, step_seconds
from preceptor.training.validation import check_images, check_last_layer

# Share of marks under half a cell from which on a grid is noted as coarse.
COARSE_SHARE = 0.25
# Arguments of a backbone that make its grid finer.
_FINER = {"output_stride": 8, "decoder": "fpn"}


def check_study(
    study: StudyConfig, workspaces: Workspaces, *, networks: bool = True, maps_cached: bool = False
) -> list[str]:
    """Check a study before training; all problems are reported together, as an InputError.

    Returns notes: grids that are coarse compared with the human marks (if `maps_cached`), and test
    images that the manifests of several seeds share. Without `networks` no backbone is built.
    """
    problems = list(_problems(study, workspaces))
    notes: list[str] = []
    if networks:
        for backbone in study.backbone_names:
            try:
                model = build_for(plain_run(study, backbone), workspaces.first.manifest.classes)
                grid = model.guidable_grid()
                if "dfr" in study.controls and backbone in study.students:
                    check_last_layer(model)
                if maps_cached:
                    notes += _coarse_grid(model, grid, training_of(study), workspaces.first)
            except InputError as error:
                problems.append(str(error))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n  ".join(problems)
        raise InputError(f"the study has {len(problems)} problems\n  {lines}")
    shared = shared_images(workspaces)
    return [*notes, shared.note] if shared is not None and shared.share >= _NOTED else notes


def _problems(study: StudyConfig, workspaces: Workspaces) -> Iterator[str]:
    manifest = workspaces.first.manifest
    classes, tests = manifest.classes, manifest.eval_splits("test")
    if study.primary is not None and study.primary not in tests:
        yield f"primary: {study.primary!r} is not one of the test sets {tests}"
    if len(classes) == 2 and study.positive is None:
        yield f"positive: name which of {classes} is the positive class"
    if study.positive is not None and study.positive not in classes:
        yield f"positive: {study.positive!r} is not among {classes}"
    if study.mapper and len(classes) != 2:
        yield f"mapper: needs two classes, and there are {len(classes)}; set mapper: false"
    for backbone in study.students if study.starts_from_mapper else ():
        if study.backbone_args.get(backbone, {}).get("decoder", "none") != "none":
            yield (
                f"mapper: start needs the weights of a plain backbone, and backbone_args has a "
                f"decoder of {backbone}; set mapper: true, or remove the decoder"
            )
    seeds = study.seed_list if study.draws else study.seed_list[:1]
    for seed in seeds:
        one = workspaces.of(seed).manifest
        where = f"{study.manifest_of(seed)}: " if study.draws else ""
        negatives = study.validation_negatives
        primary = study.primary if study.primary is not None else tests[0]
        for problem in (*selection_problems(one, negatives), *primary_problems(one, primary)):
            yield f"{where}{problem}"
    if unknown := sorted(set(study.guide_classes or ()) - set(classes)):
        yield f"guide_classes: {unknown} not among the classes {classes}"
    every = study.seed_list if study.annotated_per_seed else seeds
    drawn = [(study.annotated, seed if study.annotated_per_seed else 0, seed) for seed in every]
    yield from _first(_without_maps(workspaces, "annotated", drawn))
    for size in study.budgets:
        drawn = [(size, seed, seed) for seed in study.seed_list]
        yield from _first(_without_maps(workspaces, "budget", drawn))
    if "pca" in study.controls:
        images = (int(workspaces.of(seed).train_mask.sum()) for seed in seeds)
        problems = (too_few_for_components(number, PCA_COMPONENTS) for number in images)
        yield from _first(f"controls: pca: {problem}" for problem in problems if problem)
    if study.dfr_set is not None:
        for seed in seeds:
            try:
                check_images(workspaces.of(seed).manifest, study.dfr_set)
            except InputError as error:
                yield f"dfr_set: {error}"
                break
    for name, path in study.maps.items():
        if not path.is_dir():
            yield f"maps.{name}: {path} is not a folder"
            continue
        for seed in seeds:
            opened = workspaces.of(seed)
            names = opened.manifest.table.loc[opened.train_mask, "name"]
            try:
                check_matches(path, names.to_numpy(object))
            except InputError as error:
                yield f"maps.{name}: {str(error).removeprefix('maps: ')}"
                break


def _first(problems: Iterable[str]) -> Iterator[str]:
    """The first of equal problems of several seeds."""
    yield from itertools.islice(problems, 1)


def _without_maps(
    workspaces: Workspaces, key: str, drawn: Iterable[tuple[Amount | None, int, int]]
) -> Iterator[str]:
    """Draws of annotated images, by amount, random seed and seed of the study, without a map."""
    for amount, number, seed in drawn:
        workspace = workspaces.of(seed)
        try:
            mask = workspace.drawn(amount, number)
        except InputError as error:
            yield str(error) if key == "annotated" else f"{key}: {error}"
            continue
        if not (mask & workspace.manifest.map_mask).any():
            images = "annotated training images" if key == "annotated" else f"{amount} images"
            yield f"{key}: none of the {images} drawn for seed {seed} has a human map"


def _coarse_grid(
    model: GuidedModel, grid: tuple[int, int], training: Training, workspace: Workspace
) -> Iterator[str]:
    """Note on a grid whose cells are larger than many human marks."""
    form = training.image_format(model.spec.input_size)
    rows = np.flatnonzero(workspace.train_mask & workspace.manifest.map_mask)
    small, seen = small_marks(workspace.images(form, training.cache), rows, grid)
    if seen and small / seen >= COARSE_SHARE:
        given = model.spec.backbone_args
        finer = [f"{{{key}: {value}}}" for key, value in _FINER.items() if key not in given]
        arguments = f"backbone_args: {{{model.spec.backbone}: {' or '.join(finer)}}}"
        yield (
            f"{small / seen:.0%} of the human maps mark less than half a cell of the {grid[0]} × "
            f"{grid[1]} grid of {model.spec.backbone}, where guidance can hardly show them; a "
            f"larger input_size{f' or {arguments}' if finer else ''} has finer cells"
        )


# Share of common test images from which on a study notes them; the methods section names any.
_NOTED = 0.01


@dataclass(frozen=True)
class SharedImages:
    """Test images of a seed that are in the manifest of another seed, by their content."""

    seeds: int  # number of seeds with such test images
    of: int
    share: float  # largest share of such images among the test images of a seed

    @property
    def words(self) -> str:
        """What is shared, and what it means for intervals."""
        return (
            f"up to {100 * self.share:.3g} % of the test images of a seed are in the manifest of "
            f"another seed ({self.seeds} of {self.of} seeds), so that seeds are not independent "
            "draws of the data, and the intervals over draws are too narrow"
        )

    @property
    def note(self) -> str:
        """The same with its remedy."""
        return (
            f"manifest: {self.words}; use one manifest with several seeds, whose intervals are for "
            "these images, or data without common images for each seed"
        )


def shared_images(workspaces: Workspaces) -> SharedImages | None:
    """Test images that the manifests of several seeds share; None if there are none."""
    several = workspaces.all()
    if len(several) < 2:
        return None
    distinct = [pc.unique(arrow_hashes(one.hashes.images)) for one in several]
    counts = pc.value_counts(pa.concat_arrays(distinct))
    common = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    shares = []
    for one in several:
        tests = arrow_hashes(one.hashes.images[one.split_rows("test")])
        shares.append(pc.mean(pc.is_in(tests, value_set=common)).as_py() or 0.0)
    if not any(shares):
        return None
    return SharedImages(sum(share > 0 for share in shares), len(several), max(shares))


FORWARD_SHARE = 1 / 3  # of a training step
_rates: dict[str, float] = {}  # images per second; the same for both stages of a study


def estimate_seconds(
    steps: Sequence[Step], study: StudyConfig, classes: Sequence[str], validation: int, jobs: int
) -> float:
    """Estimated wall time of steps in seconds."""
    seconds = 0.0
    for step in steps:
        run = step.config
        if run is None:
            continue
        key = repr((run.backbone, run.backbone_args, run.network, run.training, len(classes)))
        if key not in _rates:
            seconds_of_step = step_seconds(run, classes, run.training.speed)
            _rates[key] = run.training.batch_size / seconds_of_step
        if not _rates[key]:  # a batch does not fit into memory: it is divided in training
            continue
        images = step.cost
        if step.kind == "train":
            epochs = 0 if run.last_layer is not None else study.training.epochs
            images += FORWARD_SHARE * validation * (epochs + 1)
        seconds += images / _rates[key]
    return seconds / max(jobs, 1)


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
    """Disk space that the image caches of a study need for its manifests."""
    forms = {
        form
        for backbone in study.backbone_names
        for form in image_formats(plain_run(study, backbone))
    }
    read: dict[Path, list[FileContents]] = defaultdict(list)  # manifests whose files were read
    images, maps = set[tuple[Path, str]](), set[tuple[Path, str]]()
    for workspace in workspaces:
        cache_dir, manifest = workspace.cache_dir, workspace.manifest
        if manifest.contents is not None:
            read[cache_dir].append(manifest.contents)
            continue
        images |= {(cache_dir, path) for path in manifest.table["path"]}
        maps |= {(cache_dir, path) for path in manifest.table["saliency"] if path}
    sides = {(form.side, form.fit, form.channels) for form in forms}
    image_bytes = sum(side**2 * channels for side, _, channels in sides)
    unread = len(images) * image_bytes + len(maps) * MAP_SIDE**2
    return unread + sum(
        bytes_missing(cache_dir, forms, contents) for cache_dir, contents in read.items()
    )


def count_kinds(steps: Sequence[Step]) -> str:
    """ "12 trainings, 3 map stores" for a list of steps."""
    names = {"train": "training", "maps": "map store", "evaluate": "test scoring"}
    names |= {"shard": "shard", "select": "selection"}
    counts = Counter(names[step.kind] for step in steps)
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
