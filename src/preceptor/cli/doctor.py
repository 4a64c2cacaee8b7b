"""Command `preceptor doctor`: what is installed, how fast it is, what is wrong and what to do.

Nothing that may be missing or broken is imported at the top, so that its state can be described.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import os
import platform
import shutil
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from preceptor.errors import Problem, reason
from preceptor.utils.process import RUN_THREADS, bulk_import, core_count

LEAST_DISK = 10 * 2**30  # bytes: one study with caches, maps and weights
HUB_SECONDS = 3.0  # after which the model hub counts as not reachable
SPEED_SECONDS = 60.0  # after which no further training step is measured
# Where the module is not called as the distribution is.
_MODULES = {"pyyaml": "yaml", "pillow": "PIL"}
# Extras for the development of the library, and for its examples.
_DEVELOPMENT = {"dev", "bench", "docs", "integrations"}
_GAIN = 1.1  # gain in speed that is worth a setting
# Small, with dense convolutions: seconds on a slow CPU, and bf16 shows its speed.
_PROBE: dict[str, Any] = {"backbone": "resnet18", "training": {"input_size": 128, "batch_size": 8}}
_WIDTH, _NAME = 80, 20


@dataclass(frozen=True)
class Package:
    """Required package; `version` is None if it is not installed."""

    name: str
    required: str  # versions, such as >=2.6
    version: str | None
    error: str = ""  # why it cannot be imported


@dataclass(frozen=True)
class Extra:
    """Optional extra, and its packages that are not installed in the version that is needed."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """GPU, with its memory in bytes."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True)
class Devices:
    """Devices of training."""

    cores: int  # that this process may use
    instructions: str  # vector instructions that torch uses on the CPU
    gpus: tuple[Gpu, ...] = ()
    cuda: str | None = None  # version of torch; None if it was built without
    error: str = ""  # why a GPU that is there cannot be used


@dataclass(frozen=True)
class StepTime:
    """Measured training speed in images per second; None if it could not be measured."""

    precision: str
    threads: int
    images: float | None
    error: str = ""

    @property
    def setting(self) -> str:
        """Precision and number of threads in words."""
        return f"{self.precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"


@dataclass(frozen=True)
class Folder:
    """Folder that is written to, with its free bytes."""

    use: str
    path: str
    free: int


@dataclass(frozen=True)
class Hub:
    """Model hub of pretrained weights."""

    address: str
    reachable: bool
    error: str = ""


