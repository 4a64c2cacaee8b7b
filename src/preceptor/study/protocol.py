"""Protocol of a study: ids, names, costs and folders of trainings and evaluations.

The ids of all steps are known before any step runs: the maps that guide a Student are identified
by the id of the step that makes them. Equal runs (a Baseline 1 and a Teacher of the same settings)
have one id and are trained once. Asking for a step changes nothing. The runs of each role are
functions of a protocol, in `teacher_runs.py`, `baseline_runs.py`, `student_runs.py` and
`control_runs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.data.workspace import Workspace
from preceptor.maps.placed_maps import with_maps
from preceptor.runtime.result_folder import digest
from preceptor.study.config import StudyConfig
from preceptor.study.run_configs import run_config, training_of
from preceptor.study.steps import Arm, Evaluate, Member, Step, Train
from preceptor.study.teacher import teachers_of
from preceptor.study.workspaces import Workspaces
from preceptor.training.prepare import run_id_of


@dataclass
class Protocol:
    """Builds the steps of a study.

    Args:
        study: Study config.
        workspaces: Tables of images.
        store: Folder of runs, maps and evaluations.
        domain: Domain of the study, or ""; written in the names of steps.
        annotated: Number of annotated images, for runs of an annotation budget; see `of_budget`.
    """

    study: StudyConfig
    workspaces: Workspaces
    store: Path
    domain: str = ""
    annotated: int | None = None

    def __post_init__(self) -> None:
        self._hashes: dict[tuple[Path, str], str] = {}
        self._classes: dict[tuple[Path, Path], tuple[str, ...]] = {}

    @property
    def workspace(self) -> Workspace:
        """Workspace of the first seed, or the only one."""
        return self.workspaces.first

    def rows_hash(self, manifest: Path, kind: str) -> str:
        """Hash of the training or test rows of a manifest."""
        if (manifest, kind) not in self._hashes:
            workspace = self.workspaces.at(manifest)
            train = np.flatnonzero(workspace.train_mask)
            rows = train if kind == "train" else workspace.split_rows(kind)
            self._hashes[manifest, kind] = workspace.hashes.of(rows)
        return self._hashes[manifest, kind]

    def shuffled(self, source: MapSource, seed: int) -> MapSource:
        """Maps permuted within class, over groups if a group has several training images."""
        workspace = self.workspaces.of(seed)
        groups = workspace.manifest.table["group"][workspace.train_mask]
        several = bool(groups[groups != ""].duplicated().any())
        changes = {"shuffle_seed": seed, "shuffle_groups": several}
        return source.model_copy(update=changes)

    def classes_of(self, maps: Path, seed: int) -> tuple[str, ...] | None:
        """Classes of the training images that have a map in a folder; None if all have some."""
        workspace = self.workspaces.of(seed)
        key = (maps, self.workspaces.manifests[seed])
        if key not in self._classes:
            table = workspace.manifest.table[workspace.train_mask]
            has_map = with_maps(maps, table["name"].to_numpy(object))
            self._classes[key] = tuple(sorted(set(table["label"][has_map])))
        found = self._classes[key]
        return None if set(found) == set(workspace.manifest.classes) else found

    def of_budget(self, size: int) -> Protocol:
        """Protocol with a number of annotated images, with a new draw for every seed."""
        study = self.study.model_copy(update={"annotated": size, "annotated_per_seed": True})
        return replace(self, study=study, annotated=size)

    @property
    def primary(self) -> str:
        """Evaluation set of the hypothesis tests."""
        return self.study.primary or self.workspace.manifest.eval_splits("test")[0]

    def config(self, backbone: str, draw: int, guidance: str = "", **values: object) -> RunConfig:
        """Run config of a backbone, a seed and a way of guiding, see `run_configs.run_config`."""
        training = {"training": training_of(self.study, backbone, guidance)}
        return run_config(self.study, backbone, draw, **(training | values))

    def train(self, arm: Arm, config: RunConfig, needs: tuple[str, ...] = ()) -> Step:
        """Training step of a run."""
        workspace = self.workspaces.at(config.manifest)
        arm = replace(arm, annotated=self.annotated)
        training = config.training
        cost = len(workspace.training_rows(config)) * training.epochs
        if training.steps is not None:
            cost = training.steps * training.batch_size
        chosen = f" {arm.setting}" if arm.alpha < 1 or arm.guidance else ""
        if arm.teacher and self._has_several_teachers:
            chosen += f" of {arm.teacher},"
        name = f"{arm.label} {arm.backbone}{chosen} seed {config.seed}{self._in_domain}"
        identity = run_id_of(workspace, config)
        return Step(identity, Train(config, arm), name, needs, cost=float(cost))

    @cached_property
    def _has_several_teachers(self) -> bool:
        return len(teachers_of(self.study)) > 1

    @property
    def _in_domain(self) -> str:
        return f" ({self.domain})" if self.domain else ""

    def evaluation(self, training: Step) -> Step:
        """Step that scores the test sets with a trained model."""
        work = training.work
        assert isinstance(work, Train)
        images = len(self.workspaces.at(work.config.manifest).split_rows("test"))
        return Step(
            self._evaluation_id(training.id, work.config.manifest),
            Evaluate(work.config, training.id),
            training.name,
            (training.id,),
            cost=images / 3,
        )

    def evaluation_id(self, member: Member) -> str:
        """Id of the evaluation of a run on the test sets of its seed's manifest."""
        return self._evaluation_id(member.run, member.manifest)

    def _evaluation_id(self, run: str, manifest: Path) -> str:
        return digest(["evaluate", run, self.rows_hash(manifest, "test")])

    def run_folder(self, identity: str) -> Path:
        """Folder of a run."""
        return self.store / "runs" / identity

    def maps_folder(self, identity: str) -> Path:
        """Folder of a map store."""
        return self.store / "maps" / identity

    def evaluation_folder(self, identity: str) -> Path:
        """Folder of an evaluation."""
        return self.store / "evaluations" / identity

    def folder(self, step: Step) -> Path:
        """Folder of the result of a step."""
        return step.folder(self.store)
