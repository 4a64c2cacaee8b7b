"""Speed probe: time of a guided step, and choice of precision and memory layout.

A probe of a few steps decides once per store and backbone: bf16 is faster for convolutions with
many channels on processors with bf16 instructions and slower for depthwise ones; channels-last is
faster in nearly all cases on a CPU. The choice is kept, see `study.auto_speed`, since it changes
rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from preceptor.config.run import RunConfig
from preceptor.config.training import Precision, Speed
from preceptor.models.precision import autocast
from preceptor.runtime.memory import fix_order_of_sums, out_of_memory, release_memory
from preceptor.training.prepare import build_for

_WARM, _TIMED = 2, 5
_LEAST = 1.0  # seconds of timed steps: five quick ones say little on a busy machine
# bf16 has only 8 bits of mantissa: it is used only if it gains at least this factor.
_GAIN = 0.9
# Two measurements of equal settings differ by some percent. A memory layout other than the first is
# used only if its steps take less than this share of the time.
_LAYOUT_GAIN = 0.95


def step_seconds(
    config: RunConfig,
    classes: Sequence[str],
    speed: Speed,
    *,
    give_up: float = math.inf,
    limit: float = math.inf,
) -> float:
    """Time of a guided training step on random images, in seconds.

    Args:
        config: Config with backbone, size, batch, threads and device; weights are not loaded.
        classes: Class names.
        speed: Precision and memory layout.
        give_up: Stop after the warm-up if its last step took longer than this, in seconds.
        limit: Seconds after which no further step begins; there is always a first one.

    Returns:
        Median; infinite if memory runs out, NaN if no step after the warm-up ended in time.
    """
    settings = config.training
    end = time.perf_counter() + limit
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(settings.threads)
    fix_order_of_sums()
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    found = math.inf
    try:
        found = _timed_steps(config, classes, speed, device, give_up, end)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(random)
    release_memory(device)  # of a GPU, which the process of a study shares with its workers
    return found


def _timed_steps(
    config: RunConfig,
    classes: Sequence[str],
    speed: Speed,
    device: torch.device,
    give_up: float,
    end: float,
) -> float:
    settings = config.training
    model = build_for(config, classes, load_weights=False).to(device)
    if speed.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
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
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if len(times) == _WARM and times[-1] > give_up:
            break
        if time.perf_counter() >= end:
            return median(times[_WARM:] or [math.nan])
    return median(times[_WARM:] or times[-1:])


def choose_speed(
    config: RunConfig,
    classes: Sequence[str],
    *,
    free: Sequence[str],
    tell: Callable[[str], None] = lambda line: None,
) -> Speed:
    """Choose the fastest settings for a run on this machine.

    Args:
        config: Config of the run; settings that are not in `free` are kept.
        classes: Class names.
        free: Settings to choose among precision and channels_last.
        tell: Function that receives the measurements in one line.
    """
    training = config.training
    precisions: list[Precision] = [training.speed.precision]
    if "precision" in free:
        precisions = ["32-true", "bf16-mixed"] if has_bf16(training.device) else ["32-true"]
    layouts = [True, False] if "channels_last" in free else [training.speed.channels_last]
    measured: dict[Speed, float] = {}
    for precision in precisions:
        for layout in layouts:
            speed = Speed(precision=precision, channels_last=layout)
            best = min(measured.values(), default=float("inf"))
            measured[speed] = step_seconds(config, classes, speed, give_up=2 * best)
    plain, *reduced = [_layout_of(precision, measured) for precision in precisions]
    chosen = min([plain, *reduced], key=lambda s: measured[s])
    if measured[chosen] > _GAIN * measured[plain]:
        chosen = plain
    said = ", ".join(f"{speed.words} {_told(seconds)}" for speed, seconds in measured.items())
    tell(f"{config.backbone}: {chosen.words} ({said} per step)")
    return chosen


def _layout_of(precision: Precision, measured: Mapping[Speed, float]) -> Speed:
    """Settings of a precision with the first memory layout, unless another is clearly faster."""
    first, *others = (speed for speed in measured if speed.precision == precision)
    return next((s for s in others if measured[s] < _LAYOUT_GAIN * measured[first]), first)


def _told(seconds: float) -> str:
    return f"{seconds:.3f} s" if math.isfinite(seconds) else "out of memory"


def has_bf16(device: str) -> bool:
    """Whether the device supports bf16 natively."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.backends.cpu.get_cpu_capability()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return known.startswith("AVX512") and bool(probe and probe())
