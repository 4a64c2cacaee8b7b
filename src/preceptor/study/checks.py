"""Checks of a study before training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from preceptor.config.training import Training
from preceptor.data.notes import primary_problems, selection_problems, small_marks
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.maps.placed_maps import check_matches
from preceptor.maps.principal_components import too_few_for_components
from preceptor.models.build import with_pool
from preceptor.models.guided_model import GuidedModel
from preceptor.models.spec import Pool
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import annotated_seed_of, plain_run
from preceptor.study.shared_images import shared_images
from preceptor.study.teacher import all_teachers_of, teachers_of
from preceptor.study.teacher_runs import MEMBER_STRIDE
from preceptor.study.workspaces import Workspaces
from preceptor.training.last_layer import check_images, check_last_layer
from preceptor.training.prepare import build_for
from preceptor.training.run import training_device

# Share of marks under half a cell from which on a grid is noted as coarse.
COARSE_SHARE = 0.25
# Arguments of a backbone that make its grid finer.
_FINER = {"output_stride": 8, "decoder": "fpn"}


def check_study(
    study: StudyConfig,
    workspaces: Workspaces,
    *,
    networks: bool = True,
    maps_cached: bool = False,
) -> list[str]:
    """Check a study before training; all problems are reported together.

    Args:
        study: Study config of one domain.
        workspaces: Manifests of the study.
        networks: Whether to build each backbone, which takes most of the time; if False, only the
            config and the data are checked.
        maps_cached: Whether the human maps are cached, so that their marks are compared with the
            grids of the networks.

    Returns:
        Notes on grids that are coarse compared with the human marks, and on images that the
        manifests of several seeds share.

    Raises:
        InputError: The primary set or a class is unknown, annotations or maps are missing, or a
            backbone or its weights cannot be used.
    """
    problems = list(_problems(study, workspaces))
    notes: list[str] = []
    if networks:
        for backbone in study.backbone_names:
            try:
                model = build_for(plain_run(study, backbone), workspaces.first.manifest.classes)
                grid = model.guidable_grid()
                if "dfr" in study.controls and backbone in study.students:
                    check_last_layer(with_pool(model, Pool()))
                if maps_cached:
                    notes += _coarse_grid(model, grid, study.training, workspaces.first)
            except InputError as error:
                problems.append(str(error))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n  ".join(problems)
        raise InputError(f"the study has {len(problems)} problems\n  {lines}")
    shared = shared_images(workspaces)
    return notes if shared is None else [*notes, shared.note]


def check_devices(training: Training) -> None:
    """Check that this machine has the device and supports the precision of the training.

    Args:
        training: Training settings of the study; settings that are auto are not checked.

    Raises:
        InputError: The device does not exist or does not support the precision.
    """
    training_device(training.without_auto())


def _problems(study: StudyConfig, workspaces: Workspaces) -> Iterator[str]:
    manifest = workspaces.first.manifest
    classes, tests = manifest.classes, manifest.eval_splits("test")
    if study.primary is not None and study.primary not in tests:
        yield f"primary: {study.primary!r} is not one of the test sets {tests}"
    if len(classes) == 2 and study.positive is None:
        yield f"positive: name which of {classes} is the positive class"
    if study.positive is not None and study.positive not in classes:
        yield f"positive: {study.positive!r} is not among {classes}"
    if study.mapper is not None and len(classes) != 2:
        yield f"mapper: needs two classes, and there are {len(classes)}; set mapper: false"
    for backbone in study.students if study.starts_from_mapper else ():
        if study.backbone_args.get(backbone, {}).get("decoder", "none") != "none":
            yield (
                f"mapper: start needs the weights of a plain backbone, and backbone_args has a "
                f"decoder of {backbone}; set start: false, or remove the decoder"
            )
    teachers = [str(one) for one in all_teachers_of(study)]
    unknown = sorted({*study.excluded_teachers} - {*teachers})
    if unknown:
        known = "; ".join(teachers)
        yield f"excluded_teachers: {', '.join(unknown)}: not among the Teachers {known}"
    elif not teachers_of(study):
        yield "excluded_teachers: no Teacher is left; remove some"
    for seed in study.seed_list if study.draws else study.seed_list[:1]:
        one = workspaces.of(seed).manifest
        where = f"{study.manifest_of(seed)}: " if study.draws else ""
        negatives = study.validation_negatives
        primary = study.primary if study.primary is not None else tests[0]
        for problem in (*selection_problems(one, negatives), *primary_problems(one, primary)):
            yield f"{where}{problem}"
    levers = {"": study.guiding()} | {
        f"variants.{name}.": study.guiding(variant) for name, variant in study.variants.items()
    }
    for where, guiding in levers.items():
        unknown = sorted(set(guiding.guide_classes or ()) - set(classes))
        if unknown:
            yield f"{where}guide_classes: {unknown} not among the classes {classes}"
    crowded = any(guiding.committee > 1 for guiding in levers.values())
    if crowded and max(study.seed_list) >= MEMBER_STRIDE:
        yield (
            f"seeds: committees need seeds below {MEMBER_STRIDE}, since their members have the "
            f"seeds {MEMBER_STRIDE} and up"
        )
    for size in study.budgets:
        for seed in study.first_seeds:
            workspace = workspaces.of(seed)
            try:
                drawn = workspace.drawn(size, study.annotated_seed + seed)
            except InputError as error:
                yield f"budget: {error}"
                break
            if not (drawn & workspace.manifest.map_mask).any():
                yield f"budget: none of the {size} images drawn for seed {seed} has a human map"
                break
    if "pca" in study.controls:
        for seed in study.seed_list if study.draws else study.seed_list[:1]:
            images = int(workspaces.of(seed).train_mask.sum())
            problem = too_few_for_components(images, study.pca_components)
            if problem:
                yield f"controls: pca: {problem} (pca_components)"
                break
    if study.dfr_set is not None:
        for seed in study.seed_list if study.draws else study.seed_list[:1]:
            try:
                check_images(workspaces.of(seed).manifest, study.dfr_set)
            except InputError as error:
                yield f"dfr_set: {error}"
                break
    for name, path in study.maps.items():
        if not path.is_dir():
            yield f"maps.{name}: {path} is not a folder"
            continue
        for seed in study.seed_list if study.draws else study.seed_list[:1]:
            opened = workspaces.of(seed)
            names = opened.manifest.table.loc[opened.train_mask, "name"]
            try:
                check_matches(path, names.to_numpy(object))
            except InputError as error:
                yield f"maps.{name}: {str(error).removeprefix('maps: ')}"
                break
    every = study.annotated_per_seed or study.draws
    for seed in study.seed_list if every else study.seed_list[:1]:
        workspace = workspaces.of(seed)
        try:
            mask = workspace.drawn(study.annotated, annotated_seed_of(study, seed))
        except InputError as error:
            yield str(error)
            break
        if not (mask & workspace.manifest.map_mask).any():
            yield "annotated: none of the annotated training images has a human map"
            break


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
