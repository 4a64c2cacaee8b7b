"""Output of `preceptor doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict

from preceptor.cli.installation import Installation
from preceptor.errors import Problem
from preceptor.utils.results import strict_json
from preceptor.utils.text import gibibytes

_WIDTH, _NAME = 80, 20


def as_json(found: Installation) -> str:
    """State of an installation as JSON."""
    return strict_json(asdict(found))


def as_text(found: Installation) -> str:
    """State of an installation as lines of at most 80 characters, problems last."""
    lines = [f"preceptor {found.version}, Python {found.python}, {found.system}", ""]
    for name, value in _values(found):
        lines += textwrap.wrap(
            f"{name:<{_NAME}}{value}",
            _WIDTH,
            subsequent_indent=" " * _NAME,
            break_on_hyphens=False,
        )
    problems = [("broken", one) for one in found.broken] + [("note", one) for one in found.notes]
    lines.append("")
    for text in found.advice:
        lines += textwrap.wrap(f"advice: {text}", _WIDTH, subsequent_indent=" " * 8)
    for kind, problem in problems:
        lines += _wrapped(kind, problem)
    lines.append(
        "Something that training needs is broken." if found.broken else "Training works here."
    )
    return "\n".join(lines)


def _values(found: Installation) -> Iterator[tuple[str, str]]:
    for package in found.packages:
        yield package.name, f"{package.version or 'not installed'} ({package.required} is needed)"
    if found.devices is not None:
        cores = found.devices.cores
        yield "CPU", f"{cores} core{'s' if cores != 1 else ''}, {found.devices.instructions}"
        for gpu in found.devices.gpus:
            memory = f"{gibibytes(gpu.memory)}, {gibibytes(gpu.free)} free"
            yield "GPU", f"{gpu.name}, {memory}, CUDA {found.devices.cuda}"
        if not found.devices.gpus:
            yield "GPU", "none; training uses the CPU"
    for one in found.speed:
        if one.images is None:
            yield "speed", f"not measured with {one.setting} (resnet18)"
            continue
        rate = f"{one.images:.0f}" if one.images >= 10 else f"{one.images:.2g}"
        yield "speed", f"{rate} images/s with {one.setting} (resnet18)"
    for folder in found.folders:
        yield folder.use, f"{gibibytes(folder.free)} free, {folder.path}"
    for extra in found.extras:
        missing = f"without {', '.join(extra.missing)}: {extra.install}"
        yield f"extra {extra.name}", missing if extra.missing else "installed"
    yield "model hub", f"{found.hub.address}{'' if found.hub.reachable else ', no answer'}"


def _wrapped(kind: str, problem: Problem) -> list[str]:
    """Lines of a problem, and what to do about it."""
    indent = " " * (len(kind) + 2)
    what = textwrap.wrap(
        f"{kind}: {problem.where}: {problem.what}",
        _WIDTH,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    fix = textwrap.wrap(
        f"what to do: {problem.fix}",
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [*what, *fix]
