"""The pictures of the front page and of docs/method.md, from finished studies.

    preceptor demo --out demo-study
    python docs/pictures/guidance_pictures.py demo-study/study-0 --front
    preceptor study docs/pictures/forged.yaml --out forged-study
    python docs/pictures/guidance_pictures.py forged-study

The first seed of a study is shown on its primary test set:

- front.png: the first three test images of `preceptor demo`, in the order of the file, with maps
  and decisions of Baseline 2 and the Student; accuracies are means over all draws.
- guidance-images.png: maps of all models of `forged.yaml`, on the first image of each kind of
  forgery, in the order of the file.
- maps.csv: AUC, numbers of right decisions, and correlation of maps with human maps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from method_pictures import GAP, SIDE, Picture, overlay, tile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate

import preceptor
from preceptor.data.images import decode_image, decode_map
from preceptor.metrics.auc import auc, log_odds
from preceptor.models.guided_model import GuidedModel
from preceptor.results.domain import gather_study
from preceptor.saliency.maps import normalize
from preceptor.study.plan import Plan
from preceptor.study.steps import Role
from preceptor.study_folder import reopen
from preceptor.utils.results import file_digest

MODELS: dict[Role, str] = {
    "teacher": "Teacher",
    "baseline2": "no maps",
    "centre": "one centered map",
    "shuffled": "shuffled maps",
    "student": "Student",
}
FRONT: dict[Role, str] = {
    "baseline2": "trained without marks",
    "dfr": "… last layer on 100 clean labels",
    "repair": "… repaired by marks, in seconds",
    "shuffled": "guided by shuffled maps",
    "student": "guided by a Teacher of 60 marks: Student",
    "student_repair": "the Student, repaired",
}
TITLE = 26  # height of a line of text, in pixels

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a model says of all images of the test set.

    Args:
        scores: (n,) probability of the positive class.
        log_odds: (n,) its log-odds, which have no ties where probabilities round to 1.
        decisions: (n,) classes, by the threshold fixed on validation.
        maps: (n, H, W) decision maps of the positive class in [0, 1], at the size of the images.
        label_maps: (n, H, W) class activation maps of the positive class, which the loss compares.
    """

    scores: Values
    log_odds: Values
    decisions: NDArray[np.object_]
    maps: NDArray[np.float32]
    label_maps: NDArray[np.float32]


def model_of(plan: Plan, role: Role, best: Path) -> Path:
    """Folder of the model of a role at the first seed; of Students the best one."""
    folders = [plan.protocol.run_folder(one.run) / "model" for one in plan.members_of(role)]
    if role != "student":
        return folders[0]
    weights = file_digest(best / "model.safetensors")
    same = (one for one in folders if file_digest(one / "model.safetensors") == weights)
    return next(same, folders[0])


def seen_by(folder: Path, paths: Sequence[str]) -> Seen:
    """Predictions of a model."""
    found = preceptor.load(folder, device="cpu")(list(paths))
    maps = np.stack([one.map_at_image() for one in found])
    return Seen(
        found.score.astype(float),
        log_odds(found.probabilities)[:, found.info.positive_index],
        np.array(found.decision, object),
        maps,
        label_maps(preceptor.load_model(folder).eval(), paths, maps.shape[1:]),
    )


def label_maps(
    model: GuidedModel, paths: Sequence[str], size: tuple[int, ...]
) -> NDArray[np.float32]:
    """Class activation maps of the positive class in [0, 1], at the size of the images."""
    pixels = np.stack([decode_image(Path(path)) for path in paths])
    labels = torch.full((len(pixels),), model.spec.classes.index(str(model.spec.positive)))
    with torch.no_grad():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        maps = normalize(model(model.preprocess(images), labels).saliency)[:, None]
    return interpolate(maps, size, mode="bilinear")[:, 0].numpy()


def similar(map_: NDArray[np.float32], human: NDArray[np.float32]) -> float:
    """Pearson correlation; NaN if a map is constant."""
    if map_.std() == 0 or human.std() == 0:
        return float("nan")
    return float(np.corrcoef(map_.ravel(), human.ravel())[0, 1])


