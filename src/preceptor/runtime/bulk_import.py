"""Import of large libraries without garbage collection."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def bulk_import() -> Iterator[None]:
    """Context for the first import of torch and of what is built on it.

    Importing makes a million objects that stay. The collector would search them again and again,
    for a fifth of the time of the import; afterwards they are exempted from collection for good
    (`gc.freeze`), also from the collections of a training. For processes of this package only, at
    their start; where torch is imported already, nothing is changed.
    """
    if "torch" in sys.modules:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
