"""Estimated time and disk space of a study: measured training steps, sizes of models and caches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from preceptor.config.run import RunConfig
from preceptor.data.cache import bytes_missing
from preceptor.data.geometry import MAP_SIDE
from preceptor.data.store import FileContents
from preceptor.data.workspace import Workspace
from preceptor.study.config import StudyConfig
from preceptor.study.protocol import plain_run
from preceptor.study.steps import Step
from preceptor.training.prepare import build_for, image_formats
from preceptor.training.probe import step_seconds

# A forward is about a third of a training step.
FORWARD_SHARE = 1 / 3
_rates: dict[
    str, float
] = {}  # cached in this process, so that both stages use the same measurement


def training_rate(config: RunConfig, classes: Sequence[str]) -> float:
    """Training speed of one job in images per second.

    Args:
        config: Run config, see `step_seconds`.
        classes: Class names.
    """
    training = config.training
    seconds = step_seconds(config, classes, training.speed)
    return training.batch_size / seconds


def estimate_seconds(
    steps: Sequence[Step], study: StudyConfig, classes: Sequence[str], validation: int, jobs: int
) -> float:
    """Estimated wall time of steps in seconds.

    Args:
        steps: Steps of a plan.
        study: Study config.
        classes: Class names.
        validation: Number of validation images scored after each epoch.
        jobs: Number of concurrent workers.
    """
    seconds = 0.0
    for step in steps:
        run = step.config
        if run is None:
            continue
        key = repr((run.backbone, run.backbone_args, run.network, run.training, len(classes)))
        if key not in _rates:
            _rates[key] = training_rate(run, classes)
        images = step.cost
        if step.kind == "train":
            epochs = 0 if run.last_layer is not None else study.training.epochs
            images += FORWARD_SHARE * validation * (epochs + 1)
        seconds += images / _rates[key]
    return seconds / max(jobs, 1)


def weight_bytes(steps: Sequence[Step], classes: Sequence[str]) -> int:
    """Disk space of the models that the trainings among these steps leave in the store.

    Args:
        steps: Steps of a plan.
        classes: Class names.
    """
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
    """Disk space that the image caches of a study need for its manifests.

    Of manifests that were verified before, images that are in the cache already do not count, and
    equal ones count once; of others, each path counts once.

    Args:
        study: Study config.
        workspaces: Workspaces of the manifests.
    """
    forms = {
        form
        for backbone in study.backbone_names
        for form in image_formats(plain_run(study, backbone))
    }
    known: dict[Path, list[FileContents]] = defaultdict(list)
    images: set[tuple[Path, str]] = set()
    maps: set[tuple[Path, str]] = set()
    for workspace in workspaces:
        cache_dir, manifest = workspace.cache_dir, workspace.manifest
        if manifest.contents is not None:
            known[cache_dir].append(manifest.contents)
            continue
        images |= {(cache_dir, path) for path in manifest.table["path"]}
        maps |= {(cache_dir, path) for path in manifest.table["saliency"] if path}
    sides = {(form.side, form.fit, form.channels) for form in forms}
    image_bytes = sum(side**2 * channels for side, _, channels in sides)
    unread = len(images) * image_bytes + len(maps) * MAP_SIDE**2
    return unread + sum(
        bytes_missing(cache_dir, forms, contents) for cache_dir, contents in known.items()
    )


def count_kinds(steps: Sequence[Step]) -> str:
    """ "12 trainings, 3 map stores" for a list of steps."""
    names = {
        "train": "training",
        "shard": "shard",
        "maps": "map store",
        "evaluate": "test scoring",
        "select": "selection",
    }
    counts = Counter(step.kind for step in steps)
    return ", ".join(
        f"{count} {names[kind]}{'s' if count != 1 else ''}" for kind, count in counts.items()
    )
