"""RISE's estimators: model evaluations against fidelity, on real images and real networks.

    WEIGHTS=FOLDER MAGNETIC_TILE=FOLDER python benchmarks/rise_fidelity.py --out rise-fidelity

Networks: tf_efficientnet_lite0 with its ImageNet weights on photographs (the class it names first),
and a detector of tile defects trained here from the same weights (both classes). 128 px, 7 × 7
cells, float32. Every image is scored under independent random masks (for the published and the
self-normalised estimator and the plain covariance) and under balanced blocks (the default).

Fidelity is the correlation, on a 7 × 7 grid, of the map from N evaluations with a converged one
from masks that no curve uses: 12,288 further balanced ones. That all estimators have one limit is
checked beside it: the correlation of that map with the covariance over all independent masks, and
what it would be if noise alone, as the blocks' spread tells it, kept the two apart. Where the
published estimator does not get to the fidelity with 16,384 masks, the two are compared at what it
got to. Medians over as many disjoint runs of N as there are, at most 24.

The scores are kept in --out, image by image, so the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.maps import MapSource
from preceptor.config.run import RunConfig
from preceptor.config.training import Training
from preceptor.data.resampling import resample
from preceptor.data.workspace import Workspace
from preceptor.models.model_folder import load_model
from preceptor.saliency.fuse_batch_norm import fused
from preceptor.saliency.masked_scores import MaskedScores
from preceptor.saliency.rise import covariance, rise_published, self_normalised
from preceptor.saliency.rise_masks import (
    Block,
    balanced_block,
    ramps,
    random_block,
    render,
    spread_shift,
)
from preceptor.training.run import train

SIDE, CELLS, GRID, BLOCK = 128, 7, 7, 128
INDEPENDENT, CURVE_BLOCKS, LIMIT_BLOCKS = 16384, 64, 96
LENGTHS = [2**power for power in range(7, 15)]
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "camera")
REGIMES = {"f̄/σ < 1": (0, 1), "1 ≤ f̄/σ < 4": (1, 4), "f̄/σ ≥ 4": (4, np.inf)}
Case = tuple[str, Callable[[torch.Tensor], torch.Tensor], torch.Tensor, int]
Array = NDArray[Any]


def photographs(weights: Path) -> list[Case]:
    """Public photographs under an ImageNet network, with the class that it names first."""
    import skimage.data

    file = weights / "tf_efficientnet_lite0.safetensors"
    network = timm.create_model(
        "tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": str(file)}
    )
    call = in_channels_last(network)
    cases: list[Case] = []
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((SIDE, SIDE), box=(left, top, left + side, top + side))
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        cases.append((name, call, tensor, int(call(tensor).argmax())))
    return cases


def tiles(weights: Path, data: Path, out: Path) -> list[Case]:
    """Tiles of the test set under a detector trained here, two a class, with their labels."""
    config = RunConfig(
        manifest=data / "manifest.csv",
        backbone="tf_efficientnet_lite0",
        weights=str(weights / "tf_efficientnet_lite0.safetensors"),
        positive="defect",
        maps=MapSource(kind="human"),
        training=Training(
            input_size=SIDE,
            batch_size=16,
            length="steps",
            steps=150,
            epochs=3,
            lr=0.001,
            optimizer="adamw",
            weight_decay=0.01,
            schedule="one_cycle",
            checkpoint="best_auc",
        ),
    )
    workspace = Workspace.open(config.manifest, out / "cache")
    result = train(config, out / "runs", workspace=workspace, tell=print)
    model = load_model(result.folder / "model")
    table = workspace.manifest.table
    generator = np.random.default_rng(0)
    cases: list[Case] = []
    call = in_channels_last(model.backbone)
    for index, label in enumerate(model.spec.classes):
        where = np.flatnonzero(((table["split"] == "test") & (table["label"] == label)).to_numpy())
        chosen = np.sort(generator.choice(where, 2, replace=False))
        form = model.spec.image_format
        rows = workspace.rows(chosen, form, model.spec.classes, cache="none")
        images = model.preprocess(rows.batch(np.arange(len(chosen))).images)
        cases += [
            (f"{label} {row}", call, image[None], index)
            for row, image in zip(chosen, images, strict=True)
        ]
    return cases


def in_channels_last(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as `rise` runs it: batch norms fused, channels-last."""
    own = fused(network, torch.randn(2, 3, SIDE, SIDE)).to(memory_format=torch.channels_last)

    def call(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return own(images.contiguous(memory_format=torch.channels_last))

    return call


def blocks(count: int, seed: int, *, balanced: bool) -> list[Block]:
    """Blocks of 128 masks."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.rand(2, generator=generator).tolist()
    pixels = len(ramps(SIDE, CELLS))
    shifts = (pixels, pixels)
    if not balanced:
        return [random_block(CELLS, BLOCK, shifts, generator) for _ in range(count)]
    return [
        balanced_block(CELLS, BLOCK, spread_shift(index, (row, column), shifts), generator)
        for index in range(count)
    ]


def sets_of_masks() -> dict[str, list[Block]]:
    """The masks of all cases, by what they are for."""
    return {
        "independent": blocks(INDEPENDENT // BLOCK, 1, balanced=False),
        "balanced": blocks(CURVE_BLOCKS, 2, balanced=True),
        "limit": blocks(LIMIT_BLOCKS, 3, balanced=True),
    }


def score(case: Case, masks: dict[str, list[Block]], file: Path) -> dict[str, Array]:
    """The scores of one image under all masks, from the file if they are there."""
    _, call, image, index = case
    if not file.is_file():
        weights = ramps(SIDE, CELLS)
        scores = MaskedScores(image, torch.tensor([index]), call)
        first = torch.tensor([0])
        found = {
            kind: torch.cat([scores(first, render(b, weights, weights))[0] for b in group]).numpy()
            for kind, group in masks.items()
        }
        np.savez(file.with_suffix(".part.npz"), **found)
        file.with_suffix(".part.npz").rename(file)
    return dict(np.load(file))


def on_grid(group: list[Block]) -> torch.Tensor:
    """(n, GRID, GRID) the masks averaged over the cells of the map."""
    weights = ramps(SIDE, CELLS)
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(weights), 4)
    pooled = resample(weights, unit, unit, (GRID, CELLS))
    return torch.cat([render(block, pooled, pooled) for block in group]).double()


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


def by_blocks(scores: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The default: the mean of the blocks' covariances."""
    pairs = zip(scores.split(BLOCK), masks.split(BLOCK), strict=True)
    return torch.stack([covariance(f, m) for f, m in pairs]).mean(0)


ESTIMATORS = {
    "published": ("independent", rise_published),
    "self-normalised": ("independent", self_normalised),
    "covariance": ("independent", covariance),
    "default": ("balanced", by_blocks),
}


def curves(scores: dict[str, Array], grids: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Fidelity of each estimator at each length, for one image."""
    values = {kind: torch.from_numpy(part).double() for kind, part in scores.items()}
    limit = by_blocks(values["limit"], grids["limit"])
    f = scores["independent"]
    row: dict[str, Any] = {"mean": f.mean(), "ratio": f.mean() / f.std(), "sigma": f.std()}
    row["same limit"] = correlation(limit, covariance(values["independent"], grids["independent"]))
    row["noise alone"] = np.sqrt(
        np.prod([reliability(values[kind], grids[kind]) for kind in ("limit", "independent")])
    )
    for name, (kind, estimate) in ESTIMATORS.items():
        for length in LENGTHS:
            parts = min(24, len(values[kind]) // length)
            pieces = [slice(k * length, (k + 1) * length) for k in range(parts)]
            found = [
                correlation(estimate(values[kind][part], grids[kind][part]), limit)
                for part in pieces
            ]
            if found:
                row[f"{name} {length}"] = float(np.median(found))
    return row


def reliability(scores: torch.Tensor, masks: torch.Tensor) -> float:
    """Of the mean of the blocks: 1 − noise ÷ what it holds, the noise by the spread of blocks."""
    pairs = zip(scores.split(BLOCK), masks.split(BLOCK), strict=True)
    maps = torch.stack([covariance(f, m).flatten() for f, m in pairs])
    maps = maps - maps.mean(1, keepdim=True)
    noise = maps.var(0).sum() / len(maps)
    return float(1 - noise / maps.mean(0).square().sum())


def needed(row: Any, name: str, fidelity: float) -> float:
    """Evaluations until the curve reaches a fidelity, between lengths by its logarithm."""
    lengths = [length for length in LENGTHS if f"{name} {length}" in row]
    values = np.array([row[f"{name} {length}"] for length in lengths])
    above = np.flatnonzero(values >= fidelity)
    if not len(above):
        return float("nan")
    at = int(above[0])
    if at == 0:
        return float(lengths[0])
    share = (fidelity - values[at - 1]) / (values[at] - values[at - 1])
    return float(lengths[at - 1] * (lengths[at] / lengths[at - 1]) ** share)


def draw(table: pd.DataFrame, file: Path) -> None:
    """A panel a regime, a line an estimator: medians over images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = {
        "published": "#b2433f",
        "self-normalised": "#c98a2b",
        "covariance": "#7a7a7a",
        "default": "#2a6f97",
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for panel, (title, (low, high)) in zip(axes, REGIMES.items(), strict=True):
        part = table[(table["ratio"] >= low) & (table["ratio"] < high)]
        for name, color in colors.items():
            lengths = [n for n in LENGTHS if f"{name} {n}" in table]
            lines = part[[f"{name} {n}" for n in lengths]]
            for _, line in lines.iterrows():
                panel.plot(lengths, line, color=color, alpha=0.2, linewidth=0.8)
            style = "--" if name == "covariance" else "-"  # it lies on the self-normalised one
            panel.plot(lengths, lines.median(), style, color=color, label=name, linewidth=2)
        panel.set(xscale="log", title=f"{title} ({len(part)} images)", ylim=(0, 1.01))
        panel.set_xticks(LENGTHS[::2], [f"{n:,}" for n in LENGTHS[::2]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    axes[1].set_xlabel("model evaluations")
    axes[0].set_ylabel("correlation with the converged map")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("rise-fidelity"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--fidelity", type=float, default=0.95)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    weights, data = Path(os.environ["WEIGHTS"]), Path(os.environ["MAGNETIC_TILE"])
    masks = sets_of_masks()
    grids = {kind: on_grid(group) for kind, group in masks.items()}
    rows = []
    for case in photographs(weights) + tiles(weights, data, out):
        scores = score(case, masks, out / f"{case[0].replace(' ', '-')}.npz")
        row = {"image": case[0], **curves(scores, grids)}
        rows.append(row)
        print(f"{case[0]}: f̄ {row['mean']:.3f}, f̄/σ {row['ratio']:.2f}", flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(out / "curves.csv", index=False)
    fidelity = arguments.fidelity
    print(f"\nevaluations for a correlation of {fidelity:g} with the converged map\n")
    print(
        "| image | f̄ | f̄/σ | published | self-normalised | covariance | default | "
        "default ÷ published | target | same limit (noise only) |"
    )
    print("| --- |" + " --- |" * 9)
    for _, row in table.sort_values("ratio").iterrows():
        counts = {name: needed(row, name, fidelity) for name in ESTIMATORS}
        asked = 1 / 16 if row["ratio"] >= 4 else 1.1 / (1 + row["ratio"] ** 2)
        shown = " | ".join(
            f"> {INDEPENDENT:,}" if np.isnan(n) else f"{n:,.0f}" for n in counts.values()
        )
        against = f"{counts['default'] / counts['published']:.3f}"
        if np.isnan(counts["published"]):  # at the most that it reached
            reached = row[f"published {INDEPENDENT}"]
            counts["default"] = needed(row, "default", reached)
            below = "≤ " if counts["default"] == LENGTHS[0] else ""
            against = f"{below}{counts['default'] / INDEPENDENT:.4f} (at {reached:.2f})"
        print(
            f"| {row['image']} | {row['mean']:.3f} | {row['ratio']:.2f} | {shown} | {against} | "
            f"{asked:.3f} | {row['same limit']:.4f} ({row['noise alone']:.4f}) |"
        )
    draw(table, arguments.figure or out / "curves.svg")


if __name__ == "__main__":
    main()
