"""Rehearsal of the paper's study on generated data in the layout of the UND CYBORG release.

    python examples/paper/rehearse.py --out rehearsal

Writes a small data set of forged photographs with the file layout of the release, imports it, and
runs examples/paper/study.yaml for both recipes, with fewer seeds, α, epochs, masks and pixels: all
four backbones, CAM and RISE, both kinds of Teacher, the report. The results mean nothing. Repeat
the command after an interruption to resume.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from preceptor.benchmark.forged import draw_areas, draw_example
from preceptor.benchmark.forgeries import PRESETS, Kind, Split
from preceptor.config.files import dump_config, load_config, parse_config
from preceptor.study.config import StudyConfig

STUDY = Path(__file__).with_name("study.yaml")
BACKBONES = ("densenet121", "resnet50", "legacy_xception", "inception_v3")
# The smallest input with which Inception-v3 has a map of 2 × 2 cells is 107 pixels.
INPUT_SIZE = 112
# Of networks that have hardly learnt anything, half of the maps are more than noise with these
# settings. With masked pixels in the mean color, none is, and a study refuses such maps.
MASKS = 96
# Two seeds for intervals; the second recipe takes the same way once, without RISE, which takes most
# of the time.
BUDGETS: dict[str, dict[str, object]] = {
    "paper": {"seeds": 2, "alphas": [0.01, 0.5]},
    "cyborg": {"seeds": 1, "alphas": [0.5], "saliency": ["cam"]},
}

# Images of the lists of the release (original.csv and large_dataset_7x.csv). Validation has 20,000
# and a test list up to 70,000 there; these would only take time.
ANNOTATED, TRAIN, VAL, TEST = 1821, 12747, 4000, 2000
REAL_TESTS = ("celeba-hq", "ffhq")
# Generators with a kind of forgery in their place. Training and validation have the first two.
GENERATORS: dict[str, Kind] = {
    "srefi": "splice",
    "stylegan2": "pixelation",
    "stylegan1": "noise",
    "stylegan3": "blur",
    "stylegan-ada": "jpeg",
    "progan": "color",
    "stargan": "noise",
}


@dataclass(frozen=True)
class Row:
    """Row of a CSV of the release, with the source of its image.

    Args:
        split, label, path: Cells of the row.
        areas: Split of the built-in benchmark from whose photographs the image is cut.
        generator: Generator of a synthetic image, or "".
        annotated: Whether people marked the image.
    """

    split: str
    label: str
    path: str
    areas: Split
    generator: str
    annotated: bool = False


def training_rows(factor: float) -> list[Row]:
    """Rows of the training list with its validation images; half of the images are synthetic."""
    rows = []
    for i in range(round(factor * TRAIN)):
        real, annotated = i % 2 == 0, i < max(8, round(factor * ANNOTATED))
        label, folder = ("Real", "0_real") if real else ("Synthetic", "1_fake")
        kind = "real" if real else "fake"
        path = f"/train/7x_data/{folder}/p{1 if annotated else 2}_{i // 2}_{kind}.png"
        rows.append(Row("train", label, path, "train", _seen(i), annotated))
    for i in range(round(factor * VAL)):
        label, folder = ("Real", "0_real") if i % 2 == 0 else ("Synthetic", "1_fake")
        rows.append(Row("test", label, f"/val/{folder}/{i:05d}.png", "val", _seen(i)))
    return rows


def _seen(i: int) -> str:
    """Generator of the i-th training or validation image, "" for a real one."""
    return "" if i % 2 == 0 else list(GENERATORS)[i // 2 % 2]


def test_rows(name: str, factor: float) -> list[Row]:
    """Rows of a test list, which has images of one class."""
    count = max(2, round(factor * TEST))
    if name in REAL_TESTS:
        folder = f"/test/0_real/{name}_aligned"
        return [Row("test", "Real", f"{folder}/{i:05d}.png", "test-seen", "") for i in range(count)]
    folder = f"/test/1_fake/{name}_aligned/000000"
    return [
        Row("test", "Synthetic", f"{folder}/{i:06d}.png", "test-unseen", name) for i in range(count)
    ]


def write_release(folder: Path, factor: float, size: int, seed: int = 0) -> None:
    """Write a data set in the layout of the release, unless it exists.

    Args:
        folder: Output folder: Data (images and heat maps) and csvs.
        factor: Share of the images.
        size: Side of the images in pixels, at most 128.
        seed: Random seed.
    """
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    lists = {"large_dataset_7x": training_rows(factor)}
    lists |= {f"gan_test_sets/{name}": test_rows(name, factor) for name in _test_lists()}
    settings = PRESETS["full"].model_copy(update={"size": size})
    areas = draw_areas(size, seed)
    (partial / "Data/train/heatmaps").mkdir(parents=True)
    for number, (name, rows) in enumerate(lists.items()):
        generator = np.random.default_rng([seed, number])
        for row in rows:
            kind = GENERATORS[row.generator or "srefi"]
            example = draw_example(areas[row.areas], kind, settings, generator)
            pixels = example.forged if row.generator else example.authentic
            file = partial / "Data" / row.path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            if row.annotated:
                Image.fromarray(example.region).save(partial / "Data/train/heatmaps" / file.name)
        table = partial / "csvs" / f"{name}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{row.split},{row.label},{row.path}\n" for row in rows]
        table.write_text("".join(lines), encoding="utf-8")
    partial.rename(folder)


def _test_lists() -> list[str]:
    return [*REAL_TESTS, *GENERATORS]


def import_command(folder: Path) -> list[str]:
    """Command that imports the release; the same for the real one."""
    tests = [str(folder / "csvs/gan_test_sets" / f"{name}.csv") for name in _test_lists()]
    return [
        "data",
        "import",
        "und",
        *(str(folder / "csvs/large_dataset_7x.csv"), *tests),
        *("--join", "test-unseen", "--images", str(folder / "Data")),
        *("--heatmaps", str(folder / "Data/train/heatmaps")),
        *("--to", str(folder / "manifest.csv")),
    ]


def write_random_weights(folder: Path, backbones: Sequence[str], size: int) -> None:
    """Write random weights in place of those of ImageNet, unless they exist.

    Batch norms of Inception-v3 get the statistics of random images. Without them, its logits are
    about 1e8, all probabilities are 0 or 1, and RISE finds nothing; the other backbones have random
    weights with logits of about 1.

    Args:
        folder: Output folder.
        backbones: Names of the backbones, and of the files.
        size: Side of the images in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name in backbones:
        file = folder / f"{name}.safetensors"
        if file.exists():
            continue
        model = timm.create_model(name)
        if name == "inception_v3":
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # the mean over all batches, of which there is one
            with torch.no_grad():
                model.train()(torch.randn(16, 3, size, size))
        partial = file.with_suffix(".partial")
        save_file(model.state_dict(), partial)
        partial.rename(file)


