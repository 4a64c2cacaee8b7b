"""Matrix of Python and package versions with which the tests pass.

    python benchmarks/matrix.py --python 3.11 --python 3.13

For each Python, a virtual environment is made by uv with the lowest versions that pyproject.toml
allows, and one with the newest, and the tests of `FOLDERS` that are not slow are run in it. Prints
a table, and writes one row for each environment to --csv. The exit code is 1 if any fails.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "demo,onnx,web"
# What the tests need, among it the other sides of comparisons.
TOOLS = (
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "scikit-learn>=1.5",
    "pycocotools>=2.0.8",
    "opencv-python-headless>=4.10",
)
FOLDERS = (
    "config",
    "data",
    "metrics",
    "inference",
    "losses",
    "maps",
    "models",
    "deploy",
    "saliency",
    "study",
    "training",
)
# Shown in the table; the CSV has them as well.
SHOWN = ("torch", "torchvision", "timm", "pydantic", "numpy", "pandas")

Resolution = Literal["lowest-direct", "highest"]


@dataclass(frozen=True)
class Row:
    """One environment.

    Args:
        python: Version of Python.
        resolution: lowest-direct (the lowest versions of direct dependencies) or highest.
        versions: Versions of the packages in `SHOWN`.
        passed, failed: Numbers of tests; failed is −1 if there was no environment or no test.
        seconds: Duration of the tests.
        reason: What failed, or "".
    """

    python: str
    resolution: Resolution
    versions: str
    passed: int
    failed: int
    seconds: float
    reason: str


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def environment(folder: Path, python: str, resolution: Resolution) -> str:
    """Make a virtual environment; returns what went wrong, or ""."""
    made = run("uv", "venv", "--quiet", "--python", python, folder)
    if made.returncode:
        return last_line(made.stderr)
    # Tools have their newest versions; only what users install is at its lowest.
    first = run(
        *("uv", "pip", "install", "--quiet", "--python", folder / "bin/python"),
        *("--resolution", resolution, "-e", f"{ROOT}[{EXTRAS}]"),
    )
    if first.returncode:
        return last_line(first.stderr)
    tools = run("uv", "pip", "install", "--quiet", "--python", folder / "bin/python", *TOOLS)
    return last_line(tools.stderr) if tools.returncode else ""


def tested(python: str, resolution: Resolution, folder: Path) -> Row:
    """The row of one environment."""
    reason = environment(folder, python, resolution)
    if reason:
        return Row(python, resolution, "", 0, -1, 0.0, reason)
    listed = run("uv", "pip", "freeze", "--python", folder / "bin/python").stdout
    found = dict(re.findall(r"^([\w.-]+)==(\S+)$", listed, re.MULTILINE))
    versions = ", ".join(f"{name} {found[name]}" for name in SHOWN)
    started = time.monotonic()
    report = folder / "tests.xml"
    run(
        *(folder / "bin/python", "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"),
        *("--junit-xml", report, "-m", "not slow"),
        *(f"tests/{name}" for name in FOLDERS),
    )
    seconds = round(time.monotonic() - started, 1)
    if not report.exists():
        return Row(python, resolution, versions, 0, -1, seconds, "the tests could not be started")
    tests = list(ElementTree.parse(report).iter("testcase"))
    skipped = [one for one in tests if one.find("skipped") is not None]
    wrong = [one for one in tests if not {"failure", "error"}.isdisjoint(part.tag for part in one)]
    for one in wrong:
        print(f"  {one.get('classname')}::{one.get('name')}", flush=True)
    passed = len(tests) - len(skipped) - len(wrong)
    reason = f"{len(wrong)} failed" if wrong else ""
    return Row(python, resolution, versions, passed, len(wrong), seconds, reason)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", help="version of Python, repeatable")
    parser.add_argument("--resolution", action="append", choices=["lowest-direct", "highest"])
    parser.add_argument("--csv", type=Path, help="table to write")
    given = parser.parse_args()
    rows = []
    for python in given.python or ["3.11", "3.12", "3.13", "3.14"]:
        for resolution in given.resolution or ["lowest-direct", "highest"]:
            with tempfile.TemporaryDirectory() as folder:
                row = tested(python, resolution, Path(folder) / "env")
            result = row.reason or f"{row.passed:,} passed in {row.seconds:.0f} s"
            print(f"{python} {resolution} ({row.versions}): {result}", flush=True)
            rows.append(row)
    if given.csv is not None:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [one.name for one in fields(Row)])
            writer.writeheader()
            writer.writerows(map(asdict, rows))
    sys.exit(any(row.failed for row in rows))


if __name__ == "__main__":
    main()
