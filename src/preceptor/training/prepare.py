"""Preparation of a run: its id, initial model and training rows, and the time of its steps.

The id is known before the training: it is a hash of the resolved config, of the rows and files that
the run uses, and of NUMERICS.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preceptor.config.run import RunConfig
from preceptor.config.settings import ImageFormat, identity_values
from preceptor.config.training import Augmentation, Training
from preceptor.data.cache import Features
from preceptor.data.loader import Rows
from preceptor.data.store import Store, fill
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.predict import to_device
from preceptor.losses.guidance import Guidance, guidance_method
from preceptor.maps.sources import build_map_targets, guided_by_marks, marked_classes
from preceptor.metrics.split_names import SWAPPED
from preceptor.models.build import build_model
from preceptor.models.frozen import cut, freeze
from preceptor.models.guided_model import GuidedModel, autocast
from preceptor.models.spec import MARKS, Pool
from preceptor.training.validation import selects_by_swaps
from preceptor.utils.process import fix_order_of_sums, out_of_memory, release_memory
from preceptor.utils.results import digest, file_digest, source_digest

# Increased if the arithmetic of training or a default of RunConfig changes (ids contain
# non-default settings only), so that old runs are not reused.
# Guidance methods have a number of their own, `Guidance.numerics`.
NUMERICS = 5


def run_id_of(workspace: Workspace, config: RunConfig) -> str:
    """Id of a run on a manifest."""
    hashes = workspace.hashes
    rows = workspace.training_rows(config)
    mapped: NDArray[np.bool_] | None = None
    maps = config.maps
    keeps_human = maps.kind == "human" or maps.human == "keep"
    if config.uses_maps and keeps_human:
        mapped = hashes.has_map[rows] & workspace.human_maps_from(config)[rows]
    chosen = config.guide_classes is not None and maps.shuffle_seed is None
    # Masks also guide examined images without a map; `labels: marks` reads the maps of all classes.
    if config.uses_maps and maps.kind == "human" and chosen and not config.guided_by_masks:
        # Classes without human maps cannot be guided by them; listing them has no effect.
        labels = workspace.manifest.table["label"].iloc[rows]
        assert mapped is not None
        assert config.guide_classes is not None
        mapped &= labels.isin(config.guide_classes).to_numpy(bool)
        config = config.model_copy(update={"guide_classes": None})
    if config.uses_maps and maps.kind == "store" and maps.identity is None:
        assert maps.path is not None
        if not maps.path.is_dir():
            raise InputError(f"maps: {maps.path} is not a folder")
        identified = maps.model_copy(update={"identity": workspace.folder_digest(maps.path)})
        config = config.model_copy(update={"maps": identified})
    if (swaps := config.swaps) is not None and swaps.identity is None and swaps.path is not None:
        identified = swaps.model_copy(update={"identity": workspace.folder_digest(swaps.path)})
        config = config.model_copy(update={"swaps": identified})
    weights = config.weights_identity or config.weights
    if weights == config.weights and weights not in ("hub", "none"):
        if not Path(weights).is_file():
            raise InputError(
                f"weights: {weights} is not a file; use a .safetensors file, hub or none"
            )
        weights = workspace.file_digest(Path(weights))
    used = hashes.of(rows, mapped, weighted=config.uses_maps) + workspace.validation_hash()
    if selects_by_swaps(workspace):
        used += SWAPPED
    if config.guided_by_masks or (config.uses_maps and guided_by_marks(config)):
        # Classes with marks determine the masks; beside human maps, examined images as well.
        annotated, examined = workspace.human_maps_from(config), workspace.manifest.annotated_mask
        judged = (examined & annotated if keeps_human else examined)[rows]
        used += digest([marked_classes(workspace.manifest, annotated), judged.tolist()])
    if config.labels == "marks" and not config.guided_by_masks:
        marked = hashes.has_map[rows] & workspace.human_maps_from(config)[rows]
        used += digest(marked.tolist())  # which are the labels
    used += files_digest(config.backbone_args)
    if config.network is not None:
        used += source_digest(config.network.factory) + files_digest(config.network.args)
    if config.guided and ":" in config.training.method:
        used += source_digest(config.training.method)
    return run_id(config, used, weights)


def run_id(config: RunConfig, rows_hash: str, weights_hash: str) -> str:
    """Id of a run from its config and content hashes."""
    values = identity_values(config, config.uses)
    values.setdefault("training", {})
    if not config.guided:
        values["guided"] = False  # otherwise equal to a guided run with defaults
    elif (method := method_of(config.training)) is not None:
        # Resolved: the settings of a preset may change, and defaults as well.
        settings = method.settings() | {"numerics": method.numerics}
        values["training"] |= {"method": settings, "preset": None}
    return digest([values, rows_hash, weights_hash, NUMERICS])


def files_digest(arguments: Mapping[str, Any]) -> str:
    """Hash of the files named in arguments, also in lists and mappings; "" without any."""
    named = {
        key: file_digest(Path(value))
        for key, value in _flat(arguments)
        # Not Path.is_file, which raises on a text that is too long to be a name.
        if isinstance(value, str | Path) and os.path.isfile(value)  # noqa: PTH113
    }
    return digest(named) if named else ""


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values with their keys, joined by dots; an element of a list has its number."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, list | tuple):
            yield from _flat({str(i): item for i, item in enumerate(value)}, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def build(workspace: Workspace, config: RunConfig) -> GuidedModel:
    """Initial model of a run."""
    classes = workspace.manifest.classes
    if len(classes) == 2 and config.positive is None:
        raise InputError(f"positive is missing; set it to one of the classes {classes}")
    unknown = sorted(set(config.guide_classes or ()) - set(classes))
    if unknown:
        raise InputError(
            f"guide_classes: {unknown} not among the classes {classes}; remove or correct them"
        )
    return build_for(config, classes)


def build_for(
    config: RunConfig, classes: Sequence[str], *, load_weights: bool = True
) -> GuidedModel:
    """Initial model of a run config."""
    if config.labels == "marks" and len(classes) != 2:
        config, classes = config.model_copy(update={"positive": MARKS[1]}), MARKS
    training = config.training
    if training.frozen is not None and config.weights == "none":
        raise InputError(
            f"frozen is {training.frozen}, and weights is none: random weights would be kept; give "
            "weights of the network, or leave frozen out"
        )
    model = build_model(
        config.backbone,
        classes,
        positive=config.positive,
        weights=config.weights if load_weights else "none",
        # Those of a run are a mapper's, whose head has other outputs.
        new_head=config.weights_identity is not None,
        in_chans=training.in_chans,
        input_size=training.input_size,
        fit=training.fit,
        backbone_args=config.backbone_args,
        head=training.head,
        cam_source=training.cam_source,
        pool=Pool(training.pool, training.pool_top),
        network=config.network,
    )
    if training.frozen is not None:
        freeze(model, training.frozen)
    return model


def method_of(training: Training) -> Guidance | None:
    """Guidance method that computes the loss; None = a distance of maps."""
    if not training.by_method:
        return None
    preset = training.preset
    settings = {"preset": preset} if isinstance(preset, str) else dict(preset or {})
    return guidance_method(training.method, **settings)


def image_formats(config: RunConfig) -> list[ImageFormat]:
    """Image formats that a run reads from the cache, for training and for scoring; empty without a
    cache, and for a model that cannot be built (`build` reports this).
    """
    if config.training.cache == "none":
        return []
    size = config.training.input_size
    if size is None:
        anyhow = config.model_copy(update={"positive": None})
        try:
            size = build_for(anyhow, ("a", "b"), load_weights=False).spec.input_size
        except InputError:
            return []
    form = config.training.image_format(size)
    return [form, replace(form, canvas=None)]


def guided_rows(workspace: Workspace, config: RunConfig, model: GuidedModel) -> Rows:
    """Training rows of a run, with map targets."""
    training, manifest = config.training, workspace.manifest
    form = training.image_format(model.spec.input_size)
    which = workspace.training_rows(config)
    grid = model.guidable_grid() if config.guided else model.grid()
    if training.augmentation.quarter_turns and grid[0] != grid[1]:
        raise InputError(f"quarter_turns need maps with equal sides, not {grid}; set it to false")
    images = workspace.images(form, training.cache)
    targets = build_map_targets(config, manifest, images, which, workspace.human_maps_from(config))
    rows = workspace.rows(which, form, cache=training.cache, targets=targets, grid=grid)
    if config.labels == "class":
        return rows
    marked = (manifest.map_mask & workspace.human_maps_from(config))[which]
    positive = model.spec.positive_index
    return replace(rows, labels=np.where(marked, positive, 1 - positive))


def pixels_needed(config: RunConfig) -> str:
    """Why features of its images and their mirror images do not do for a run; "" = they do."""
    training, plain = config.training, Augmentation()
    if training.cache == "none":
        return "cache is none"
    free = {"flip"} | (set() if config.changes_outside else {"outside", "outside_rate"})
    for name in type(plain).model_fields:
        if name not in free and getattr(training.augmentation, name) != getattr(plain, name):
            return f"augmentation.{name} changes images"
    method = method_of(training) if config.guided else None
    if method is not None and not method.needs <= {"map", "layers"}:
        return f"{method.name} changes images or differentiates by them"
    return ""


_FEATURE_BATCH = 32  # images; always as many, since a kernel may round by the size of its batch


def trained_part(
    config: RunConfig,
    workspace: Workspace,
    model: GuidedModel,
    rows: Rows,
    validation: Mapping[str, Rows],
    tell: Callable[[str], None],
) -> tuple[GuidedModel, Rows, dict[str, Rows]]:
    """What is trained of a model: all, or what follows cached features of its frozen part; and the
    rows and validation sets that it takes.

    Features of images, and of the mirror images of `rows`, are computed where the cache has none.

    Raises:
        InputError: The features do not fit on the disk, or into half precision.
    """
    if not model.frozen:
        return model, rows, {**validation}
    parts, settings, device = cut(model, model.frozen[-1]), config.training, model.device
    layer = parts.layer.name

    def features_of(pixels: Tensor) -> Tensor:
        return parts.features(to_device(pixels, device, settings.channels_last))

    if why := pixels_needed(config):
        batch, started = rows.batch(np.arange(settings.batch_size) % len(rows)), time.perf_counter()
        features_of(batch.images)
        cost = f"for every batch ({time.perf_counter() - started:.2g} s)"
        tell(f"frozen: features up to {layer} are computed {cost}, since {why}")
        return model, rows, {**validation}
    key = digest([parts.digest(), settings.threads, settings.channels_last, device.type])
    channels, *grid = parts.upper.takes
    sets = {name: one for name, one in validation.items() if name != SWAPPED}  # not on the disk
    every = np.unique(np.concatenate([rows.rows, *(one.rows for one in sets.values())]))
    mirrored = rows.rows if settings.augmentation.flip else rows.rows[:0]
    found: list[NDArray[Any]] = []
    for which, kind in ((every, "images"), (mirrored, "mirror images")):
        images = workspace.rows(which, model.spec.image_format, cache=settings.cache)
        mirror, name = kind != "images", f"features-{key}-{kind.replace(' ', '-')}-v1"
        store = Store(workspace.cache_dir, name, (*grid, 2 * channels))  # of bytes

        def make(part: NDArray[np.int64], images: Rows = images, mirror: bool = mirror) -> Any:
            pixels = images.batch(np.resize(part, _FEATURE_BATCH)).images
            features = features_of(pixels.flip(3) if mirror else pixels)[: len(part)].half()
            if not features.isfinite().all():
                raise InputError(
                    f"frozen: features of {layer} are too large for half precision; name another "
                    "layer, or set cache: none"
                )
            return features.permute(0, 2, 3, 1).contiguous().cpu().numpy().view(np.uint8)

        def told(count: int, kind: str = kind) -> None:
            tell(f"frozen: features of {count:,} {kind} up to {layer} are computed once")

        positions, hashes = np.full(len(workspace.manifest), -1), workspace.contents.images[which]
        positions[which] = fill(store, hashes, make, _FEATURE_BATCH, told)
        found += [store.pixels().view(np.float16), positions]
    features = Features(*found)
    scored = {name: replace(one, features=features) for name, one in sets.items()}
    if (swapped := validation.get(SWAPPED)) is not None:
        if (SWAPPED, key) not in workspace.kept:
            order = np.arange(len(swapped))
            made = [
                make(order[start : start + _FEATURE_BATCH], swapped, False)
                for start in range(0, len(order), _FEATURE_BATCH)
            ]
            whole = np.concatenate(made).view(np.float16)
            workspace.kept[SWAPPED, key] = Features(whole, order, whole[:0], order[:0])
        scored[SWAPPED] = replace(swapped, features=workspace.kept[SWAPPED, key])
    return parts.upper, replace(rows, features=features), scored


_WARM, _TIMED = 2, 5
_LEAST = 1.0  # seconds of timed steps: five quick ones say little on a busy machine


# What another job of a study does meanwhile: cores that share a unit or memory are slower then.
_BUSY = """
import time, numpy
a, end = numpy.ones((128, 128), "f"), time.monotonic() + 60
while time.monotonic() < end: a @ a
"""


@contextlib.contextmanager
def _busy_processes(count: int, threads: int) -> Iterator[None]:
    """Context in which other processes compute."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [sys.executable, "-P", "-c", _BUSY]
    with contextlib.ExitStack() as stack:
        for _ in range(count):  # Ctrl-C ends them with this process, and they say nothing
            worker = subprocess.Popen(command, env=environment, start_new_session=True)
            stack.callback(worker.wait)
            stack.callback(worker.kill)
        yield


