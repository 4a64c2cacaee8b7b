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
from preceptor.errors import InputError
from preceptor.runtime.replace_file import replacing
from preceptor.runtime.result_folder import SCORES, is_finished, read_record, write_atomically
from preceptor.runtime.strict_json import strict_json
from preceptor.study.config import StudyConfig
from preceptor.study.steps import STEP_FOLDERS

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
            `${VARIABLES}` and `{seed}`; None = that of the study. Steps of other manifests, of
            seeds that the study had once, are then left out.
        weights: Path of the weights file written to the archive, which may contain `${VARIABLES}`;
            None = that of the study.

    Returns:
        Number of steps in the archive.

    Raises:
        InputError: The folder is not a study folder, its store is elsewhere, a record is damaged,
            the output exists, `manifest` is given for a study with domains, or `weights` for one
            without a weights file for all of its backbones.
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
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_atomically(out / "study.yaml", text)
    for pattern in _TABLES:
        for table in sorted(folder.glob(pattern)):
            shutil.copyfile(table, out / table.name)
    count = 0
    for kind in sorted({name for name in STEP_FOLDERS.values() if name}):
        for step in sorted((folder / "store" / kind).glob("*")):
            if is_finished(step) and not _is_of_another(step, names):
                _copy_step(step, out / "store" / kind / step.name, names | files)
                count += 1
    return count


def _is_of_another(folder: Path, manifests: dict[str, str]) -> bool:
    """Whether a step read another manifest, as that of a seed that the study had once."""
    config = read_record(folder).get("config") or {}
    if not manifests or "manifest" not in config:
        return False
    # An archive that was continued has the names of archives too.
    return config["manifest"] not in {*manifests, *manifests.values()}


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
