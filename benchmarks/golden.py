"""Is everything as before? Tables, scores, weights and run ids against the hashes in golden.json.

    python benchmarks/golden.py [--only archives study ids parity] [--write]

archives  tables made again from the scores of every archive in benchmarks/evidence, file by file
study     a small study on forged images: scores of every role, tables, and the weights of a
          Baseline 1, a ceiling and a mapper
ids       ids of all planned runs of every study file, on stand-in images
parity    ONNX files of two networks against the networks themselves

Scores and weights depend on the processor and on the versions of torch and NumPy: the part `study`
is compared on the machine that golden.json names and only printed on others. `--write` records the
hashes of this machine; do so on the commit to compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import load_file

from preceptor.config.files import parse_config, read_yaml
from preceptor.models.build import build_model, save_model
from preceptor.results.domain import csv_files, study_results
from preceptor.results.record import RUNS, is_archive, read_archive
from preceptor.study.config import StudyConfig
from preceptor.study_folder import read_study

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks" / "golden.json"
EVIDENCE = ROOT / "benchmarks" / "evidence"
SETS = ("val", "val-unseen", "val-noshort", "test", "test-seen", "test-unseen")
STUDY = """
manifest: ${GOLDEN}/{seed}/manifest.csv
positive: forged
primary: test-seen
seeds: 2
annotated: 20
annotated_per_seed: true
teachers: [test_byobnet]
students: [test_byobnet]
weights: none
backbone_args: {test_byobnet: {output_stride: 8}}
alphas: [0.5]
teacher_alphas: [0.5]
mapper: true
controls: [shuffled, centre, pca, shuffled_human, masked, dfr]
dfr_set: val-noshort
training:
  {input_size: 32, batch_size: 8, steps: 40, epochs: 2, optimizer: adamw, lr: 0.004,
   schedule: one_cycle, checkpoint: last, threads: 1, augmentation: {quarter_turns: true}}