@dataclass
class Installation:
    """State of an installation: what is broken prevents training, notes do not."""

    version: str
    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=lambda: platform.platform(terse=True))
    packages: list[Package] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)
    devices: Devices | None = None  # None if torch cannot be imported
    speed: list[StepTime] = field(default_factory=list)  # the default setting first
    folders: list[Folder] = field(default_factory=list)
    hub: Hub | None = None
    broken: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def doctor(json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Check the installation, and say how to solve its problems.

    The output has versions, devices, the speed of a short training, disk space, optional extras and
    whether the model hub answers. The exit code is 1 if something that training needs is broken.

    Args:
        json: Print the values as JSON.
    """
    with bulk_import():
        from preceptor.utils.results import strict_json

        found = inspect_installation()
    print(strict_json(asdict(found)) if json else as_text(found))
    if found.broken:
        raise typer.Exit(1)


def inspect_installation() -> Installation:
    """State of this installation; takes some seconds for the measured training steps."""
    from preceptor.utils.files import default_cache_dir
    from preceptor.version import __version__

    found = Installation(__version__)
    hub_answer = HubAnswer()
    try:
        record = importlib.metadata.metadata("preceptor")
        requirements = record.get_all("Requires-Dist") or []
        names = sorted({*(record.get_all("Provides-Extra") or [])} - _DEVELOPMENT)
        _inspect_packages(found, requirements, names)
    except importlib.metadata.PackageNotFoundError:
        fix = "pip install its folder"
        found.broken.append(Problem("preceptor", "is not installed, only on Python's path", fix))
    if not found.broken:
        found.devices = _devices()
        if found.devices.error:
            fix = "training uses the CPU until then; see pytorch.org"
            found.notes.append(Problem("GPU", found.devices.error, fix))
        try:
            found.speed = measured_speed(found.devices, SPEED_SECONDS)
        except Exception as error:  # whatever a broken driver or library raises
            fix = "reinstall torch and torchvision of one release, see pytorch.org"
            what = f"a training step failed: {reason(error)}"
            found.broken.append(Problem("training", what, fix))
    fix = "end other programs that use this machine, and repeat preceptor doctor"
    for one in found.speed:
        if one.images is None:
            found.notes.append(Problem("speed", f"{one.setting}: {one.error}", fix))
    _inspect_folder(found, "current folder", Path.cwd(), "set --out to another folder")
    fix = "set PRECEPTOR_CACHE or --cache-dir to another one"
    _inspect_folder(found, "image caches", default_cache_dir(), fix)
    found.hub = hub_answer.wait()
    if not found.hub.reachable:
        what = f"{found.hub.address}: {found.hub.error}"
        fix = "needed for `weights: hub` only; offline use weights: FILE.safetensors or none"
        found.notes.append(Problem("model hub", what, fix))
    found.advice = advice_on(found.speed)
    return found


def _inspect_packages(found: Installation, requirements: Sequence[str], names: list[str]) -> None:
    """Import every required package, and look for those of the extras (PEP 508)."""
    from packaging.requirements import Requirement

    needed = [Requirement(one) for one in requirements]
    for one in needed:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        version, error = _version(one.name), ""
        install = f"pip install '{one.name}{one.specifier}'"
        if version is None:
            found.broken.append(Problem(one.name, "is not installed", install))
        elif error := _import_error(one.name):
            again = install.replace("install", "install --force-reinstall", 1)
            if one.name in ("torch", "torchvision"):
                again = "install torch and torchvision of one release together, see pytorch.org"
            found.broken.append(Problem(one.name, f"cannot be imported: {error}", again))
        elif not one.specifier.contains(version, prereleases=True):
            what = f"version {version} is not {one.specifier}"
            found.broken.append(Problem(one.name, what, install))
        found.packages.append(Package(one.name, str(one.specifier), version, error))
    for name in names:
        extra = [one for one in needed if one.marker and one.marker.evaluate({"extra": name})]
        missing = [
            one.name
            for one in extra
            if (version := _version(one.name)) is None
            or not one.specifier.contains(version, prereleases=True)
        ]
        found.extras.append(Extra(name, tuple(missing)))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(name: str) -> str:
    """Reason why a package cannot be imported, or ""."""
    try:
        importlib.import_module(_MODULES.get(name.lower(), name.lower().replace("-", "_")))
    except Exception as error:  # a library without its own libraries raises many things
        return reason(error)
    return ""


def _devices() -> Devices:
    import torch

    cuda = torch.version.cuda
    gpus, error = [], ""
    try:
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, memory = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").sum().item()
            gpus.append(Gpu(torch.cuda.get_device_name(index), memory, free))
    except RuntimeError as wrong:
        error = reason(wrong)
    if not gpus and not error and Path("/dev/nvidia0").exists():
        built = "without CUDA" if cuda is None else f"for CUDA {cuda}"
        error = f"there is a GPU, which torch (built {built}) cannot use"
    instructions = torch.backends.cpu.get_cpu_capability()
    return Devices(core_count(), instructions, tuple(gpus), cuda, error)


def measured_speed(devices: Devices, limit: float) -> list[StepTime]:
    """Speed of training steps of a small network: precisions, and on a CPU numbers of threads.

    After `limit` seconds no further step begins; one step is always computed.
    """
    from preceptor.config.run import RunConfig
    from preceptor.config.training import Precision, Speed
    from preceptor.training.prepare import has_bf16, step_seconds

    threads = [RUN_THREADS]
    if not devices.gpus and devices.cores > RUN_THREADS:
        threads.append(devices.cores)
    settings: list[tuple[Precision, int]] = [("32-true", count) for count in threads]
    if has_bf16("auto"):
        settings.append(("bf16-mixed", RUN_THREADS))
    end = time.perf_counter() + limit
    late = f"not measured, since the machine is slow or busy ({limit:g} s are over)"
    found: list[StepTime] = []
    for precision, count in settings:
        left = end - time.perf_counter()
        if found and left <= 0:
            found.append(StepTime(precision, count, None, late))
            continue
        training = {**_PROBE["training"], "threads": count}
        config = RunConfig.model_validate({**_PROBE, "manifest": ".", "training": training})
        seconds = step_seconds(config, ["a", "b"], Speed(precision=precision), limit=left)
        if math.isfinite(seconds):
            found.append(StepTime(precision, count, config.training.batch_size / seconds))
        else:
            error = late if math.isnan(seconds) else "not measured, since memory ran out"
            found.append(StepTime(precision, count, None, error))
    return found


def advice_on(speed: Sequence[StepTime]) -> list[str]:
    """Settings that measured speeds suggest; the first speed is that of the default setting."""
    found = []
    default = speed[0].images if speed else None
    for one in speed[1:]:
        gain = (one.images or 0.0) / default if default else 0.0
        if gain < _GAIN:
            continue
        if one.threads > RUN_THREADS:
            found.append(
                f"a run is {gain:.1f} times as fast with training.threads: {one.threads}; a study "
                f"of many runs needs no more than {RUN_THREADS}, since it computes several runs at "
                "the same time"
            )
        else:
            setting = "set training.precision to auto in studies"
            found.append(f"{one.precision} is {gain:.1f} times as fast: {setting}")
    return found


def _inspect_folder(found: Installation, use: str, path: Path, fix: str) -> None:
    """Free space of a folder, and whether files can be written, linked and renamed in it."""
    from preceptor.utils.text import gibibytes

    there = path
    while not there.is_dir() and there != there.parent:
        there = there.parent
    folder = Folder(use, str(path), shutil.disk_usage(there).free)
    found.folders.append(folder)
    error = ""
    try:
        with tempfile.TemporaryDirectory(prefix=".preceptor-", dir=there) as inside:
            one, two = Path(inside, "one"), Path(inside, "two")
            one.write_bytes(b"")
            try:
                os.link(one, two)
                two.replace(one)
            except OSError:
                error = "no hard links or renames, which the leases of a study need"
    except OSError as wrong:
        error = f"cannot be written to: {wrong.strerror}"
    if not error and folder.free < LEAST_DISK:
        error = f"{gibibytes(folder.free)} are free"
        fix = f"free {gibibytes(LEAST_DISK)} for a study, or use another folder"
    if error:
        found.notes.append(Problem(use, f"{path}: {error}", fix))


class HubAnswer:
    """Answer of the model hub, which is waited for while other things are looked at."""

    def __init__(self) -> None:
        self._address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self._error = f"no answer within {HUB_SECONDS:g} seconds"
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")
        if not self._offline:
            self._thread.start()

    def wait(self) -> Hub:
        """The answer, after at most `HUB_SECONDS`: a name server may take its time as well."""
        if self._offline:
            return Hub(self._address, False, "switched off by HF_HUB_OFFLINE")
        self._thread.join(HUB_SECONDS)
        return Hub(self._address, not self._error, self._error)

    def _ask(self) -> None:
        import urllib.error
        import urllib.request

        try:
            request = urllib.request.Request(self._address, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_SECONDS):
                self._error = ""
        except urllib.error.HTTPError as error:
            self._error = f"answered {error.code}"
        except urllib.error.URLError as error:
            inner = error.reason
            why = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
            self._error = f"not reachable: {why}"
        except (OSError, ValueError) as error:
            self._error = f"not reachable: {reason(error, 80)}"


def as_text(found: Installation) -> str:
    """State of an installation as lines of at most 80 characters, problems last."""
    lines = [f"preceptor {found.version}, Python {found.python}, {found.system}", ""]
    for name, value in _values(found):
        lines += _wrapped(f"{name:<{_NAME}}{value}", _NAME)
    lines.append("")
    for text in found.advice:
        lines += _wrapped(f"advice: {text}", 8)
    for kind, problem in [("broken", x) for x in found.broken] + [("note", x) for x in found.notes]:
        indent = len(kind) + 2
        lines += _wrapped(f"{kind}: {problem.where}: {problem.what}", indent)
        lines += _wrapped(f"{' ' * indent}what to do: {problem.fix}", indent)
    broken = "Something that training needs is broken."
    return "\n".join([*lines, broken if found.broken else "Training works here."])


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _values(found: Installation) -> Iterator[tuple[str, str]]:
    from preceptor.utils.text import gibibytes

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
        rate = f"not measured with {one.setting} (resnet18)"
        if one.images is not None:
            images = f"{one.images:.0f}" if one.images >= 10 else f"{one.images:.2g}"
            rate = f"{images} images/s with {one.setting} (resnet18)"
        yield "speed", rate
    for folder in found.folders:
        yield folder.use, f"{gibibytes(folder.free)} free, {folder.path}"
    for extra in found.extras:
        install = f"pip install '.[{extra.name}]' in the source folder"
        missing = f"without {', '.join(extra.missing)}: {install}"
        yield f"extra {extra.name}", missing if extra.missing else "installed"
    if found.hub is not None:
        yield "model hub", f"{found.hub.address}{'' if found.hub.reachable else ', no answer'}"
