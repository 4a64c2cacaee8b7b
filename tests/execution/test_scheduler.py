"""The scheduler against an executor that emits every kind of event, written out by each test."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preceptor.config.run import RunConfig
from preceptor.execution import scheduler
from preceptor.execution.perform import Event
from preceptor.execution.scheduler import Graph, Observer, Scheduler
from preceptor.inference.annotate import Shard
from preceptor.study.steps import Failure, MakeMaps, Step, map_steps
from preceptor.utils.results import finish
from tests.studies import plain_step, selection_step

Said = tuple[str, ...]


@dataclass
class Scripted:
    """An executor whose events are written down beforehand."""

    scripts: dict[str, list[list[Said]]] = field(default_factory=dict)
    slots: int = 1
    lost: int = 0
    started: list[str] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self._running: dict[str, deque[Said]] = {}

    @property
    def free(self) -> int:
        if self.lost:
            self.lost -= 1
            return 0
        return self.slots - len(self._running)

    def start(self, step: Step) -> None:
        assert len(self._running) < self.slots, "it was given more than it takes"
        assert step.id not in self._running, "the same step was given twice"
        script = self.scripts.get(step.id, [])
        self.started.append(step.id)
        self._running[step.id] = deque(script.pop(0) if script else [("done",)])
        self.most = max(self.most, len(self._running))

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """The next event of the step that was started first."""
        identity, script = next(iter(self._running.items()))
        kind, *text = script.popleft()
        event = Event(kind, identity, *text)  # type: ignore[arg-type]
        if event.ends:
            del self._running[identity]
        else:
            self._running[identity] = self._running.pop(identity)  # the others come next
        yield event

    def close(self) -> None:
        self._running.clear()


class Recorder(Observer):
    """An observer that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str | bool, ...]] = []

    def chosen(self, step: Step) -> None:
        self.told.append(("chosen", step.id))

    def already_done(self, step: Step) -> None:
        self.told.append(("already_done", step.id))

    def started(self, step: Step) -> None:
        self.told.append(("started", step.id))

    def heard(self, step: Step, event: Event) -> None:
        self.told.append((event.kind, step.id, event.text))

    def requeued(self, step: Step) -> None:
        self.told.append(("requeued", step.id))

    def finished(self, step: Step, here: bool) -> None:
        self.told.append(("finished", step.id, here))

    def failed(self, step: Step, reason: str) -> None:
        self.told.append(("failed", step.id, reason))

    def of(self, identity: str) -> list[tuple[str | bool, ...]]:
        """What was told of a step, without its id."""
        return [(one[0], *one[2:]) for one in self.told if one[1] == identity]