"""


def main() -> None:
    """Print what differs; exit with 1 if something does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    now: dict[str, Any] = before | {"machine": machine()} if options.write else {}
    wrong = 0
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            found = flat(PARTS[name](Path(folder)))
        now[name] = found
        if name == "study" and not options.write and before.get("machine") != machine():
            print(f"study: not compared, recorded on {before.get('machine')}; this is {machine()}")
            continue
        lines = differences(before.get(name, {}), found)
        print(f"{name}: {len(found)} values, {len(lines)} differ", flush=True)
        if not options.write:
            print("".join(f"  {line}\n" for line in lines), end="", flush=True)
            wrong += len(lines)
    if options.write:
        FILE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.exit(1 if wrong and not options.write else 0)


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """One line for each hash that differs, is new or is missing."""
    names = sorted({*before, *now})
    return [
        f"{name}: {before.get(name, 'not there')} before, {now.get(name, 'not there')} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def machine() -> str:
    """Processor and versions that determine the bits of a training."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    name = found[1] if found else platform.processor()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, " + (
        f"numpy {np.__version__}"
    )


def archives(work: Path) -> dict[str, Any]:
    """Hash of every table of every archive, made again from its scores."""
    found: dict[str, dict[str, str]] = {}
    for one in filter(is_archive, sorted(EVIDENCE.iterdir())):
        found[one.name] = {}
        for file, text in csv_files(study_results(read_archive(one))).items():
            same = file == RUNS or not (one / file).is_file() or text == (one / file).read_text()
            note = "" if same else ", unlike the file in the archive"
            found[one.name][file.removesuffix(".csv")] = digest(text.encode()) + note
    return found


def study(work: Path) -> dict[str, Any]:
    """Hashes of the scores, tables and weights of a small study on two draws of forged images."""
    run("data", "forged", "--to", str(work / "data"), "--preset", "tiny", "--seeds", "2")
    (work / "study.yaml").write_text(STUDY, encoding="utf-8")
    out = work / "out"
    os.environ["GOLDEN"] = str(work / "data")
    run("study", "run", str(work / "study.yaml"), "--out", str(out), "--jobs", "1")
    tests = {
        json.loads(file.read_text(encoding="utf-8"))["run"]: file.parent
        for file in out.glob("store/evaluations/*/run.json")
    }
    scores: dict[str, list[bytes]] = defaultdict(list)
    weights: dict[str, list[bytes]] = defaultdict(list)
    for row in pd.read_csv(out / "runs.csv", dtype=str, keep_default_na=False).to_dict("records"):
        folder = out / "store" / "runs" / row["run"]
        role = row["role"] + (f" of {row['teacher']}" if row["role"] == "student" else "")
        for place in (folder, tests.get(row["run"])):
            if place is not None:
                table = pd.read_parquet(place / "scores.parquet").filter(like="score_")
                scores[role].append(table.to_numpy(np.float32).tobytes())
        if role in ("baseline1", "ceiling", "mapper"):
            tensors = load_file(folder / "model" / "model.safetensors")
            weights[role] += [tensors[name].tobytes() for name in sorted(tensors)]
    tables = {
        name: digest((out / name).read_bytes())
        for name in ("table.csv", "comparisons.csv", "ladder.csv", "results.csv")
    }
    return {
        "scores": {role: digest(*parts) for role, parts in scores.items()},
        "weights": {role: digest(*parts) for role, parts in weights.items()},
        "tables": tables,
    }


def ids(work: Path) -> dict[str, Any]:
    """Number and hash of the ids of the planned runs of every study file, by role."""
    files = [
        *EVIDENCE.glob("*/study.yaml"),
        *(ROOT / "examples").glob("*.yaml"),
        ROOT / "examples" / "paper" / "study.yaml",
    ]
    images(work)
    found = {}
    for file in sorted(files):
        for name in set(re.findall(r"\$\{(\w+)\}", file.read_text(encoding="utf-8"))):
            os.environ[name] = "paper" if name == "RECIPE" else str(work / file.parent.name / name)
        config = study_of(file)
        if (
            config.positive is None and not config.domains
        ):  # decoys: ten classes, a network of its own
            continue
        seeds = config.seeds
        config = config.model_copy(
            update={"seeds": min(seeds, 2) if isinstance(seeds, int) else seeds[:2]}
        )
        for own in config.by_domain().values():
            for seed in own.seed_list:
                stand_in(own.manifest_of(seed), work, str(own.positive))
        for weights in (
            [config.weights] if isinstance(config.weights, str) else [*config.weights.values()]
        ):
            if weights not in ("none", "hub"):
                Path(weights).parent.mkdir(parents=True, exist_ok=True)
                Path(weights).write_bytes(Path(weights).name.encode())
        plan = read_study(config, work / "out")
        roles: dict[str, set[str]] = defaultdict(set)
        for stage in plan.outline():
            for step in stage:
                if step.kind == "train":
                    roles[step.work.arm.label].add(step.id)
        found[file.relative_to(ROOT).as_posix()] = {
            role: f"{len(known)} runs {digest(*(one.encode() for one in sorted(known)))}"
            for role, known in roles.items()
        }
    return found


def study_of(file: Path) -> StudyConfig:
    """Config of a study file; in those of archives, settings of today for the former ones."""
    values, _ = read_yaml(file.read_text(encoding="utf-8"))
    values.get("training", {}).pop("length", None)  # steps alone say it
    if values.get("mapper") == {}:
        values["mapper"] = True
    if values.pop("excluded_teachers", None):  # all but the mappers
        values |= {"teacher_alphas": [], "data_driven": False}
    return parse_config(values, StudyConfig, base=file.parent)


def images(work: Path) -> None:
    """Images of 8 × 8 pixels with a map each: 700 of the training set, 8 of every other."""
    for kind in ("images", "maps"):
        (work / kind).mkdir()
        for row in range(700 + 8 * len(SETS)):
            pixels = np.random.default_rng([row, kind == "maps"]).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(work / kind / f"{row}.bmp")


def stand_in(manifest: Path, work: Path, positive: str) -> None:
    """Write a table with the stand-in images at the path of a manifest."""
    names = ["train"] * 700 + [name for name in SETS for _ in range(8)]
    above = os.path.relpath(work, manifest.parent)
    lines = ["path,label,split,saliency,annotated,source,group"]
    for row, split in enumerate(names):
        marked = row % 2 == 0
        place = f"{above}/maps/{row}.bmp" if marked else ""
        label = positive if marked else "other"
        lines.append(f"{above}/images/{row}.bmp,{label},{split},{place},1,a,{row}")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parity(work: Path) -> dict[str, Any]:
    """Whether ONNX files of two networks give the scores and maps of the networks."""
    found = {}
    for backbone, size in (("test_byobnet", 64), ("densenet121", 96)):
        torch.manual_seed(0)
        save_model(build_model(backbone, ["no", "yes"], input_size=size), work / backbone)
        run("export", str(work / backbone), "--out", str(work / f"{backbone}.onnx"))
        found[backbone] = "equal within the limits of preceptor export"
    return found


def run(*arguments: str) -> str:
    """Output of a command of this library."""
    command = [sys.executable, "-m", "preceptor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def digest(*parts: bytes) -> str:
    """Short hash of some bytes."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    """Nested values with names like `a / b`."""
    found = {}
    for name, value in values.items():
        key = f"{before} / {name}" if before else name
        found |= flat(value, key) if isinstance(value, dict) else {key: value}
    return found


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "archives": archives,
    "study": study,
    "ids": ids,
    "parity": parity,
}

if __name__ == "__main__":
    main()
