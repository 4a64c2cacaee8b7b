"""List of the tests that `make quick` leaves out, from the durations of a whole run.

    make test PYTEST_ARGS=--junit-xml=durations.xml
    python -m tests.slow_tests durations.xml ...

writes `slow.txt`: the tests that took more than `SECONDS`, or less if the others took more than
`TOTAL` together, and the files that consist of such tests for the most part, the file with the
longest total first. The first test that uses a shared fixture
has its duration, so that leaving it out makes another one slow: run `make quick` with the new list
in the same way and give the durations of both runs.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

SECONDS = 0.3
"""Duration of a test, with its fixtures, above which it is slow."""
TOTAL = 120.0
"""Seconds of all tests of `make quick` together, in a run of four workers on two cores."""
SHARE = 0.8
"""Share of a file's duration that its slow tests have, from which on all of its tests are slow."""
LIST = Path(__file__).with_name("slow.txt")


def durations(files: list[Path]) -> dict[str, dict[str, float]]:
    """Largest duration of each test in seconds, by file and test."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            room, _, rest = case.attrib["classname"].partition(".")
            if room == "tests":
                tests = found[f"{rest.replace('.', '/')}.py"]
                name, seconds = case.attrib["name"], float(case.attrib["time"])
                tests[name] = max(seconds, tests.get(name, 0.0))
    return found


def slow_names(found: dict[str, dict[str, float]]) -> list[str]:
    """Slow files and tests, those of the file with the longest total first."""
    every = sorted(seconds for tests in found.values() for seconds in tests.values())
    quick = [one for one, total in zip(every, accumulate(every), strict=True) if total <= TOTAL]
    limit, names = min(SECONDS, max(quick)), list[str]()
    for file, tests in sorted(found.items(), key=lambda entry: -sum(entry[1].values())):
        slow = [name for name, seconds in tests.items() if seconds > limit]
        whole = sum(tests[name] for name in slow) >= SHARE * sum(tests.values())
        names += [file] if whole else [f"{file}::{name}" for name in sorted(slow)]
    return names


def main() -> None:
    found = durations([Path(name) for name in sys.argv[1:]])
    LIST.write_text("".join(f"{name}\n" for name in slow_names(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
