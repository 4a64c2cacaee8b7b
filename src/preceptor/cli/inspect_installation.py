"""Inspection of an installation: what is there, how fast it is, and what is wrong.

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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from preceptor.cli.installation import (
    LEAST_DISK,
    Devices,
    Extra,
    Folder,
    Gpu,
    Hub,
    Installation,
    Package,
    StepTime,
)
from preceptor.errors import Problem, reason
from preceptor.utils.files import default_cache_dir
from preceptor.utils.process import RUN_THREADS, core_count
from preceptor.version import __version__

HUB_SECONDS = 3.0
"""Seconds after which the model hub counts as not reachable."""
SPEED_SECONDS = 60.0
"""Seconds after which no further training step is measured, for instance beside other programs."""
# Where the module is not called as the distribution is.
_MODULES = {"pyyaml": "yaml", "pillow": "PIL"}
# Extras for the development of the library, and for its examples.
_DEVELOPMENT = {"dev", "bench", "docs", "integrations"}
# Gain in speed that is worth a setting.
_GAIN = 1.1
# Small, with dense convolutions: seconds on a slow CPU, and bf16 shows its speed.
_PROBE: dict[str, Any] = {"backbone": "resnet18", "training": {"input_size": 128, "batch_size": 8}}


def inspect_installation() -> Installation:
    """State of this installation; takes some seconds for the measured training steps.

    On a busy machine, they take `SPEED_SECONDS` and one step at most.
    """
    requirements: list[str] = []
    extra_names: list[str] = []
    unknown: list[Problem] = []
    try:
        record = importlib.metadata.metadata("preceptor")
        requirements = record.get_all("Requires-Dist") or []
        extra_names = sorted({*(record.get_all("Provides-Extra") or [])} - _DEVELOPMENT)
    except importlib.metadata.PackageNotFoundError:
        unknown = [
            Problem(
                "preceptor", "is not installed, only on Python's path", "pip install its folder"
            )
        ]
    hub_answer = HubAnswer()
    packages = required_packages(requirements)
    extras = optional_extras(requirements, extra_names)
    broken = [*unknown, *(one.problem for one in packages if one.problem)]
    notes: list[Problem] = []
    devices, speed = None, tuple[StepTime, ...]()
    if not broken:
        devices = _devices()
        notes += [devices.problem] if devices.problem else []
        try:
            speed = measured_speed(devices, SPEED_SECONDS)
        except Exception as error:  # whatever a broken driver or library raises
            fix = "reinstall torch and torchvision of one release, see pytorch.org"
            broken.append(Problem("training", f"a training step failed: {reason(error)}", fix))
    folders = (
        folder_state("current folder", Path.cwd(), "set --out to another folder"),
        folder_state(
            "image caches", default_cache_dir(), "set PRECEPTOR_CACHE or --cache-dir to another one"
        ),
    )
    hub = hub_answer.wait()
    notes += [one.problem for one in speed if one.problem]
    notes += [one.problem for one in (*folders, hub) if one.problem]
    return Installation(
        __version__,
        platform.python_version(),
        platform.platform(terse=True),
        packages,
        extras,
        devices,
        speed,
        folders,
        hub,
        tuple(broken),
        tuple(notes),
        advice_on(speed),
    )


def required_packages(requirements: Sequence[str]) -> tuple[Package, ...]:
    """State of the required packages; each one is imported.

    Args:
        requirements: Requirements in the form of PEP 508; those of extras are ignored.

    Example:
        >>> (package,) = required_packages(["no-such-package>=1", "pytest; extra == 'dev'"])
        >>> str(package.problem)
        "no-such-package: is not installed; pip install 'no-such-package>=1'"
    """
    found = []
    for needed in map(Requirement, requirements):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        version = _version(needed.name)
        error = "" if version is None else _import_error(needed.name)
        found.append(Package(needed.name, str(needed.specifier), version, error))
    return tuple(found)


def optional_extras(requirements: Sequence[str], names: Sequence[str]) -> tuple[Extra, ...]:
    """State of optional extras; nothing is imported.

    Args:
        requirements: Requirements in the form of PEP 508.
        names: Names of the extras.

    Example:
        >>> optional_extras(["no-such-package>=1; extra == 'fast'", "pydantic"], ["fast"])
        (Extra(name='fast', missing=('no-such-package',)),)
    """
    found = []
    for name in names:
        missing = []
        for needed in map(Requirement, requirements):
            if needed.marker is None or not needed.marker.evaluate({"extra": name}):
                continue
            version = _version(needed.name)
            if version is None or not needed.specifier.contains(version, prereleases=True):
                missing.append(needed.name)
        found.append(Extra(name, tuple(missing)))
    return tuple(found)


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

    cores, instructions = core_count(), torch.backends.cpu.get_cpu_capability()
    cuda = torch.version.cuda
    gpus, error = [], ""
    try:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for index in range(count):
            free, memory = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").sum().item()
            gpus.append(Gpu(torch.cuda.get_device_name(index), memory, free))
    except RuntimeError as wrong:
        error = reason(wrong)
    if not gpus and not error and Path("/dev/nvidia0").exists():
        built = "without CUDA" if cuda is None else f"for CUDA {cuda}"
        error = f"there is a GPU, which torch (built {built}) cannot use"
    return Devices(cores, instructions, tuple(gpus), cuda, error)


def measured_speed(devices: Devices, limit: float) -> tuple[StepTime, ...]:
    """Speed of training steps of a small network: precisions, and on a CPU numbers of threads.

    Args:
        devices: Devices of training.
        limit: Seconds after which no further step begins; one step is always computed.
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
            images = config.training.batch_size / seconds
            found.append(StepTime(precision, count, images))
        else:
            error = late if math.isnan(seconds) else "not measured, since memory ran out"
            found.append(StepTime(precision, count, None, error))
    return tuple(found)


def advice_on(speed: Sequence[StepTime]) -> tuple[str, ...]:
    """Settings that measured speeds suggest.

    Args:
        speed: Measured speeds, the default setting first.

    Example:
        >>> advice_on([StepTime("32-true", 1, 20.0), StepTime("bf16-mixed", 1, 50.0)])
        ('bf16-mixed is 2.5 times as fast: set training.precision to auto in studies',)
    """
    found = []
    default = speed[0].images if speed else None
    for one in speed[1:]:
        if default is None or one.images is None:
            continue
        gain = one.images / default
        if gain < _GAIN:
            continue
        if one.threads > RUN_THREADS:
            found.append(
                f"a run is {gain:.1f} times as fast with training.threads: {one.threads}; a study "
                f"of many runs needs no more than {RUN_THREADS}, since it computes several runs at "
                "the same time"
            )
        else:
            found.append(
                f"{one.precision} is {gain:.1f} times as fast: set training.precision to auto in "
                "studies"
            )
    return tuple(found)


def folder_state(use: str, path: Path, fix: str, least: int = LEAST_DISK) -> Folder:
    """Free space of a folder, and whether files can be written, linked and renamed in it.

    Args:
        use: Its use.
        path: Folder, which may not exist yet.
        fix: What to do if it is unsuitable.
        least: Free bytes below which there is a problem.
    """
    there = path
    while not there.is_dir() and there != there.parent:
        there = there.parent
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
    return Folder(use, str(path), shutil.disk_usage(there).free, error, fix, least)


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
        """The answer, after at most `HUB_SECONDS`: also a name server may take its time."""
        if self._offline:
            return Hub(self._address, False, "switched off by HF_HUB_OFFLINE")
        self._thread.join(HUB_SECONDS)
        return Hub(self._address, not self._error, self._error)

    def _ask(self) -> None:
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
