"""Kills of the server of `preceptor label` while people draw: nothing acknowledged is lost.

    python benchmarks/label_kill.py --kills 20 --people 5

People send every change again until it is acknowledged, as the page does. Afterwards the maps of
each person in the export are compared with what the person remembers, pixel by pixel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.commands import apart
from tests.label.crowd import kill_while_people_draw


def export(database: Path, to: Path) -> None:
    told = apart("label", "export", database, "--to", to)
    assert told.code == 0, told
    print(told.out.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--between", type=float, default=3.0, help="largest time before a kill")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_while_people_draw(
            Path(folder),
            people=given.people,
            kills=given.kills,
            between=given.between,
            export=export,
        )
    print(f"{given.kills} kills, {given.people} people: {counts}")
    assert counts["kept"] == counts["exported"] == counts["acknowledged"]
    assert counts["different"] == counts["unknown"] == 0


if __name__ == "__main__":
    main()
