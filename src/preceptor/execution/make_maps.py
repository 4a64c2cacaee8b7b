"""Map making by several processes or machines outside of a study (`preceptor annotate`).

The shards are steps as in a study. They are kept until all have finished, so that the same call
continues where an earlier one stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.progress import Progress, TaskID

from preceptor.config.run import METHOD_NAMES, Method, RiseSettings, RunConfig, check_method
from preceptor.config.training import Training
from preceptor.errors import HeldError, InputError, RunFailedError
from preceptor.execution.executor import Event, WorkerContext
from preceptor.execution.local import ExecutorOptions, open_executor
from preceptor.execution.perform import SerialExecutor, join_shards
from preceptor.execution.scheduler import Graph, Observer, Scheduler
from preceptor.inference.annotate import forwards_of, model_digest, rows_of, shards_of
from preceptor.maps.store import MapStore, write_store
from preceptor.models.build import load_model
from preceptor.study.steps import JoinMaps, MakeMaps, Step, map_steps
from preceptor.study.workspaces import Workspaces
from preceptor.utils.files import default_cache_dir
from preceptor.utils.leases import lease
from preceptor.utils.plugins import source_digest
from preceptor.utils.results import digest
from preceptor.utils.text import progress

PARTIAL_FOLDER = ".partial"
"""Folder within the store's where shards are kept until all are there."""


def annotate_in_shards(
    model: str | Path,
    manifest: str | Path,
    out: str | Path,
    method: Method = "cam",
    *,
    splits: str = "train",
    rise: RiseSettings | None = None,
    threads: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    cache: Literal["memmap", "none"] = "memmap",
    cache_dir: Path | None = None,
    options: ExecutorOptions | None = None,
    tell: Callable[[str], None] = print,
) -> MapStore:
    """Compute the saliency maps of a manifest in shards and write the map store.

    The maps are those of `annotate` (see its arguments) for the model in channels-last, bit for bit
    on CPUs of one kind, with any executor. Finished shards are kept in `out`: a repeated call
    computes the missing ones. On a cluster, all machines need access to model, manifest and `out`,
    which then has the image cache by default. A shard that fails is a RunFailedError.
    """
    options = (options or ExecutorOptions()).checked(threads, tell)
    check_method(method)
    model, manifest, out = (Path(path).absolute() for path in (model, manifest, out))
    rise = (rise or RiseSettings()) if method == "rise" else None
    loaded = load_model(model)
    work = out / PARTIAL_FOLDER
    if cache_dir is None:
        cache_dir = work / "cache" if options.engine == "ray" else default_cache_dir()
    reading = {"need": (), "classes": loaded.spec.classes}
    workspaces = Workspaces({0: manifest}, {manifest: cache_dir}, reading=reading)
    workspace = workspaces.at(manifest)
    rows = rows_of(workspace.manifest, splits)
    whose = model_digest(loaded)
    forwards = forwards_of(method, rise)
    shards = shards_of(workspace.manifest, splits, forwards)
    how = None if rise is None else rise.model_dump(mode="json")
    sources = [source_digest(name) for name in METHOD_NAMES.functions([method])]
    # The same weights with another pooling have other maps.
    made_by, made_of = [whose, asdict(loaded.spec)], workspace.hashes.of(rows, None)
    identity = digest([made_by, made_of, splits, method, how, *sources])
    training = Training(threads=threads, device=device, cache=cache)
    run = RunConfig(manifest=manifest, backbone=loaded.spec.backbone, training=training)
    maps = MakeMaps(run, whose, method, rise, shards[0], model=model)
    *steps, last = map_steps(
        maps, shards, identity, loaded.spec.backbone, (), forwards / 3, join_one=True
    )
    assert isinstance(last.work, JoinMaps)
    if out.is_file():
        raise InputError(f"{out}: it is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with lease(work, wait=0.0):
            # Decoded once, before workers start.
            workspace.images(loaded.spec.image_format, cache)
            observer = _Observer(tell, sum(len(one.rows(workspace.manifest)) for one in shards))
            needed = WorkerContext(workspaces, work, threads, device, 60 * options.hang_timeout)
            executor = (
                SerialExecutor(needed)
                if options.engine == "local" and len(steps) == 1
                else open_executor(needed, options)
            )
            try:
                with observer.shown:
                    Scheduler(Graph(steps), executor, work, observer, tell).run()
            finally:
                executor.close()
            if observer.reasons:
                raise RunFailedError(
                    f"{len(observer.reasons)} of {len(steps)} shards failed; repeat the command to "
                    f"compute these: {observer.reasons[0]}"
                )
            store, _ = join_shards(last.id, last.work, work)
            write_store(out, store)
            shutil.rmtree(work, ignore_errors=True)  # on a network folder an open file lingers
    except HeldError as error:
        raise InputError(
            f"{out}: another process is making maps in this folder; wait until "
            "it has ended, or choose another --out"
        ) from error
    return store


@dataclass
class _Observer(Observer):
    """Progress display of the number of images with maps."""

    tell: Callable[[str], None]
    images: int
    reasons: list[str] = field(default_factory=list)
    shown: Progress = field(default_factory=progress)

    def __post_init__(self) -> None:
        self._task: TaskID = self.shown.add_task("making maps", total=self.images, note="")

    def _advance(self, step: Step) -> None:
        assert isinstance(step.work, MakeMaps)
        shard = step.work.shard
        self.shown.advance(self._task, shard.stop - shard.start)

    def already_done(self, step: Step) -> None:
        self._advance(step)

    def heard(self, step: Step, event: Event) -> None:
        if event.kind == "message":
            self.tell(f"{step.title}: {event.text}")

    def finished(self, step: Step, here: bool) -> None:
        self._advance(step)

    def failed(self, step: Step, reason: str) -> None:
        self.reasons.append(reason)
        self.tell(f"FAILED {step.title}: {reason}")