def sheet(
    rows: list[list[Picture]], titles: Sequence[str], below: Sequence[Sequence[str]] = ()
) -> Image.Image:
    """Tiles in rows, with titles above the columns.

    Args:
        rows: Tiles.
        titles: Title of each column.
        below: Text below each tile, by row; empty = none.
    """
    width = len(titles) * (SIDE + GAP) - GAP
    step = SIDE + GAP + (TITLE if below else 0)
    page = Image.new("RGB", (width, TITLE + len(rows) * step), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)

    def write(texts: Sequence[str], top: int) -> None:
        for place, text in enumerate(texts):
            draw.text((place * (SIDE + GAP) + SIDE // 2, top), text, "black", font, "ma")

    write(titles, 4)
    for down, row in enumerate(rows):
        top = TITLE + down * step
        for across, one in enumerate(row):
            page.paste(Image.fromarray(one), (across * (SIDE + GAP), top))
        if below:
            write(below[down], top + SIDE + 4)
    return page


def mean_correlation(maps: NDArray[np.float32], humans: NDArray[np.float32]) -> float:
    """Mean over images of the correlation with the human map, without constant maps."""
    pairs = zip(maps, humans, strict=True)
    return float(np.nanmean([similar(map_, human) for map_, human in pairs]))


def save(page: Image.Image, file: Path) -> None:
    page.quantize(128).save(file, optimize=True)
    print(file)


def front(folder: Path, file: Path) -> None:
    """Three test images with the maps and decisions of two networks, beside the accuracies."""
    study = reopen(folder)
    plan, figures = study.first, gather_study(study).by_domain[""].figures
    rows = figures.query("set == 'test' and source == ''").groupby("role", observed=True)
    accuracy = rows["accuracy"].mean()
    table = preceptor.Manifest.read(next(plan.members_of("student")).manifest, verify=False).table
    table = table[table["split"] == plan.protocol.primary][:3]
    paths, labels = list(table["path"]), list(table["label"])
    roles: tuple[Role, Role] = ("baseline2", "student")
    best = folder / "best"
    guesses = [preceptor.load(model_of(plan, role, best), device="cpu")(paths) for role in roles]

    gray, blue = "#8a939d", "#1b5ab5"
    page = Figure(figsize=(11, 4.4))
    cells = page.add_gridspec(3, 4, left=0.005, right=0.49, top=0.9, bottom=0.06, hspace=0.35)
    titles = ("new image", "a person's mark", "trained\nwithout marks", "guided by\n60 marks")
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        pixels = decode_image(Path(path))
        shown = [pixels, overlay(pixels, decode_map(Path(table["saliency"].iloc[row])))]
        shown += [overlay(pixels, guess[row].map_at_image()) for guess in guesses]
        said = [f"a {label}", "", *(f"says {guess[row].decision}" for guess in guesses)]
        right = [True, True, *(guess[row].decision == label for guess in guesses)]
        for column, (picture, text) in enumerate(zip(shown, said, strict=True)):
            axes = page.add_subplot(cells[row, column])
            axes.imshow(picture)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(titles[column], fontsize=11)
            color = "#1a1d21" if right[column] else "#b3261e"
            axes.text(
                0.5, -0.08, text, ha="center", va="top", color=color, transform=axes.transAxes
            )

    axes = page.add_axes((0.53, 0.02, 0.46, 0.75))
    values = [float(accuracy[role]) for role in FRONT]
    ours = ("repair", "student", "student_repair")
    colors = [blue if role in ours else gray for role in FRONT]
    axes.barh(range(len(values)), values, 0.36, color=colors)
    for place, (name, value) in enumerate(zip(FRONT.values(), values, strict=True)):
        axes.text(0, place - 0.24, name, va="bottom", fontsize=11)
        axes.text(value + 0.01, place, f"{value:.0%}", va="center", fontsize=13, weight="bold")
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    page.text(0.53, 0.9, "Digits named right on new images", fontsize=14, weight="bold")
    page.text(0.53, 0.83, "In training, the gray of a patch gave the digit away.", fontsize=11)
    buffer = BytesIO()
    page.savefig(buffer, dpi=110)
    save(Image.open(buffer).convert("RGB"), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--front", action="store_true", help="make front.png alone")
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--numbers", type=Path, default=Path("guidance-numbers"))
    options = parser.parse_args()
    if options.front:
        front(options.study, options.to / "front.png")
        return
    plan = reopen(options.study).first
    manifest = next(plan.members_of("student")).manifest
    table = preceptor.Manifest.read(manifest, verify=False).table
    table = table[table["split"] == plan.protocol.primary].reset_index(drop=True)
    positive = plan.protocol.study.positive
    forged = (table["label"] == positive).to_numpy(bool)
    best = options.study / "best"
    seen = {role: seen_by(model_of(plan, role, best), list(table["path"])) for role in MODELS}
    humans = np.stack([decode_map(Path(path)) for path in table.loc[forged, "saliency"]])
    images = [decode_image(Path(path)) for path in table.loc[forged, "path"]]
    options.to.mkdir(parents=True, exist_ok=True)
    options.numbers.mkdir(parents=True, exist_ok=True)

    numbers = []
    for role, one in seen.items():
        right = (one.decisions == positive) == forged
        numbers.append(
            {
                "model": role,
                "auc": auc(forged, one.log_odds),
                "forged_right": int(right[forged].sum()),
                "authentic_right": int(right[~forged].sum()),
                "label_map_correlation": mean_correlation(one.label_maps[forged], humans),
                "decision_map_correlation": mean_correlation(one.maps[forged], humans),
            }
        )
    frame = pd.DataFrame(numbers).assign(forged=int(forged.sum()), authentic=int((~forged).sum()))
    frame.round(4).to_csv(options.numbers / "maps.csv", index=False)
    print(frame.round(3).to_string(index=False))

    def over(role: Role, place: int) -> Picture:
        return overlay(images[place], seen[role].maps[forged][place])

    sources = table.loc[forged, "source"].reset_index(drop=True)
    first = sources.drop_duplicates().index
    pairs = [[tile(images[one]), overlay(images[one], humans[one])] for one in first]
    rows = [
        pair + [over(role, at) for role in MODELS] for pair, at in zip(pairs, first, strict=True)
    ]
    titles = ["image", "human mark", *MODELS.values()]
    save(sheet(rows, titles), options.to / "guidance-images.png")


if __name__ == "__main__":
    main()
