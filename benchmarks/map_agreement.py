"""Where models of a finished study look: correlation of their CAMs with human maps.

    python benchmarks/map_agreement.py STUDY_FOLDER

A line a role, backbone and α (mean over seeds), a column a split and source: training images with a
map, validation, seen and unseen kinds. Reads a study folder, trains nothing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from preceptor.data.loader import MapTargets
from preceptor.inference.predict import predict
from preceptor.models.model_folder import load_model
from preceptor.runtime.result_folder import is_finished
from preceptor.saliency.agreement import correlation
from preceptor.study_folder import reopen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", type=Path, help="folder of a finished study")
    plan = reopen(parser.parse_args().study).first
    protocol, workspace = plan.protocol, plan.protocol.workspace
    table = workspace.manifest.table
    chosen = np.flatnonzero((table["saliency"] != "").to_numpy())
    # Which training images are among the annotated ones, whose maps a Teacher has seen.
    config = protocol.config(protocol.study.students[0], protocol.study.seed_list[0])
    seen = workspace.annotated(config)[chosen]
    split = table["split"].to_numpy(object)[chosen]
    where = np.where(split == "train", np.where(seen, "train A", "train not A"), split)
    winner = str(plan.winner())
    found: dict[tuple[str, str, float], list[pd.Series]] = defaultdict(list)
    for member in plan.members:
        arm, folder = member.arm, protocol.run_folder(member.run)
        if not is_finished(folder) or (
            arm.role in ("student", "shuffled") and arm.teacher != winner
        ):
            continue
        model = load_model(folder / "model")
        form, cache = model.spec.image_format, protocol.study.training.cache
        targets = MapTargets.human(np.ones(len(chosen), np.float32))
        rows = workspace.rows(chosen, form, cache=cache, targets=targets, grid=model.grid())
        cams = predict(model, rows, cams="label").cams
        assert cams is not None
        values, valid = correlation(cams, rows.maps_on_grid(np.arange(len(rows))))
        frame = pd.DataFrame({"where": where, "value": np.where(valid, values, np.nan)})
        key = (arm.role, arm.backbone, arm.alpha)
        found[key].append(frame.groupby("where")["value"].mean())
    lines = pd.DataFrame(
        {key: pd.concat(parts, axis=1).mean(axis=1) for key, parts in found.items()}
    )
    print(f"Correlation of CAMs with human maps (mean over images and seeds); Teacher: {winner}")
    print(lines.T.rename_axis(["role", "backbone", "α"]).to_string(float_format="%.2f"))


if __name__ == "__main__":
    main()
