"""Names in configs that are of this library or of a plugin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from preceptor.runtime.plugins import Group, plugin, registered


@dataclass(frozen=True)
class Names:
    """Names that a key of a config takes.

    Args:
        own: Names of this library.
        group: Entry points of the plugins.
    """

    own: tuple[str, ...]
    group: Group

    @property
    def all(self) -> list[str]:
        """Names of this library, and of the installed plugins."""
        return [*self.own, *registered(self.group)]

    def __contains__(self, name: str) -> bool:
        return name in self.own or plugin(self.group, name) is not None

    def check(self, name: str) -> str:
        """The name, for a validator of pydantic.

        Raises:
            PydanticCustomError: It is neither of this library nor of a plugin.
            InputError: Several packages offer the name.
        """
        if name not in self:
            raise PydanticCustomError("name", f"not one of {', '.join(self.all)}")
        return name

    def functions(self, names: Iterable[str]) -> list[str]:
        """Functions of those names that are plugins', as package.module:function."""
        found = [plugin(self.group, name) for name in names if name not in self.own]
        return [one.value for one in found if one is not None]
