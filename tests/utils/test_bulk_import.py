"""Import of large libraries without garbage collection."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_collected_during_the_import_and_what_stays_is_exempt() -> None:
    code = (
        "import gc\n"
        "from preceptor.utils.process import bulk_import\n"
        "collected = []\n"
        "gc.callbacks.append(lambda phase, info: collected.append(phase))\n"
        "with bulk_import():\n"
        "    assert not gc.isenabled()\n"
        "    before = len(collected)\n"
        "    import torch\n"
        "    assert len(collected) == before\n"
        "assert gc.isenabled()\n"
        "assert gc.get_freeze_count() > 50_000\n"
        "gc.unfreeze()\n"
        "with bulk_import():\n"
        "    assert gc.isenabled(), 'torch is there: nothing is changed'\n"
        "assert gc.get_freeze_count() == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_turns_the_collector_on_again() -> None:
    code = (
        "import gc\n"
        "from preceptor.utils.process import bulk_import\n"
        "try:\n"
        "    with bulk_import():\n"
        "        import no_such_module\n"
        "except ImportError:\n"
        "    assert gc.isenabled()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
