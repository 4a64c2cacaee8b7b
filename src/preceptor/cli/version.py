"""Command `preceptor version`."""

from __future__ import annotations


def version() -> None:
    """Print the version."""
    from preceptor.version import __version__

    print(__version__)
