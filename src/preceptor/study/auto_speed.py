"""Choice of precision and memory layout by a probe, once for all runs of a store.

    store/speed/ID.json

The choice changes rounding and is therefore part of the ids of runs. Studies of one store have the
same one, so that they share their runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, get_args

from preceptor.config.identity import Use, identity_values
from preceptor.config.run import RunConfig
from preceptor.config.training import Speed, Training
from preceptor.config.yaml_file import load_config
from preceptor.data.manifest import Manifest
from preceptor.errors import InputError
from preceptor.runtime.leases import lease
from preceptor.runtime.result_folder import digest, write_atomically
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import plain_run
from preceptor.training.probe import choose_speed

# Shorter trainings, in steps, have the defaults: a probe takes up to 30 steps and a second for each
# combination, more than it can save them.
_PROBED_FROM = 100


class Measure(Protocol):
    """Function that chooses the fastest settings of a run, as `probe.choose_speed` does."""

    def __call__(
        self,
        config: RunConfig,
        classes: Sequence[str],
        *,
        free: Sequence[str],
        tell: Callable[[str], None],
    ) -> Speed:
        """Precision and memory layout."""
        ...


def decide_speed(
    study: StudyConfig,
    manifests: Sequence[Manifest],
    store: Path,
    before: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probe: bool = True,
    measure: Measure | None = None,
) -> StudyConfig:
    """Study config with `speed` for every backbone, if any training setting is auto.

    Args:
        study: Study config.
        manifests: One manifest per domain: the probe uses the largest number of classes, and the
            mean number of training steps decides whether it is worthwhile.
        store: Folder of runs, with the choices of all studies that share it.
        before: Resolved config of an earlier call, or None. Its choices are kept, so that the ids
            of runs do not depend on variations of the machine's speed.
        tell: Function that receives the measurements.
        probe: Whether to measure open choices. If False, and for trainings of less than 100 steps,
            the defaults of `Speed` take their place.
        measure: Function that measures; None = `choose_speed`.
    """
    free = study.training.left_to_probe
    if not free:
        return study
    # One choice per backbone for all domains: the probe must be worthwhile on average.
    steps = mean(_steps(study.training, int(one.train_mask.sum())) for one in manifests)
    classes = max((one.classes for one in manifests), key=len)
    earlier = _earlier(study, before)
    known = earlier | dict(study.speed)

    def choice(backbone: str) -> Speed:
        if backbone in earlier:  # of a folder whose store has none
            return earlier[backbone]
        tell(f"{backbone}: measuring the speed of a step ({', '.join(free)} is auto)")
        return (measure or choose_speed)(plain_run(study, backbone), classes, free=free, tell=tell)

    for backbone in study.backbone_names:
        if backbone in study.speed:
            continue
        file = store / "speed" / f"{_key(study, backbone)}.json"
        if steps < _PROBED_FROM:
            known.setdefault(backbone, Speed())
        elif not probe:
            known.setdefault(backbone, _stored(file) or Speed())
        else:
            stored = _stored(file) or _chosen_once(file, partial(choice, backbone))
            known.setdefault(backbone, stored)
    return study.model_copy(update={"speed": known})


def _earlier(study: StudyConfig, before: Path | None) -> dict[str, Speed]:
    """Choices of an earlier call with the same training settings."""
    if before is None or not before.is_file():
        return {}
    try:
        earlier = load_config(before, StudyConfig)
    except InputError:  # damaged, or of another version
        return {}
    same = _settings(earlier.training) == _settings(study.training)
    return dict(earlier.speed) if same else {}


def _key(study: StudyConfig, backbone: str) -> str:
    """Identifier of the backbone and of all settings that the choice may depend on."""
    network = study.backbones.get(backbone)
    how = None if network is None else network.model_dump(mode="json")
    arguments = study.backbone_args.get(backbone, {})
    return digest([backbone, arguments, how, _settings(study.training)])


def _settings(training: Training) -> dict[str, Any]:
    """Settings that are part of the ids of runs."""
    return identity_values(training, get_args(Use))


def _stored(file: Path) -> Speed | None:
    """Choice of an earlier study of the store; None without a sound file."""
    try:
        return Speed.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None


def _chosen_once(file: Path, choice: Callable[[], Speed]) -> Speed:
    """Choice of the process that comes first; the others wait for it."""
    with lease(file):
        found = _stored(file)
        if found is None:
            found = choice()
            write_atomically(file, found.model_dump_json() + "\n")
    return found


def _steps(training: Training, images: int) -> int:
    """Number of steps of a run on all images."""
    return training.steps or training.epochs * math.ceil(images / training.batch_size)
