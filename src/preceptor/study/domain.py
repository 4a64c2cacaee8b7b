"""Domain of a study: one of several manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from preceptor.config.paths import ConfigPath
from preceptor.config.settings import Amount, Positive, Settings

Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Domain(Settings):
    """Domain of a study: a manifest, and settings that differ from those of the study.

    Args:
        manifest, positive, primary, annotated, guide_classes, budget, maps: See `StudyConfig`.
    """

    manifest: ConfigPath
    positive: str | None = None
    primary: str | None = None
    annotated: Amount | None = None
    guide_classes: tuple[str, ...] | None = None
    budget: Sizes | None = None
    maps: Mapping[str, ConfigPath] | None = None
