"""Which families of backbones can be guided, what it costs, and whether their maps follow.

    python benchmarks/families.py [--out families.csv] [--data FOLDER] [--only NAME ...]

A row a family, in the smallest of its members, from random weights, at the smallest input that has
a feature grid of 4 × 4 or more: how its saliency is taken; the time of a guided training step ÷ a
plain one, the median over turns; and the correlation of its maps of the label's class with the
human maps of 64 training images, before and after 200 guided steps. The images are forged
photographs of the built-in benchmark (preset `full`, seed 0, 256 training crops; the 64 are the
first that are forged). Steps, α (0.1, l2), batch size, optimizer (AdamW) and seed are the same for
all. One thread; about 50 minutes. A row is written as soon as it is measured, and a row that is
there is not measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import in_turn, machine, ratio
from torch.nn import functional

from preceptor.benchmark.forged import write_forged
from preceptor.benchmark.forged_settings import PRESETS
from preceptor.config.training import Augmentation
from preceptor.data.loader import Batch, MapTargets, Rows, TrainingStream
from preceptor.data.workspace import Workspace
from preceptor.errors import InputError
from preceptor.inference.predict import predict, to_device
from preceptor.losses.guided import GuidedLoss
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.saliency.agreement import correlation

TRAINED_ON, MEASURED_ON = 256, 64
# At lr 1e-3 without a warm-up the plain ViT stays where it is (0.12); at 3e-4 every family moves.
STEPS, BATCH, ALPHA, LR, SEED, TURNS = 200, 16, 0.1, 3e-4, 0, 9

# Family, backbone, input size, further arguments. 112 px where strides round up, else 128 px.
Family = tuple[str, str, int, dict[str, Any]]
FAMILIES: tuple[Family, ...] = (
    ("ResNet", "resnet18", 112, {}),
    ("DenseNet", "densenet121", 128, {}),
    ("Xception", "legacy_xception", 112, {}),
    ("Inception-v3", "inception_v3", 171, {}),
    ("EfficientNet", "efficientnet_b0", 112, {}),
    ("MobileNetV2", "mobilenetv2_050", 112, {}),
    ("RegNet", "regnety_002", 112, {}),
    ("MobileOne, RepVGG", "mobileone_s0", 112, {}),
    ("FastViT", "fastvit_t8", 112, {}),
    ("RepViT", "repvit_m0_9", 112, {}),
    ("MobileViT", "mobilevit_xxs", 128, {}),
    ("MaxViT", "maxvit_pico_rw_256", 128, {}),
    ("PVT v2", "pvt_v2_b0", 112, {}),
    # Half as wide as the smallest member, and as deep.
    ("Swin v2", "swinv2_tiny_window8_256", 128, {"embed_dim": 48}),
    ("MLP-Mixer", "mixer_s32_224", 128, {}),
    ("ResMLP", "resmlp_12_224", 64, {}),
    ("ConvNeXt", "convnext_atto", 128, {}),
    ("EdgeNeXt", "edgenext_xx_small", 128, {}),
    ("MambaOut", "mambaout_femto", 112, {}),
    ("PoolFormer", "poolformer_s12", 112, {}),
    ("MobileNetV3", "mobilenetv3_small_050", 112, {}),
    ("GhostNet", "ghostnet_050", 112, {}),
    ("HGNetV2", "hgnetv2_b0", 112, {}),
    ("EfficientViT", "efficientvit_b0", 112, {}),
    # Without its hidden layer of 4096, which is 119 of its 129 M parameters.
    ("VGG", "vgg11_bn", 128, {"mlp_ratio": 0.01}),
    ("LeViT", "levit_128s", 224, {}),
    ("EVA-02", "eva02_tiny_patch14_224", 84, {}),
    ("ViT", "vit_tiny_patch16_224", 96, {}),
    ("DeiT, distilled", "deit_tiny_distilled_patch16_224", 96, {}),
    ("ConViT", "convit_tiny", 96, {}),
    ("CaiT", "cait_xxs24_224", 64, {}),
    ("XCiT", "xcit_nano_12_p16_224", 96, {}),
)


def forged_rows(workspace: Workspace, model: GuidedModel, count: int | None = None) -> Rows:
    """Training crops with their human maps on the model's grid: all, or the first with a map."""
    table = workspace.manifest.table
    has_map = (table["saliency"] != "").to_numpy()
    chosen = np.flatnonzero(workspace.train_mask & (has_map if count else True))[:count]
    targets = MapTargets(
        has_map[chosen].astype(np.float32), None, np.full(len(chosen), -1, np.int64)
    )
    return workspace.rows(
        chosen, model.spec.image_format, targets=targets, grid=model.guidable_grid()
    )


def agreement(model: GuidedModel, rows: Rows) -> tuple[float, int]:
    """Mean correlation of the maps of the label's class with the human maps, and of how many."""
    cams = predict(model, rows, cams="label").cams
    assert cams is not None
    values, valid = correlation(cams, rows.maps_on_grid(np.arange(len(rows))))
    return float(values[valid].mean()), int(valid.sum())


