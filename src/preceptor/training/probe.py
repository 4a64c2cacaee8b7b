"""How fast a guided step is here, and which precision, memory layout and compiler make it faster.

A probe of a few steps decides once a study, by backbone: bf16 helps convolutions of many channels
on processors that have it and hurts depthwise ones; channels-last helps nearly everywhere on a CPU.
What it chose stands in the study's resolved config, since it changes rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from preceptor.config.run import Precision, RunConfig, Speed
from preceptor.models.precision import autocast
from preceptor.training.prepare import build_for

_WARM, _TIMED = 2, 5
_LEAST = 1.0  # seconds of timed steps: five quick ones say little on a busy machine
# bf16 has 8 bits of mantissa: it must earn them. So must a compiler that may differ between
# machines. Below this gain the plain way stays.
_GAIN = 0.9
# Compiling takes from half a minute to some minutes for each run, so that a run must be this long
# before it is tried.
_COMPILE_FROM = 1200.0


def step_seconds(
    config: RunConfig, classes: Sequence[str], speed: Speed, *, give_up: float = float("inf")
) -> tuple[float, float]:
    """Seconds of a guided training step on random images, and of the first one.

    Args:
        config: Backbone, size, batch, threads and device are used; weights are not loaded.
        classes: Class names.
        speed: How it is computed.
        give_up: Stop after the warm-up if its last step took longer than this; that is returned.

    Returns:
        The median step and the first, which compiles where that is asked for.
    """
    settings = config.training
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(settings.threads)
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    try:
        model = build_for(config, classes, load_weights=False).to(device)
        if speed.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if speed.compile:
            model.compile_trunk()
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        side, batch = model.spec.input_size, settings.batch_size
        images = torch.randint(0, 256, (batch, settings.in_chans, side, side), device=device)
        if speed.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(batch, device=device) % len(classes)
        times: list[float] = []
        while len(times) < _WARM + _TIMED or sum(times[_WARM:]) < _LEAST:
            started = time.perf_counter()
            with autocast(device, speed.precision):
                out = model(model.preprocess(images.to(torch.uint8)), labels)
            loss = torch.nn.functional.cross_entropy(out.logits.float(), labels)
            (loss + out.saliency.std()).backward()
            optimiser.step()
            optimiser.zero_grad()
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
            if len(times) == _WARM and times[-1] > give_up:
                break
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(random)
    return median(times[_WARM:] or times[-1:]), times[0]


def choose_speed(
    config: RunConfig,
    classes: Sequence[str],
    *,
    free: Sequence[str],
    steps: float,
    tell: Callable[[str], None] = lambda line: None,
) -> Speed:
    """The fastest way to train this run here.

    Args:
        config: The run; what it says of precision, layout and compiler stays where it is not free.
        classes: Class names.
        free: Which of precision, channels_last and compile are to be chosen.
        steps: Length of the run, or the mean length of several; compiling must pay within it.
        tell: Receives what was measured, in a line.
    """
    training = config.training
    precisions: list[Precision] = [training.speed.precision]
    if "precision" in free:
        precisions = ["32-true", "bf16-mixed"] if _has_bf16(training.device) else ["32-true"]
    layouts = [True, False] if "channels_last" in free else [training.speed.channels_last]
    always = "compile" not in free and training.speed.compile
    measured: dict[Speed, float] = {}
    for precision in precisions:
        for layout in layouts:
            speed = Speed(precision=precision, channels_last=layout, compile=always)
            best = min(measured.values(), default=float("inf"))
            measured[speed], _ = step_seconds(config, classes, speed, give_up=2 * best)
    plain = min((s for s in measured if s.precision == precisions[0]), key=lambda s: measured[s])
    chosen = min(measured, key=lambda s: measured[s])
    if measured[chosen] > _GAIN * measured[plain]:
        chosen = plain
    if "compile" in free and measured[chosen] * steps > _COMPILE_FROM:
        compiled = chosen.model_copy(update={"compile": True})
        try:
            seconds, first = step_seconds(config, classes, compiled)
        except Exception as error:  # no compiler on this machine, or a network that it cannot take
            tell(f"{config.backbone}: torch.compile: {' '.join(str(error).split())[:120]}")
        else:
            measured[compiled] = seconds
            if seconds * steps + first < _GAIN * measured[chosen] * steps:
                chosen = compiled
    said = ", ".join(f"{speed.words} {seconds:.3f} s" for speed, seconds in measured.items())
    tell(f"{config.backbone}: {chosen.words} ({said} a step)")
    return chosen


def _has_bf16(device: str) -> bool:
    """Whether bf16 is more than emulated here."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.backends.cpu.get_cpu_capability()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return known.startswith("AVX512") and bool(probe and probe())
