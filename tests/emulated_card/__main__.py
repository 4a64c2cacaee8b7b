"""pytest on an emulated card: `python -m tests.emulated_card LIBRARY ARGUMENTS …`.

LIBRARY is `card.cpp`, compiled. torch asks for its hooks once, at its import, so it is loaded
before.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Generator
from pathlib import Path

import pytest


def load(library: str) -> None:
    """Load a library of `card.cpp`, with the parts of torch that it is linked with."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "lib"
    for pattern in ("libc10.so", "libgomp*.so*", "libtorch_cpu.so"):
        for file in sorted(folder.glob(pattern)):
            ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(library)


class Plugin:
    """Everything that tests and their fixtures create may be on the card."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        from tests.emulated_card.device import Factories

        with Factories():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        from tests.emulated_card.device import Factories

        with Factories():
            return (yield)


def main() -> int:
    load(sys.argv[1])
    from tests.emulated_card.device import check, install

    install()
    check()
    return int(pytest.main(sys.argv[2:], plugins=[Plugin()]))


if __name__ == "__main__":
    sys.exit(main())
