"""State of an installation: packages, devices, speed, disk space, optional extras, model hub."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import Requirement

from preceptor.errors import Problem
from preceptor.utils.text import gibibytes

LEAST_DISK = 10 * 2**30
"""Free bytes below which disk space is a problem: one study with caches, maps and weights."""


@dataclass(frozen=True)
class Package:
    """Required package.

    Args:
        name: Name of the distribution.
        required: Versions that are needed, such as ">=2.6".
        version: Installed version; None if it is not installed.
        error: Reason why it cannot be imported, or "".
    """

    name: str
    required: str
    version: str | None
    error: str = ""

    @property
    def problem(self) -> Problem | None:
        """What is wrong, and what to do."""
        install = f"pip install '{self.name}{self.required}'"
        if self.version is None:
            return Problem(self.name, "is not installed", install)
        if not Requirement(f"x{self.required}").specifier.contains(self.version, prereleases=True):
            return Problem(self.name, f"version {self.version} is not {self.required}", install)
        if self.error:
            again = f"pip install --force-reinstall '{self.name}{self.required}'"
            if self.name in ("torch", "torchvision"):
                again = "install torch and torchvision of one release together, see pytorch.org"
            return Problem(self.name, f"cannot be imported: {self.error}", again)
        return None


@dataclass(frozen=True)
class Extra:
    """Optional extra.

    Args:
        name: Name of the extra.
        missing: Its packages that are not installed, or not in the version that is needed.
    """

    name: str
    missing: tuple[str, ...]

    @property
    def install(self) -> str:
        """Command that installs it."""
        return f"pip install '.[{self.name}]' in the source folder"


@dataclass(frozen=True)
class Gpu:
    """GPU, with its memory in bytes."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True)
class Devices:
    """Devices of training.

    Args:
        cores: Number of CPU cores that this process may use.
        instructions: Vector instructions that torch uses on the CPU.
        gpus: GPUs that torch can use.
        cuda: CUDA version of torch; None if it was built without.
        error: Reason why a GPU that is there cannot be used, or "".
    """

    cores: int
    instructions: str
    gpus: tuple[Gpu, ...] = ()
    cuda: str | None = None
    error: str = ""

    @property
    def problem(self) -> Problem | None:
        """What is wrong with a GPU, and what to do."""
        if not self.error:
            return None
        return Problem("GPU", self.error, "training uses the CPU until then; see pytorch.org")


@dataclass(frozen=True)
class StepTime:
    """Measured training speed.

    Args:
        precision: 32-true or bf16-mixed.
        threads: Number of CPU threads.
        images: Images per second; None if it could not be measured.
        error: Reason why it could not be measured, or "".
    """

    precision: str
    threads: int
    images: float | None
    error: str = ""

    @property
    def setting(self) -> str:
        """Precision and number of threads in words."""
        return f"{self.precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"

    @property
    def problem(self) -> Problem | None:
        """What could not be measured, and what to do."""
        if self.images is not None:
            return None
        fix = "end other programs that use this machine, and repeat preceptor doctor"
        return Problem("speed", f"{self.setting}: {self.error}", fix)


@dataclass(frozen=True)
class Folder:
    """Folder that is written to.

    Args:
        use: Its use.
        path: Folder; if it does not exist yet, it would be created.
        free: Free bytes.
        error: Reason why it is unsuitable, or "".
        fix: What to do about it.
        least: Free bytes below which there is a problem.
    """

    use: str
    path: str
    free: int
    error: str = ""
    fix: str = ""
    least: int = LEAST_DISK

    @property
    def problem(self) -> Problem | None:
        """What is wrong, and what to do."""
        if self.error:
            return Problem(self.use, f"{self.path}: {self.error}", self.fix)
        if self.free < self.least:
            return Problem(
                self.use,
                f"{self.path}: {gibibytes(self.free)} are free",
                f"free {gibibytes(self.least)} for a study, or use another folder",
            )
        return None


@dataclass(frozen=True)
class Hub:
    """Model hub of pretrained weights.

    Args:
        address: Address.
        reachable: Whether it answered.
        error: Reason if it did not.
    """

    address: str
    reachable: bool
    error: str = ""

    @property
    def problem(self) -> Problem | None:
        """What is wrong, and what to do."""
        if self.reachable:
            return None
        fix = "needed for `weights: hub` only; offline use weights: FILE.safetensors or none"
        return Problem("model hub", f"{self.address}: {self.error}", fix)


@dataclass(frozen=True)
class Installation:
    """State of an installation.

    Args:
        version: Version of this library.
        python, system: Version of Python, and operating system.
        packages: Required packages.
        extras: Optional extras.
        devices: Devices; None if torch cannot be imported.
        speed: Measured speeds of training steps, the default setting first; () if training is not
            possible.
        folders: Current folder and cache folder.
        hub: Model hub.
        broken: Problems with what training needs.
        notes: Other problems.
        advice: Settings that the measured speeds suggest.
    """

    version: str
    python: str
    system: str
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    devices: Devices | None
    speed: tuple[StepTime, ...]
    folders: tuple[Folder, ...]
    hub: Hub
    broken: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    advice: tuple[str, ...] = ()