def step_seconds(config: RunConfig, classes: Sequence[str], jobs: int = 1) -> float:
    """Seconds of a guided training step on random images; infinite if memory runs out.

    `jobs` is the number of processes that compute at the same time.
    """
    settings = config.training
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(settings.threads)
    fix_order_of_sums()
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    times: list[float] = []
    try:
        with _busy_processes(0 if cuda else jobs - 1, settings.threads):
            for seconds in _steps(config, classes, device):
                times.append(seconds)
                enough = len(times) >= _WARM + _TIMED and sum(times[_WARM:]) >= _LEAST
                if enough or (len(times) >= 2 and sum(times) >= 4 * _LEAST):
                    break
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return math.inf
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(random)
        release_memory(device)  # of a GPU, which the process of a study shares with its workers
    return median(times[_WARM:] or times[1:])


def _steps(config: RunConfig, classes: Sequence[str], device: torch.device) -> Iterator[float]:
    """Seconds of guided training steps, without end."""
    settings = config.training
    model = build_for(config, classes, load_weights=False).to(device)
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.frozen and not pixels_needed(config):
        model = cut(model, model.frozen[-1]).upper
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    side, batch = model.spec.input_size, settings.batch_size
    shape = model.takes or (settings.in_chans, side, side)
    images = torch.randint(0, 256, (batch, *shape), device=device)
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % len(model.spec.classes)
    while True:
        started = time.perf_counter()
        with autocast(device, settings.precision):
            out = model(model.preprocess(images.to(torch.uint8)), labels)
        loss = torch.nn.functional.cross_entropy(out.logits.float(), labels)
        (loss + out.saliency.std()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - started
