"""Config of a network from outside timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from preceptor.config.settings import Settings


class NetworkFactory(Settings):
    """Function that creates a network, see `models.factories`.

    Args:
        factory: The function, as package.module:function.
        args: Further arguments of the function.
    """

    factory: Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")]
    args: Mapping[str, Any] = {}