def rehearsed_study(recipe: str, und: Path, store: Path) -> StudyConfig:
    """The paper's study with a small budget.

    Args:
        recipe: paper or cyborg.
        und: Folder with the manifest and the weights.
        store: Folder of the runs.
    """
    os.environ |= {"UND": str(und.absolute()), "RECIPE": recipe}
    study = load_config(STUDY, StudyConfig)
    training = study.training.model_dump() | {"input_size": INPUT_SIZE}
    training |= {"epochs": 1, "batch_size": 8}
    changes = BUDGETS[recipe] | {"rise_masks": MASKS, "store": str(store)}
    values = study.model_dump(mode="json") | changes | {"training": training}
    return parse_config(values, StudyConfig, source=str(STUDY))


def preceptor(arguments: Sequence[str]) -> None:
    """Run a command of the library, and end with its exit code if it fails."""
    print("preceptor", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", "preceptor", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def rehearse(out: Path, factor: float, recipes: Sequence[str]) -> Iterator[Path]:
    """Run the studies of the recipes; yields their reports."""
    und = out / "release"
    write_release(und, factor, size=128)
    write_random_weights(und / "weights", BACKBONES, INPUT_SIZE)
    if not (und / "manifest.csv").exists():
        preceptor(import_command(und))
    for recipe in recipes:
        file = out / f"{recipe}.yaml"
        study = rehearsed_study(recipe, und, (out / "store").absolute())
        file.write_text(dump_config(study), encoding="utf-8")
        preceptor(["study", str(file), "--out", str(out / recipe)])
        yield out / recipe / "report.html"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("rehearsal"), help="output folder")
    parser.add_argument("--factor", type=float, default=0.001, help="share of the images")
    parser.add_argument("--recipe", choices=list(BUDGETS), help="one recipe (default: both)")
    given = parser.parse_args()
    started = time.monotonic()
    recipes = list(BUDGETS) if given.recipe is None else [given.recipe]
    for report in rehearse(given.out, given.factor, recipes):
        print(f"report {report}, after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
