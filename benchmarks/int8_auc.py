"""AUC before and after quantization to 8 bits, on real test sets.

A guided model of each backbone is trained for some steps from ImageNet weights and exported as ONNX
in float32 and int8 (calibrated on validation), and all three compute the same test images. The AUC
of the float32 file is that of the model up to rounding; the correlation is that of the maps of int8
with those of the model, the median over images.

    python benchmarks/int8_auc.py DATA/brain_mri --positive tumour --weights WEIGHTS --out work
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from preceptor import load
from preceptor.config.run import RunConfig
from preceptor.config.training import Augmentation, Training
from preceptor.data.workspace import Workspace
from preceptor.errors import PreceptorError
from preceptor.evaluation.auc import auc
from preceptor.model_export.check_images import validation_images
from preceptor.model_export.export import ExportSettings, export_model
from preceptor.models.model_folder import load_model
from preceptor.training.run import train

BACKBONES = ("mobilenetv2_100", "tf_efficientnet_lite0")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--positive", required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of .safetensors files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    manifest = arguments.data / "manifest.csv"
    print("data           backbone               set            images  model  onnx   int8   map r")
    for backbone in BACKBONES:
        config = RunConfig(
            manifest=manifest, backbone=backbone, positive=arguments.positive, alpha=0.5,
            weights=str(arguments.weights / f"{backbone}.safetensors"),
            training=Training(
                input_size=arguments.size, batch_size=32, length="steps", steps=arguments.steps,
                epochs=2, optimizer="adamw", lr=1e-3, schedule="one_cycle", checkpoint="last",
                threads=1, augmentation=Augmentation(flip=True),
            ),
        )  # fmt: skip
        folder = train(config, arguments.out / "runs").folder / "model"
        files = {
            "onnx": ExportSettings("onnx"),
            "int8": ExportSettings("onnx", int8=True, int8_limit=1),
        }
        predictors = {"model": load(folder)}
        spec = load_model(folder).spec
        workspace = Workspace.open(manifest, arguments.out / "cache")
        images = validation_images(workspace, spec.image_format, spec.classes)
        for name, settings in files.items():
            file = arguments.out / f"{arguments.data.name}-{backbone}-{name}.onnx"
            file.unlink(missing_ok=True)
            try:
                export_model(folder, file, settings, images)
            except PreceptorError as error:
                print(f"{name}: {error}")
                continue
            predictors[name] = load(file)
        table = pd.read_csv(manifest, keep_default_na=False)
        for split in sorted({one for one in table["split"] if one.startswith("test")}):
            rows = table[table["split"] == split]
            labels = (rows["label"] == arguments.positive).to_numpy()
            paths = [str(arguments.data / name) for name in rows["path"]]
            found = {name: list(one(paths)) for name, one in predictors.items()}
            values = {
                name: auc(labels, [one.score for one in mine]) for name, mine in found.items()
            }
            r = [
                np.corrcoef(one.map.ravel(), other.map.ravel())[0, 1]
                for one, other in zip(found["model"], found.get("int8", []), strict=False)
            ]
            print(
                f"{arguments.data.name:14} {backbone:22} {split:14} {len(rows):6} "
                + " ".join(f"{values.get(name, np.nan):6.3f}" for name in ("model", "onnx", "int8"))
                + f" {np.nanmedian(r) if r else np.nan:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
