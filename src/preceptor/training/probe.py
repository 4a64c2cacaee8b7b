"""Time of a guided training step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median

import torch

from preceptor.config.run import RunConfig
from preceptor.config.training import Speed
from preceptor.models.precision import autocast
from preceptor.training.prepare import build_for
from preceptor.utils.memory import fix_order_of_sums, out_of_memory, release_memory

_WARM, _TIMED = 2, 5
_LEAST = 1.0  # seconds of timed steps: five quick ones say little on a busy machine


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


def has_bf16(device: str) -> bool:
    """Whether the device supports bf16 natively."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.backends.cpu.get_cpu_capability()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return known.startswith("AVX512") and bool(probe and probe())
