"""Train image models with human guidance about where to look, and test whether it helped.

The public names are imported when first used, so that `import preceptor` and the command line stay
quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from preceptor.config import RunConfig
    from preceptor.data.manifest import Manifest
    from preceptor.evaluation.scores import evaluate
    from preceptor.losses import GuidedLoss, guidance
    from preceptor.models import build_model, load_model
    from preceptor.saliency.annotate import annotate
    from preceptor.study.driver import run_study
    from preceptor.study.settings import StudyConfig
    from preceptor.training import train

_PLACES = {
    "GuidedLoss": "preceptor.losses",
    "Manifest": "preceptor.data.manifest",
    "RunConfig": "preceptor.config",
    "StudyConfig": "preceptor.study.settings",
    "annotate": "preceptor.saliency.annotate",
    "build_model": "preceptor.models",
    "evaluate": "preceptor.evaluation.scores",
    "guidance": "preceptor.losses",
    "load_model": "preceptor.models",
    "run_study": "preceptor.study.driver",
    "train": "preceptor.training",
}

__all__ = [
    "GuidedLoss",
    "Manifest",
    "RunConfig",
    "StudyConfig",
    "annotate",
    "build_model",
    "evaluate",
    "guidance",
    "load_model",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _PLACES:
        raise AttributeError(f"module 'preceptor' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
