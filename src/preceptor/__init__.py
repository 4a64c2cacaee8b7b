"""Train image classifiers with human guidance on where to look, and test whether it helps.

Public names are imported at first use, so that `import preceptor` and the command line start fast.
"""

# No postponed annotations: their name is that of a package.

import importlib
from typing import TYPE_CHECKING, Any

from preceptor.version import __version__

if TYPE_CHECKING:
    from preceptor.auditing.audit import audit as audit
    from preceptor.auditing.repair import repair as repair
    from preceptor.config.run import RunConfig as RunConfig
    from preceptor.data.manifest import Manifest as Manifest
    from preceptor.deploy.predictor import load as load
    from preceptor.driver import run_study as run_study
    from preceptor.inference.annotate import annotate as annotate
    from preceptor.inference.predict import evaluate as evaluate
    from preceptor.losses.guidance import guidance_method as guidance_method
    from preceptor.losses.guided import GuidedLoss as GuidedLoss
    from preceptor.losses.guided import guidance as guidance
    from preceptor.models.build import build_model as build_model
    from preceptor.models.build import load_model as load_model
    from preceptor.models.custom import NetworkParts as NetworkParts
    from preceptor.models.custom import guide as guide
    from preceptor.models.custom import network_factory as network_factory
    from preceptor.study.config import StudyConfig as StudyConfig
    from preceptor.training.run import train as train

_PLACES = {
    "GuidedLoss": "preceptor.losses.guided",
    "Manifest": "preceptor.data.manifest",
    "NetworkParts": "preceptor.models.custom",
    "RunConfig": "preceptor.config.run",
    "StudyConfig": "preceptor.study.config",
    "annotate": "preceptor.inference.annotate",
    "audit": "preceptor.auditing.audit",
    "build_model": "preceptor.models.build",
    "evaluate": "preceptor.inference.predict",
    "guidance": "preceptor.losses.guided",
    "guidance_method": "preceptor.losses.guidance",
    "guide": "preceptor.models.custom",
    "load": "preceptor.deploy.predictor",
    "load_model": "preceptor.models.build",
    "network_factory": "preceptor.models.custom",
    "repair": "preceptor.auditing.repair",
    "run_study": "preceptor.driver",
    "train": "preceptor.training.run",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module 'preceptor' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Public names, also before their first use."""
    return sorted(__all__)
