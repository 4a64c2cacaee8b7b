"""Parity of exported ONNX files with their models, over families of backbones and both heads.

Each backbone, untrained, is exported by `export_model`, which checks it on synthetic images at its
input size. The file is then computed by ONNX Runtime for several batch sizes, and where its size is
dynamic for a larger one, and compared with the model. The table has a row per backbone and head; a
row that is there already is not computed again.

    python benchmarks/export_parity.py --out benchmarks/evidence/export_parity/parity.csv
"""

from __future__ import annotations

import argparse
import csv
import gc
import tempfile
import time
from pathlib import Path

import timm
import torch

from preceptor.config.image_format import ImageFormat
from preceptor.errors import PreceptorError
from preceptor.model_export.check_images import synthetic_images
from preceptor.model_export.export import ExportSettings, export_model
from preceptor.model_export.onnx import graph_outputs
from preceptor.model_export.parity import TOLERANCE, measure, model_outputs
from preceptor.model_export.traced import LARGER
from preceptor.models.build import build_model
from preceptor.models.model_folder import load_model, save_model

# Backbone and input size in pixels: small ones with the layers of their family and a grid of at
# least 2 × 2 cells.
BACKBONES = {
    "resnet18": 64,
    "densenet121": 64,
    "legacy_xception": 96,
    "inception_v3": 139,
    "mobilenetv3_small_050": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 64,
    "efficientnet_b0": 64,
    "regnety_002": 64,
    "vgg11_bn": 64,
    "repvgg_a0": 64,
    "ghostnet_050": 64,
    "dla46_c": 64,
    "poolformer_s12": 64,
    "mobilevit_xxs": 64,
    "edgenext_xx_small": 64,
    "ese_vovnet19b_slim_dw": 64,
    "legacy_seresnet18": 64,
    "resnet50": 64,
    "mobilenetv2_050": 64,
    "rexnet_100": 64,
    "selecsls42": 128,
    "mixer_s32_224": 224,
    "resmlp_12_224": 224,
    "fastvit_t8": 64,
    "cspresnet50": 64,
    "res2net50_26w_4s": 64,
    "dpn48b": 64,
    "convnextv2_atto": 64,
    "deit_tiny_patch16_224": 64,
    "regnetx_002": 64,
    "swin_tiny_patch4_window7_224": 224,
}
HEADS = ("softmax", "sigmoid")
BATCHES = (1, 2, 7)
COLUMNS = (
    "backbone", "family", "head", "map", "size", "dynamic_size", "batches", "sizes",
    "probabilities", "maps", "seconds", "refused",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = set()
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            known = {(row["backbone"], row["head"]) for row in csv.DictReader(file)}
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
    for backbone in arguments.backbones:
        for head in HEADS:
            if (backbone, head) in known:
                continue
            row = parity_of(backbone, head)
            with arguments.out.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)
            print(*(row[key] for key in COLUMNS), flush=True)
            gc.collect()
    with arguments.out.open(newline="") as file:
        summarise(list(csv.DictReader(file)))


def parity_of(backbone: str, head: str) -> dict[str, object]:
    """Row of the table."""
    side, started = BACKBONES[backbone], time.process_time()
    row: dict[str, object] = dict.fromkeys(COLUMNS, "") | {
        "backbone": backbone, "head": head, "size": side,
        "family": timm.models.model_entrypoint(backbone).__module__.split(".")[-1],
    }  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "model"), Path(place, "model.onnx")
        try:
            model = build_model(
                backbone, ["real", "fake"], positive="fake", input_size=side, head=head
            )
            row["map"] = model.spec.cam
            save_model(model, folder)
            exported = export_model(folder, out, ExportSettings("onnx"))
        except PreceptorError as error:
            row["refused"] = str(error)
            return row
        further = [(0, 0), LARGER] if exported.dynamic_size else [(0, 0)]
        first, second = (
            model_outputs(load_model(folder), maps=True),
            graph_outputs(out.read_bytes()),
        )
        gaps = [(exported.parity.probabilities, exported.parity.maps or 0.0)]
        for larger in further:
            for count in BATCHES:
                images = synthetic_images(ImageFormat(side), count, larger)
                found = measure(first, second, images, 1)
                gaps.append((found.probabilities, found.maps or 0.0))
    return row | {
        "dynamic_size": exported.dynamic_size,
        "batches": " ".join(map(str, BATCHES)),
        "sizes": " ".join(f"{side + rows}×{side + columns}" for rows, columns in further),
        "probabilities": f"{max(gap[0] for gap in gaps):.1e}",
        "maps": f"{max(gap[1] for gap in gaps):.1e}",
        "seconds": f"{time.process_time() - started:.0f}",
    }


def summarise(rows: list[dict[str, str]]) -> None:
    """Print the largest differences, and what was refused."""
    done = [row for row in rows if not row["refused"]]
    worst = {
        key: max((float(row[key]) for row in done), default=0.0)
        for key in ("probabilities", "maps")
    }
    print(
        f"{len(done)} exports of {len({row['backbone'] for row in done})} backbones of "
        f"{len({row['family'] for row in done})} families; largest difference of a probability "
        f"{worst['probabilities']:.1e}, of a map {worst['maps']:.1e} (limit {TOLERANCE:g})"
    )
    for row in rows:
        if row["refused"]:
            print(f"refused: {row['backbone']}, {row['head']}: {row['refused']}")


if __name__ == "__main__":
    main()
