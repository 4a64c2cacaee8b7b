"""Programs with mounts of their own in tests."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest


def run_mounted(mount: str, program: str, *arguments: object) -> str:
    """Run a Python program where a shell command has mounted something; skips where none can.

    Args:
        mount: Shell command, with the arguments as $1, $2, …
        program: Program, with the arguments in `sys.argv`.
        arguments: Arguments of both.

    Returns:
        What the program printed.
    """
    if shutil.which("unshare") is None:
        pytest.skip("a system without namespaces")
    given = [str(one) for one in arguments]
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*apart, mount, "sh", *given], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    shell = [*apart, f'{mount} && exec "$0" -c "$PROGRAM" "$@"', sys.executable, *given]
    done = subprocess.run(
        ["env", f"PROGRAM={program}", *shell], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
