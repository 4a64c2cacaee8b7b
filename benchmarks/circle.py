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

Marks = tuple[pd.DataFrame, Path]  # answers of people, and the folder of their export
FIRST, MARKS, FURTHER = 20, 60, 200  # images: marked at first, without a Teacher, proposed


def preceptor(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "preceptor", *map(str, arguments)], check=True)


def write(known: pd.DataFrame, exports: list[Path], to: Path, images: set[str]) -> None:
    """Write a manifest in which only the named training images have marks, from exports."""
    table = known.copy()
    training = table["split"] == "train"
    table.loc[training, "saliency"] = ""
    table.loc[training, "annotated"] = False
    at = {Path(path).name: row for row, path in table.loc[training, "path"].items()}
    for export in exports:
        found = Manifest.read(export / "manifest.csv", verify=False, need=()).table
        for row in found[found["annotated"] & (found["split"] == "train")].itertuples():
            if (name := Path(row.path).name) in images:
                table.loc[at[name], ["saliency", "annotated"]] = [row.saliency, True]
    to.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(to, index=False)


def sample(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Random training images, as many of each class as possible."""
    shuffled = table[table["split"] == "train"].sample(frac=1, random_state=seed)
    return shuffled.iloc[shuffled.groupby("label").cumcount().argsort(kind="stable")[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--manifests", required=True)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    out = given.to.absolute()
    os.environ["CIRCLE"] = str(out)
    file = load_config(given.study, StudyConfig)
    rows: dict[tuple[str, int], dict[str, float]] = {}
    tables: dict[int, pd.DataFrame] = {}

    def people(who: str, seed: int, images: pd.DataFrame, start_from: Path | None = None) -> Marks:
        """What simulated people answer on images, and the export of their marks."""
        folder = out / "people" / str(seed) / who
        manifest, done = folder / "manifest.csv", folder / "marking"
        if not (done / "marks").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            others = tables[seed][tables[seed]["split"] != "train"]
            pd.concat([images, others]).to_csv(manifest, index=False)
            simulate(manifest, done, Simulation(len(images), start_from=start_from, seed=seed))
            preceptor("label", "export", done / "marks.sqlite", "--to", done / "marks")
        return pd.read_csv(done / "simulation.csv"), done / "marks"

    def arm(name: str, seed: int, *parts: Marks) -> None:
        """Write the manifest of an arm, and note its marks and minutes."""
        answers = pd.concat([answers for answers, _ in parts])
        target = out / name / str(seed) / "manifest.csv"
        write(tables[seed], [marks for _, marks in parts], target, set(answers["image"]))
        rows[name, seed] = {
            "marks": len(answers),
            "minutes": answers["seconds"].sum() / 60,
            "overlap": answers["overlap"].mean(),
            "proposal_overlap": answers["proposal_overlap"].mean(),
            "adopted": float(answers["adopted"].sum()),
        }

    def study(name: str) -> Path:
        os.environ["CIRCLE"] = str(out / name)
        preceptor("study", given.study, "--out", folder := out / f"{name}-study")
        found = pd.read_csv(folder / "results.csv", keep_default_na=False)
        found = found[(found["set"] == file.primary) & (found["source"] == "")]
        for row in found[found["role"] == "student"].itertuples():  # one a seed
            rows[name, int(row.seed)]["student"] = float(row.auc)
        return folder

    chosen: dict[int, pd.DataFrame] = {}
    for seed in file.seed_list:
        manifest = Path(given.manifests.format(seed=seed))
        tables[seed] = Manifest.read(manifest, verify=False, need=()).table
        chosen[seed] = sample(tables[seed], MARKS, seed)
        first = people("first", seed, chosen[seed][:FIRST])
        arm("first", seed, first)
        arm("nothing", seed, first, people("nothing", seed, chosen[seed][FIRST:]))
    folder = study("first")

    teachers = {one.seed: one.id for one in list_runs(folder) if "mapper" in one.roles}
    runs = load_config(folder / "study.yaml", StudyConfig).store_of(folder) / "runs"
    for seed, table in tables.items():
        further = sample(table.drop(chosen[seed].index), FURTHER, seed)
        manifest, maps = (out / "maps" / f"{seed}{end}" for end in (".csv", ""))
        manifest.parent.mkdir(exist_ok=True)
        further.to_csv(manifest, index=False)
        preceptor(
            "annotate",
            runs / teachers[seed] / "model",
            manifest,
            "--out",
            maps,
            "--method",
            "cells",
        )
        first = people("first", seed, chosen[seed][:FIRST])
        answers, marks = people("corrected", seed, further, start_from=maps)
        spent = rows["first", seed]["minutes"] + answers["seconds"].cumsum() / 60
        arm("corrected", seed, first, (answers[spent <= rows["nothing", seed]["minutes"]], marks))
    for name in ("corrected", "nothing"):
        study(name)
    table = pd.DataFrame([{"arm": name, "seed": seed} | row for (name, seed), row in rows.items()])
    table.sort_values(["arm", "seed"]).round(6).to_csv(out / "circle.csv", index=False)
    print(table.drop(columns="seed").groupby("arm").mean().round(3).to_string())


if __name__ == "__main__":
    main()