class Clock:
    """Time that passes only where something sleeps: no test waits, and none depends on speed."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(scheduler, "time", found)
    return found


@dataclass
class Outcome:
    graph: Graph
    executor: Scripted
    watcher: Recorder
    lines: list[str]


def walked(store: Path, steps: list[Step], executor: Scripted) -> Outcome:
    """Run a graph to its end; nothing is left running or ready."""
    graph, watcher, lines = Graph(steps), Recorder(), list[str]()
    Scheduler(graph, executor, store, watcher, lines.append).run()
    assert not graph.running
    assert not graph.has_ready
    return Outcome(graph, executor, watcher, lines)


def test_progress_is_handed_on_and_what_was_waited_for_follows(tmp_path: Path) -> None:
    script: list[Said] = [
        ("assigned", "node-7"),
        ("message", "cache is built"),
        ("epoch", "epoch 1/1"),
    ]
    executor = Scripted({"a": [[*script, ("done",)]]})
    found = walked(tmp_path, [plain_step("a"), plain_step("b", "a")], executor)
    assert found.graph.done == {"a", "b"}
    assert found.watcher.of("a") == [
        ("started",),
        ("assigned", "node-7"),
        ("message", "cache is built"),
        ("epoch", "epoch 1/1"),
        ("finished", True),
    ]
    assert executor.started == ["a", "b"]
    assert not found.lines


@pytest.mark.parametrize(
    "reason",
    [
        "the loss is nan in epoch 3",
        "hung: silent for 30 minutes, so it was ended (where it stood: failed/a.log)",
        "its worker died twice (exit code -9; it was killed, perhaps for want of memory)",
    ],
)
def test_a_failure_blocks_what_needs_it_and_the_rest_goes_on(tmp_path: Path, reason: str) -> None:
    steps = [plain_step("a"), plain_step("b", "a"), plain_step("c", "b"), plain_step("d")]
    executor = Scripted({"a": [[("epoch", "epoch 1/9"), ("failed", reason)]]})
    found = walked(tmp_path, steps, executor)
    assert found.graph.failed["a"] == Failure("maps", "make maps by a", reason)
    assert set(found.graph.failed) == {"a", "b", "c"}
    assert found.graph.done == {"d"}
    assert executor.started == ["a", "d"]  # once: what has failed is not tried again
    assert found.watcher.of("a")[-1] == ("failed", reason)
    assert not found.watcher.of("b")


def test_a_step_with_a_result_is_not_blocked_by_a_failure_before_it(tmp_path: Path) -> None:
    """Its result exists, so that steps that need it can be computed: here d, but not e."""
    for name in ("c", "f"):
        folder = tmp_path / "maps" / name
        folder.mkdir(parents=True)
        finish(folder, {"id": name})
    steps = [plain_step("a"), plain_step("b", "a"), plain_step("c", "b"), plain_step("d", "c")]
    steps.append(plain_step("e", "b", "c"))
    added = selection_step("teacher", (), lambda: [plain_step("f", "a"), plain_step("g", "f")])
    executor = Scripted({"a": [[("failed", "the disk is full")]]})
    found = walked(tmp_path, [*steps, added], executor)
    assert set(found.graph.failed) == {"a", "b", "e"}
    assert {"c", "d", "f", "g"} <= found.graph.done
    assert sorted(executor.started) == ["a", "d", "g"]
    assert found.watcher.of("c") == found.watcher.of("f") == [("already_done",)]


def test_what_another_process_holds_is_asked_for_again_and_told_of_once(tmp_path: Path) -> None:
    busy: list[Said] = [("held", "process 7 on far works on it")]
    executor = Scripted({"a": [busy, busy, [("already_done",)]]})
    steps = [plain_step("a", cost=9), plain_step("b"), plain_step("c", "a")]
    found = walked(tmp_path, steps, executor)
    assert executor.started.count("a") == 3
    assert found.watcher.of("a") == [
        ("started",),
        ("requeued",),
        ("started",),
        ("requeued",),
        ("started",),
        ("finished", False),
    ]
    (line,) = found.lines
    assert line.startswith("make maps by a: another process is computing it")
    assert found.graph.done == {"a", "b", "c"}
    assert executor.started[-1] == "c"


def test_a_selection_adds_steps_and_takes_no_room(tmp_path: Path) -> None:
    first = selection_step("teacher", ("a",), lambda: [plain_step("c", "a"), plain_step("d", "b")])
    executor = Scripted({"b": [[("failed", "no")]]})
    found = walked(tmp_path, [plain_step("a", cost=2), plain_step("b"), first], executor)
    assert executor.started == ["a", "b", "c"]
    assert ("chosen", first.id) in found.watcher.told
    assert first.id in found.graph.done
    assert set(found.graph.failed) == {"b", "d"}  # d was added after its need had failed, or before


def done_before(store: Path, step: Step) -> Path:
    """Leave what the step leaves when it has been done."""
    folder = step.folder(store)
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("a result")
    finish(folder, {"id": step.id})
    return folder


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    a, b = plain_step("a"), plain_step("b", "a")
    done_before(tmp_path, a)
    found = walked(tmp_path, [a, b], Scripted())
    assert found.watcher.of("a") == [("already_done",)]
    assert found.executor.started == ["b"]


@pytest.mark.parametrize("harm", ["changed", "gone", "record"])
def test_a_damaged_step_is_told_of_and_done_again(tmp_path: Path, harm: str) -> None:
    folder = done_before(tmp_path, plain_step("a"))
    if harm == "changed":
        (folder / "scores.csv").write_text("another")
    elif harm == "gone":
        (folder / "scores.csv").unlink()
    else:
        (folder / "run.json").write_text('{"id": ')
    found = walked(tmp_path, [plain_step("a")], Scripted())
    assert found.executor.started == ["a"]
    (line,) = found.lines
    assert line.startswith("damaged: a (")
    assert not (folder / "run.json").exists()


@pytest.mark.parametrize("name", ["scores.csv", "run.json"])
def test_a_file_that_cannot_be_read_is_not_taken_for_a_damaged_one(
    tmp_path: Path, name: str
) -> None:
    folder = done_before(tmp_path, plain_step("a"))
    kept = tmp_path / "kept"
    (folder / name).rename(kept)
    (folder / name).symlink_to(name)  # a loop: the file is there, and reading it is an error
    found = walked(tmp_path, [plain_step("a")], Scripted())
    assert not found.executor.started
    assert found.graph.failed["a"].reason.startswith(str(folder / name))
    (folder / name).unlink()
    kept.rename(folder / name)
    found = walked(tmp_path, [plain_step("a")], Scripted())
    assert found.watcher.of("a") == [("already_done",)]


def test_shards_of_maps_that_are_joined_already_are_not_needed(tmp_path: Path) -> None:
    run = RunConfig.model_validate({"manifest": "m.csv", "backbone": "test_byobnet"})
    parts = (Shard("train", 0, 8), Shard("train", 8, 16))
    work = MakeMaps(run, "a run", "cam", None, parts[0])
    *shards, join = map_steps(work, parts, "maps", "a model", (), 1.0)
    done_before(tmp_path, join)
    left = done_before(tmp_path, shards[0])  # its process died before it removed them
    found = walked(tmp_path, [*shards, join], Scripted())
    assert not found.executor.started
    assert found.graph.done == {"maps", *(shard.id for shard in shards)}
    assert not left.exists()
