"""A Teacher marks, people correct, the next Teacher is trained: against marks from nothing.

    python benchmarks/circle.py STUDY --manifests 'DRAWS/{seed}/manifest.csv' --to FOLDER

Three arms per seed, whose people are simulated on the real server (benchmarks/simulate.py):

- `first`: the marks of 20 images, from nothing; its Teacher proposes maps of 200 further images.
- `corrected`: these 20, and as many corrected proposals as fit into the time of `nothing`.
- `nothing`: the marks of 60 images, from nothing.

STUDY is the study file of all arms, with `manifest: ${CIRCLE}/{seed}/manifest.csv`; the manifests
have the marks of all images. FOLDER/circle.csv has a row per seed and arm. What is there is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulate import Simulation, simulate

from preceptor.cli.output import list_runs
from preceptor.config.files import load_config
from preceptor.data.manifest import Manifest
from preceptor.study.config import StudyConfig

FIRST, MARKS, FURTHER = 20, 60, 200  # images: marked at first, in all without a Teacher, proposed


def preceptor(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "preceptor", *map(str, arguments)], check=True)


def write(
    known: pd.DataFrame, marked: list[Path], to: Path, images: list[str] | None = None
) -> None:
    """Write a manifest in which training images have the marks of exports, and no others.

    `images` are the names of the images whose marks count; None = all.
    """
    table = known.copy()
    training = table["split"] == "train"
    table.loc[training, "saliency"] = ""
    table.loc[training, "annotated"] = False
    names = table["path"].map(lambda path: Path(path).name)
    for export in marked:
        found = Manifest.read(export / "manifest.csv", verify=False, need=()).table
        found = found[found["annotated"] & (found["split"] == "train")]
        for row in found.itertuples():
            name = Path(row.path).name
            if images is None or name in images:
                at = table.index[training & (names == name)]
                table.loc[at, ["saliency", "annotated"]] = [row.saliency, True]
    to.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(to, index=False)


def marks(manifest: Path, folder: Path, settings: Simulation) -> pd.DataFrame:
    """Answers of simulated people; their marks are exported to FOLDER/marks."""
    if not (folder / "marks").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        simulate(manifest, folder, settings)
        preceptor("label", "export", folder / "marks.sqlite", "--to", folder / "marks")
    return pd.read_csv(folder / "simulation.csv")


def known_of(manifest: Path) -> pd.DataFrame:
    return Manifest.read(manifest, verify=False, need=()).table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--manifests", required=True)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    out = given.to.absolute()
    os.environ["CIRCLE"] = str(out)
    seeds = load_config(given.study, StudyConfig).seed_list
    manifests = {seed: Path(given.manifests.format(seed=seed)) for seed in seeds}
    rows: dict[tuple[str, int], dict[str, float]] = {}

    def note(arm: str, seed: int, answers: pd.DataFrame) -> None:
        rows[arm, seed] = {
            "marks": len(answers),
            "minutes": answers["seconds"].sum() / 60,
            "overlap": answers["overlap"].mean(),
            "proposal_overlap": answers["proposal_overlap"].mean(),
            "adopted": float(answers["adopted"].sum()),
        }

    def study(arm: str) -> None:
        os.environ["CIRCLE"] = str(out / arm)
        preceptor("study", given.study, "--out", out / f"{arm}-study")
        found = pd.read_csv(out / f"{arm}-study" / "results.csv", keep_default_na=False)
        primary = load_config(given.study, StudyConfig).primary
        found = found[(found["set"] == primary) & (found["source"] == "")]
        for role in ("student", "baseline1"):
            for row in found[found["role"] == role].itertuples():
                rows[arm, int(row.seed)][role] = float(row.auc)

    for seed, manifest in manifests.items():
        answers = marks(manifest, out / "people" / str(seed), Simulation(MARKS, seed=seed))
        exported, first = out / "people" / str(seed) / "marks", answers[:FIRST]
        note("nothing", seed, answers)
        note("first", seed, first)
        known = known_of(manifest)
        write(known, [exported], out / "nothing" / str(seed) / "manifest.csv")
        target = out / "first" / str(seed) / "manifest.csv"
        write(known, [exported], target, list(first["image"]))
    study("first")

    teachers = {one.seed: one.id for one in list_runs(out / "first-study") if "mapper" in one.roles}
    store = load_config(out / "first-study" / "study.yaml", StudyConfig)
    runs = store.store_of(out / "first-study") / "runs"
    for seed, manifest in manifests.items():
        answers = pd.read_csv(out / "people" / str(seed) / "simulation.csv")
        minutes, first = answers["seconds"].sum(), answers[:FIRST]
        known = known_of(manifest)
        others = ~known["path"].map(lambda path: Path(path).name).isin(answers["image"])
        pool = known[(known["split"] == "train") & others].sample(FURTHER, random_state=seed)
        further = out / "further" / str(seed) / "manifest.csv"
        further.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([pool, known[known["split"] != "train"]]).to_csv(further, index=False)
        maps = further.parent / "maps"
        preceptor("annotate", runs / teachers[seed], further, "--out", maps, "--method", "cells")
        settings = Simulation(2 * MARKS, start_from=maps, seed=seed)
        corrected = marks(further, out / "corrected-people" / str(seed), settings)
        spent = first["seconds"].sum() + corrected["seconds"].cumsum()
        corrected = corrected[spent <= minutes]
        note("corrected", seed, pd.concat([first, corrected]))
        exports = [out / who / str(seed) / "marks" for who in ("people", "corrected-people")]
        names = [*first["image"], *corrected["image"]]
        write(known, exports, out / "corrected" / str(seed) / "manifest.csv", names)
    for arm in ("corrected", "nothing"):
        study(arm)
    table = pd.DataFrame([{"arm": arm, "seed": seed} | row for (arm, seed), row in rows.items()])
    table.sort_values(["arm", "seed"]).round(6).to_csv(out / "circle.csv", index=False)
    print(table.drop(columns="seed").groupby("arm").mean().round(3).to_string())


if __name__ == "__main__":
    main()
