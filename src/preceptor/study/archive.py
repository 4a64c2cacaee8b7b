"""Archive of a study: its records, scores and tables, without weights, maps and images.

    study.yaml  selection.json  *.csv  store/runs/ID/  store/maps/ID/  store/evaluations/ID/

An archive is a study folder of its own: `preceptor report` makes the tables and the page from it
again, if the manifests it names are there, and a study with more seeds continues in a copy of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from preceptor.config.yaml_file import load_config
from preceptor.config.yaml_text import dump_yaml
from preceptor.errors import InputError
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.result_folder import SCORES, is_finished, read_record, write_atomically
from preceptor.runtime.strict_json import strict_json
from preceptor.study.config import StudyConfig
from preceptor.study.planned_runs import FILE, read_planned_runs
from preceptor.study.steps import STEP_FOLDERS
from preceptor.study.teacher_runs import MEMBER_STRIDE

KEPT = ("metrics.csv", SCORES)
"""Files of a result folder that an archive contains, beside its record."""
_TABLES = ("*.csv", "summary.md", "selection.json", "planned_runs.json")


def archive_study(
    folder: Path, out: Path, *, manifest: str | None = None, weights: str | None = None
) -> int:
    """Copy the records, scores and tables of a study to a new folder.

    The record of each step keeps its checksums, without those of the files that are left out, whose
    names are in its entry `left_out`. The steps therefore count as finished. A later step that
    needs weights or maps that were left out fails; if the folder of the run is removed, and that of
    its maps, both are computed again.

    Args:
        folder: Study folder.
        out: New folder.
        manifest: Path of the manifest written to the archive, as in a study file: it may contain
            `${VARIABLES}` and `{seed}`; None = that of the study. Runs that the study does not
            have any more, of other manifests, are then left out.
        weights: Path of the weights file written to the archive, which may contain `${VARIABLES}`;
            None = that of the study.

    Returns:
        Number of steps in the archive.

    Raises:
        InputError: The folder is not a study folder, its store is elsewhere, a record is damaged,
            it is unknown whether a run of another manifest belongs to the study, the output exists,
            `manifest` is given for a study with domains, or `weights` for one without a weights
            file for all of its backbones.
    """
    file = folder / "study.yaml"
    if not file.is_file():
        raise InputError(f"{folder} is not a study folder: it has no study.yaml")
    study = load_config(file, StudyConfig)
    if study.store is not None:
        raise InputError(
            f"{folder}: its results are in a shared store ({study.store}), whose other studies "
            "would be copied too; an archive is made of a study with a store of its own"
        )
    if manifest is not None and study.domains:
        raise InputError("--manifest: the study has domains, each with a manifest of its own")
    if weights is not None and (
        not isinstance(study.weights, str) or study.weights in ("hub", "none")
    ):
        raise InputError("--weights: the study has no weights file for all of its backbones")
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; create it first")
    with replacing(out) as partial:
        partial.mkdir()
        return _copy(folder, partial, study, manifest, weights)


def _copy(
    folder: Path, out: Path, study: StudyConfig, manifest: str | None, weights: str | None
) -> int:
    values = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    files: dict[str, str] = {}  # weights file: here, and in the archive
    if weights is not None:
        files[str(study.weights)] = values["weights"] = weights
    names: dict[str, str] = {}  # manifests of the seeds: here, and in the archive
    if manifest is not None:
        values["manifest"] = manifest
        names = {
            str(study.manifest_of(seed)): manifest.replace("{seed}", str(seed))
            for seed in study.seed_list
        }
    write_atomically(out / "study.yaml", dump_yaml(values))
    for pattern in _TABLES:
        for table in sorted(folder.glob(pattern)):
            shutil.copyfile(table, out / table.name)
    planned = read_planned_runs(folder)
    seeds = {one.id: one.seed for one in planned or ()}
    count = 0
    for kind in sorted({name for name in STEP_FOLDERS.values() if name}):
        for step in sorted((folder / "store" / kind).glob("*")):
            if not is_finished(step):
                continue
            moved: dict[str, str] = {}
            other = _other_manifest(step, names)
            if other is not None and planned is None:
                raise InputError(
                    f"{folder / FILE} is missing or damaged, and {step.name} was trained on "
                    f"{other}, which may be the former place of the data; repeat the command of "
                    "the study, which writes the file again"
                )
            if other is not None:
                if step.name not in seeds:  # of a seed that the study had once
                    continue
                assert manifest is not None
                moved = {other: manifest.replace("{seed}", str(_draw(study, seeds[step.name])))}
            _copy_step(step, out / "store" / kind / step.name, names | files | moved)
            count += 1
    return count


def _other_manifest(folder: Path, manifests: dict[str, str]) -> str | None:
    """Manifest of a run if it is none of these: the data were moved, or the study had it once."""
    config = read_record(folder).get("config") or {}
    if not manifests or "manifest" not in config:
        return None
    # An archive that was continued has the names of archives too.
    known = config["manifest"] in {*manifests, *manifests.values()}
    return None if known else str(config["manifest"])


def _draw(study: StudyConfig, seed: int) -> int:
    """Seed of the study whose images a run has; further members of committees have higher ones."""
    return seed if seed in study.seed_list else seed % MEMBER_STRIDE


def _copy_step(folder: Path, out: Path, names: dict[str, str]) -> None:
    record = read_record(folder)
    files = record.get("files", {})
    out.mkdir(parents=True)
    for name in KEPT:
        if name in files:
            shutil.copyfile(folder / name, out / name)
    record["files"] = {name: files[name] for name in files if name in KEPT}
    record["left_out"] = sorted(set(files) - set(KEPT))
    if "config" in record:
        study = str(folder.parents[2].absolute())
        record["config"] = _portable(record["config"], names, study)
    write_atomically(out / "run.json", strict_json(record) + "\n", flush=False)


def _portable(value: Any, names: dict[str, str], study: str) -> Any:
    """Config of a run with the names of the archive, and paths from the study folder."""
    if isinstance(value, dict):
        return {key: _portable(one, names, study) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    return names.get(value, value.removeprefix(f"{study}/"))
