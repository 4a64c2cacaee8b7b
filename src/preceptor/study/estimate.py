"""How long a study will take on this machine: measured on a few steps, not guessed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median

import torch

from preceptor.config import RunConfig
from preceptor.models import build_model
from preceptor.study.graph import Step
from preceptor.study.settings import StudyConfig

# A forward is about a third of a training step.
FORWARD_SHARE = 1 / 3
_WARM, _TIMED = 2, 5
_LEAST = 1.0  # seconds of timed steps: five quick ones say little on a busy machine
_rates: dict[str, float] = {}  # measured in this process, so that two stages agree


def training_rate(config: RunConfig, classes: Sequence[str]) -> float:
    """Images a second of guided training: the median step on random images.

    Args:
        config: Backbone, size, batch, threads and precision are used; weights are not loaded.
        classes: Class names.
    """
    settings = config.training
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    try:
        model = build_model(
            config.backbone,
            classes,
            in_chans=settings.in_chans,
            input_size=settings.input_size,
            backbone_args=config.backbone_args,
        ).to(device)
        if settings.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        side, batch = model.spec.input_size, settings.batch_size
        images = torch.randint(0, 256, (batch, settings.in_chans, side, side), device=device)
        labels = torch.arange(batch, device=device) % len(classes)
        times: list[float] = []
        while len(times) < _WARM + _TIMED or sum(times[_WARM:]) < _LEAST:
            started = time.perf_counter()
            with torch.autocast(device.type, enabled=settings.precision != "32-true"):
                out = model(model.preprocess(images.to(torch.uint8)), labels)
            loss = torch.nn.functional.cross_entropy(out.logits.float(), labels)
            loss = loss + out.saliency.std()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return batch / median(times[_WARM:])


def estimate_seconds(
    steps: Sequence[Step], study: StudyConfig, classes: Sequence[str], validation: int, jobs: int
) -> float:
    """Wall time of these steps on `jobs` workers.

    Args:
        steps: Of a plan.
        study: Their config.
        classes: Class names.
        validation: Validation images scored after each epoch.
        jobs: Workers at once.
    """
    seconds = 0.0
    for step in steps:
        if step.run is None:
            continue
        run = step.run
        key = repr((run.backbone, run.backbone_args, run.training, len(classes)))
        if key not in _rates:
            _rates[key] = training_rate(run, classes)
        images = step.cost
        if step.kind == "train":
            images += FORWARD_SHARE * validation * (study.training.epochs + 1)
        seconds += images / _rates[key]
    return seconds / max(jobs, 1)


def count_kinds(steps: Sequence[Step]) -> str:
    """ "12 trainings, 3 markings" of a list of steps."""
    names = {
        "train": "training", "annotate": "marking", "committee": "committee",
        "evaluate": "test scoring", "select": "selection",
    }  # fmt: skip
    counts = Counter(step.kind for step in steps)
    return ", ".join(
        f"{count} {names[kind]}{'s' if count != 1 else ''}" for kind, count in counts.items()
    )


def as_time(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> as_time(5400), as_time(40)
        ('1.5 hours', '40 seconds')
    """
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 90:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.0f} seconds"
