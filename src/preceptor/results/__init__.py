"""Results of a study as tables and numbers; public names are imported at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preceptor.results.record import read
    from preceptor.results.tables import StudyTables

_PLACES = {"StudyTables": "preceptor.results.tables", "read": "preceptor.results.record"}
__all__ = ["StudyTables", "read"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
