"""Log of a simulation, from which an interrupted one is resumed.

Every answer has its line before it is sent to the server, and every trained Teacher after its
proposals are stored. The log therefore has all answers of the database, and one more at most. The
database is copied before a Teacher is trained, so that proposals are stored as a whole.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from preceptor.label.database import connect, told_errors
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.result_folder import write_atomically

_LINES = "simulation.jsonl"
_COPY = "before-teacher.sqlite"
_WITHOUT_ANSWER = (
    "NOT EXISTS (SELECT 1 FROM answers WHERE image = {0}.image AND person = {0}.person)"
)


@dataclass(frozen=True)
class SimulatedAnswer:
    """What one person did on one image, a row of simulation.csv.

    Args:
        number: Place among all answers.
        person, image: Names.
        seconds: Counted time.
        strokes: Number of strokes.
        proposed: Whether a proposal was shown.
        adopted: Whether it was adopted.
        proposal_overlap: Intersection ÷ union of the proposal and the known mark; NaN without.
        overlap: Intersection ÷ union of the mark and the known mark.
        teacher_images: Images that the newest Teacher was taught; 0 = there is none.
    """

    number: int
    person: str
    image: str
    seconds: float
    strokes: int
    proposed: bool
    adopted: bool
    proposal_overlap: float
    overlap: float
    teacher_images: int


@dataclass
class SimulationLog:
    """Progress of a simulation.

    Args:
        folder: Folder of the simulation.
        database: Its SQLite file.
        paths: Path of the image of each answer, as the database has it.
        answers: Answers so far.
        taught: Images that the newest Teacher was taught; 0 = there is none.
        taught_after: Number of answers after which training was last tried.
    """

    folder: Path
    database: Path
    paths: list[str] = field(default_factory=list)
    answers: list[SimulatedAnswer] = field(default_factory=list)
    taught: int = 0
    taught_after: int = 0

    @classmethod
    def reopened(cls, folder: Path, database: Path) -> SimulationLog | None:
        """Progress of an interrupted simulation, whose database is brought to its last answer.

        Args:
            folder: Folder of the simulation, whose server has ended.
            database: Its SQLite file.

        Returns:
            The progress; None if there is no answer, or if log and database do not match.
        """
        found, lines = cls(folder, database), _read(folder / _LINES)
        if not database.exists():
            return None
        for left in folder.glob(".*.tmp*"):  # a copy that was cut
            left.unlink()
        copied = folder / _COPY
        if copied.exists():
            if not lines or "taught" not in lines[-1]:  # proposals may be stored in part
                for left in folder.glob(f"{database.name}-*"):
                    left.unlink()
                copied.replace(database)
            copied.unlink(missing_ok=True)
        with contextlib.closing(connect(database)) as connection, told_errors(database):
            connection.execute("BEGIN IMMEDIATE")
            for table in ("strokes", "events"):
                connection.execute(f"DELETE FROM {table} WHERE {_WITHOUT_ANSWER.format(table)}")
            connection.execute("COMMIT")
            known = {
                (path, person)
                for path, person in connection.execute(
                    "SELECT images.path, people.name FROM answers "
                    "JOIN images ON images.id = answers.image "
                    "JOIN people ON people.id = answers.person"
                )
            }
        for line in lines:
            if "taught" in line:
                found.taught, found.taught_after = line["taught"], len(found.answers)
            elif len(found.answers) < len(known):
                found.paths.append(line["path"])
                found.answers.append(SimulatedAnswer(**line["answer"]))
        logged = {(path, one.person) for path, one in zip(found.paths, found.answers, strict=True)}
        if not known or logged != known:
            return None
        found._rewrite()
        return found

    def add(self, path: str, answer: SimulatedAnswer) -> None:
        """Add an answer that is sent next."""
        self.paths.append(path)
        self.answers.append(answer)
        self._write(_line(path, answer))

    def copy_database(self) -> None:
        """Copy the database, before a Teacher is trained."""
        with (
            told_errors(self.database),
            replacing(self.folder / _COPY, flush=False) as partial,
            contextlib.closing(connect(self.database, readonly=True)) as connection,
        ):
            partial.touch(mode=0o600)  # it contains the key of the sessions
            with contextlib.closing(sqlite3.connect(partial)) as copy:
                connection.backup(copy)

    def add_teacher(self, taught: int) -> None:
        """Add a Teacher whose proposals are stored.

        Args:
            taught: Images that the newest Teacher was taught.
        """
        self.taught, self.taught_after = taught, len(self.answers)
        self._write({"taught": taught})
        (self.folder / _COPY).unlink()

    def remove(self) -> None:
        """Remove the log of a simulation that has ended."""
        (self.folder / _LINES).unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / _LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _rewrite(self) -> None:
        """Write the log again, without a line that was cut and an answer that was not sent."""
        lines: list[dict[str, Any]] = [
            _line(path, one) for path, one in zip(self.paths, self.answers, strict=True)
        ]
        if self.taught_after:
            lines.insert(self.taught_after, {"taught": self.taught})
        write_atomically(self.folder / _LINES, "".join(json.dumps(one) + "\n" for one in lines))


def _line(path: str, answer: SimulatedAnswer) -> dict[str, Any]:
    return {"path": path, "answer": asdict(answer)}


def _read(file: Path) -> list[dict[str, Any]]:
    """Complete lines of a log."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
