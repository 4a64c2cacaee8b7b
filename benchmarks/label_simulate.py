"""What a Teacher's proposals save: simulated people mark the same images with and without them.

    python benchmarks/label_simulate.py MANIFEST --to FOLDER --config benchmarks/label_teacher.yaml
        [--seeds 0 1 2] [--images 160] [--modes first after]

With `{seed}` in MANIFEST, every seed has its own. Every seed is marked without proposals and with
each mode; order and deviations of the people are the same. Finished simulations are not repeated.
Compared are the images after the first Teacher, which are the same in all modes: seconds an image,
their ratio to those without proposals, and overlap with the known marks. The costs are assumptions,
see `preceptor.label.annotator_config.Costs`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from preceptor.config.yaml_file import load_config
from preceptor.label.simulate import Simulation, simulate
from preceptor.label.teacher_config import TeacherConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--modes", nargs="+", default=["first", "after"])
    parser.add_argument("--least-overlap", type=float, default=0.0, help="0: always proposed")
    asked = parser.parse_args()
    config = load_config(asked.config, TeacherConfig)
    rows = []
    for seed in asked.seeds:
        plain = done(asked, seed, "never", None)
        for mode in asked.modes:
            helped = done(asked, seed, mode, config)
            rows.append({"seed": seed, "mode": mode} | compared(plain, helped))
            print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"), flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(asked.to / "proposals.csv", index=False, float_format="%.6g")
    print(table.groupby("mode").mean().to_string(float_format="%.3f"))


def done(
    asked: argparse.Namespace, seed: int, mode: str, config: TeacherConfig | None
) -> pd.DataFrame:
    """A simulation, or its rows if it was run before."""
    folder = asked.to / f"{mode}-{seed}"
    if (folder / "simulation.csv").is_file():
        return pd.read_csv(folder / "simulation.csv")
    settings = Simulation(
        images=asked.images,
        proposals=mode,
        teacher=config,
        least_overlap=asked.least_overlap,
        seed=seed,
    )
    manifest = Path(str(asked.manifest).replace("{seed}", str(seed)))
    return simulate(manifest, folder, settings)


def compared(plain: pd.DataFrame, helped: pd.DataFrame) -> dict[str, float]:
    """Seconds and overlap after the first Teacher, with and without proposals."""
    if plain["image"].tolist() != helped["image"].tolist():
        raise SystemExit("the two simulations marked other images")
    after = (helped["teacher_images"] > 0).to_numpy()
    marked = after & (plain["strokes"] > 0).to_numpy()
    return {
        "images": int(after.sum()),
        "seconds without": plain["seconds"][after].mean(),
        "seconds": helped["seconds"][after].mean(),
        "ratio": helped["seconds"][after].mean() / plain["seconds"][after].mean(),
        "ratio with marks": helped["seconds"][marked].mean() / plain["seconds"][marked].mean(),
        "overlap without": plain["overlap"][marked].mean(),
        "overlap": helped["overlap"][marked].mean(),
        "proposal overlap": helped["proposal_overlap"][marked].mean(),
        "adopted": helped["adopted"][marked].mean(),
    }


if __name__ == "__main__":
    main()