class Steps:
    """A plain and a guided training step of one model."""

    def __init__(self, model: GuidedModel, lr: float) -> None:
        self.model, self.loss = model, GuidedLoss(ALPHA, "l2")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def plain(self, batch: Batch) -> float:
        logits, _ = self.model(self.images(batch))
        return self.finish(functional.cross_entropy(logits, batch.labels))

    def guided(self, batch: Batch) -> float:
        logits, _, saliency, _ = self.model(self.images(batch), batch.labels)
        return self.finish(self.loss(logits, batch.labels, saliency, batch.maps, batch.map_weight))

    def images(self, batch: Batch) -> torch.Tensor:
        return self.model.preprocess(to_device(batch.images, self.model.device, True))

    def finish(self, loss: torch.Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def measure(family: Family, workspace: Workspace, lr: float, steps: int) -> dict[str, Any]:
    name, backbone, size, arguments = family
    started = time.monotonic()
    torch.manual_seed(SEED)
    model = build_model(
        backbone,
        workspace.manifest.classes,
        positive="forged",
        input_size=size,
        backbone_args=arguments,
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows, measured = forged_rows(workspace, model), forged_rows(workspace, model, MEASURED_ON)
    before, _ = agreement(model, measured)
    train = Steps(model, lr)
    stream = TrainingStream(rows, BATCH, seed=SEED, settings=Augmentation())
    model.train()
    losses = [train.guided(batch) for batch in stream.steps(0, steps)]
    after, usable = agreement(model, measured)
    model.train()
    batch = next(stream.steps(0, 1))
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: train.plain(batch),
        "guided": lambda: train.guided(batch),
    }
    seconds = in_turn(sides, turns=TURNS)
    typical, least, most = ratio(seconds, "guided", "plain")
    height, width = model.grid()
    return {
        "family": name,
        "backbone": backbone,
        "arguments": " ".join(f"{key}={value}" for key, value in arguments.items()),
        "saliency": model.spec.cam + (" before the last block" if model.spec.tap else ""),
        "parameters": sum(p.numel() for p in model.parameters()),
        "input": size,
        "grid": f"{height} × {width}",
        "plain_seconds": round(min(seconds["plain"]), 4),
        "ratio": round(typical, 3),
        "ratio_least": round(least, 3),
        "ratio_most": round(most, 3),
        "agreement_before": round(before, 3),
        "agreement_after": round(after, 3),
        "measured": usable,
        "loss_first": round(float(np.mean(losses[:10])), 3),
        "loss_last": round(float(np.mean(losses[-10:])), 3),
        "lr": lr,
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
    }


def markdown(table: pd.DataFrame) -> str:
    names = {"cam": "CAM", "gradcam": "Grad-CAM"}
    lines = [
        "| family | backbone | saliency | parameters | input | grid | guided ÷ plain | agreement "
        "before → after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.to_dict("records"):
        kind, _, tap = str(row["saliency"]).partition(" ")
        extra = f" ({row['arguments']})" if row["arguments"] else ""
        before = f"{row['agreement_before']:.2f}"
        if before == "nan":  # every map is constant: LeViT's batch norms have not seen an image
            before = "none"
        lines.append(
            f"| {row['family']} | {row['backbone']}{extra} | {names[kind]} {tap}".rstrip()
            + f" | {row['parameters'] / 1e6:.1f} M | {row['input']} | {row['grid']} "
            f"| {row['ratio']:.2f} ({row['ratio_least']:.2f}-{row['ratio_most']:.2f}) "
            f"| {before} → {row['agreement_after']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("families.csv"))
    parser.add_argument("--data", type=Path, default=Path("families-data"))
    parser.add_argument("--only", nargs="+", default=None, help="backbones")
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), flush=True)
    settings = PRESETS["full"].model_copy(update={"train": TRAINED_ON})
    workspace = Workspace.open(
        write_forged(arguments.data / "forged", settings, SEED), arguments.data / "cache"
    )
    order = {family[1]: position for position, family in enumerate(FAMILIES)}
    rows: list[dict[str, Any]] = []
    if arguments.out.is_file():
        table = pd.read_csv(arguments.out).fillna({"arguments": ""})
        rows = table.to_dict("records")  # type: ignore[assignment]
    done = {row["backbone"] for row in rows}
    for family in FAMILIES:
        if family[1] in done or (arguments.only and family[1] not in arguments.only):
            continue
        try:
            rows.append(measure(family, workspace, arguments.lr, arguments.steps))
        except InputError as error:
            print(f"{family[1]}: {error}", flush=True)
            continue
        row = rows[-1]
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
        print(
            f"{row['backbone']:32} {row['saliency']:9} {row['grid']} ÷ {row['ratio']:.2f} "
            f"agreement {row['agreement_before']:.2f} → {row['agreement_after']:.2f} "
            f"loss {row['loss_first']:.2f} → {row['loss_last']:.2f} {row['seconds']:.0f} s",
            flush=True,
        )
    rows.sort(key=lambda row: order[row["backbone"]])
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
