"""What the driver of a study needs for a plan of ten thousand steps: memory, and time a step.

    python benchmarks/driver_memory.py [--steps 10000]

The paper's grid (four backbones, human-guided and data-driven Teachers, CAM and RISE, four
Students, the full plan) with as many seeds as it takes; planned, put into a graph, and walked with
the real board and an executor that does nothing and says done. So all that is measured is the
driver.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from preceptor.benchmark.forged import write_draws
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.execution.events import Event
from preceptor.execution.graph import Graph
from preceptor.execution.scheduler import Scheduler
from preceptor.execution.status import StudyStatus
from preceptor.study.config import StudyConfig
from preceptor.study.steps import Step
from preceptor.study_folder import open_study

FOUR = ("densenet121", "resnet50", "legacy_xception", "inception_v3")


class Nothing:
    """Does nothing, eight steps at a time."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    @property
    def free(self) -> int:
        return 8 - len(self._steps)

    def start(self, step: Step) -> None:
        self._steps.append(step)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        yield Event("done", self._steps.popleft().id)

    def close(self) -> None:
        self._steps.clear()


class Watching:
    """The status only."""

    def __init__(self, board: StudyStatus, graph: Graph) -> None:
        self.board, self.graph = board, graph

    def chosen(self, step: Step) -> None: ...
    def already_done(self, step: Step) -> None: ...
    def assigned(self, step: Step, machine: str) -> None: ...
    def requeued(self, step: Step) -> None: ...
    def epoch(self, step: Step, line: str) -> None: ...

    def started(self, step: Step) -> None:
        self.board.started(step)

    def message(self, step: Step, line: str) -> None:
        self.board.progress(step, line)

    def finished(self, step: Step, here: bool) -> None:
        self.board.finished(step, self.graph)

    def failed(self, step: Step, reason: str) -> None:
        raise AssertionError(reason)


def peak() -> float:
    """Mebibytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_draws(folder / "forged", PRESETS["tiny"], range(1))

        def study(seeds: int) -> StudyConfig:
            return StudyConfig.model_validate(
                {
                    "manifest": folder / "forged/0/manifest.csv",
                    "positive": "forged",
                    "primary": "test-seen",
                    "annotated": 24,
                    "teachers": FOUR,
                    "students": FOUR,
                    "saliency": ["cam", "rise"],
                    "plan": "full",
                    "seeds": seeds,
                    "training": {"input_size": 299, "threads": 1},
                }
            )

        quiet = {"run": False, "report_to": lambda line: None}
        few = open_study(study(2), folder / "few", **quiet)
        each = sum(map(len, few.outline())) / 2
        seeds = -(-arguments.steps // int(each))
        before, started = peak(), time.monotonic()
        opened = open_study(study(seeds), folder / "many", **quiet)
        steps = [step for stage in opened.outline() for step in stage if step.kind != "select"]
        planned = time.monotonic() - started
        print(
            f"{len(steps):,} steps, {seeds} seeds: planned in {planned:.1f} s, {peak():.0f} MiB "
            f"({peak() - before:.0f} more than before)",
            flush=True,
        )
        (folder / "many").mkdir(exist_ok=True)
        board = StudyStatus(opened, folder / "many")
        graph = Graph(steps)
        started = time.monotonic()
        Scheduler(graph, Nothing(), folder / "store", Watching(board, graph), print).run()
        took = time.monotonic() - started
        assert len(graph.done) == len(steps)
        print(
            f"walked in {took:.1f} s, {1000 * took / len(steps):.2f} ms a step; peak of the "
            f"driver {peak():.0f} MiB, {peak() - before:.0f} of them for the plan"
        )


if __name__ == "__main__":
    main()
