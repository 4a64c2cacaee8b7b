"""Train image classifiers with human guidance on where to look, and test whether it helps.

Public names are imported at first use, so that `import preceptor` and the command line start fast.
"""

# No postponed annotations: their name is that of a package.

import importlib
from typing import TYPE_CHECKING, Any

from preceptor.version import __version__

if TYPE_CHECKING:
    from preceptor.config.run import RunConfig
    from preceptor.data.manifest import Manifest
    from preceptor.deploy.predictor import load
    from preceptor.driver import run_study
    from preceptor.inference.annotate import annotate
    from preceptor.inference.predict import evaluate
    from preceptor.losses.guided import GuidedLoss, guidance
    from preceptor.models.build import build_model, load_model
    from preceptor.models.custom import NetworkParts, guide, network_factory
    from preceptor.study.config import StudyConfig
    from preceptor.training.run import train

_PLACES = {
    "GuidedLoss": "preceptor.losses.guided",
    "Manifest": "preceptor.data.manifest",
    "NetworkParts": "preceptor.models.custom",
    "RunConfig": "preceptor.config.run",
    "StudyConfig": "preceptor.study.config",
    "annotate": "preceptor.inference.annotate",
    "build_model": "preceptor.models.build",
    "evaluate": "preceptor.inference.predict",
    "guidance": "preceptor.losses.guided",
    "guide": "preceptor.models.custom",
    "load": "preceptor.deploy.predictor",
    "load_model": "preceptor.models.build",
    "network_factory": "preceptor.models.custom",
    "run_study": "preceptor.driver",
    "train": "preceptor.training.run",
}

__all__ = [
    "GuidedLoss",
    "Manifest",
    "NetworkParts",
    "RunConfig",
    "StudyConfig",
    "__version__",
    "annotate",
    "build_model",
    "evaluate",
    "guidance",
    "guide",
    "load",
    "load_model",
    "network_factory",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module 'preceptor' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
