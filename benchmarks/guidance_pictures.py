"""The pictures of the front page and of docs/explanation, from one draw of the demo.

    preceptor demo --out demo-study
    python benchmarks/guidance_pictures.py demo-study/study-0

The first seed of the study is shown, on the forged images of its primary test set:

- front.png: one image. Among the forged images on which the decision of Baseline 2 is wrong and
  that of the Student is right, it is the one with the median change of rank, where the rank of an
  image is the share of authentic images with a lower score. Equal changes are taken in the order of
  the file.
- guidance-images.png: the first image of each kind of forgery, in the order of the file.
- guidance-mean.png: mean maps over all forged images.
- maps.csv: AUC and agreement of the maps with human maps, and numbers of changed decisions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from method_pictures import GAP, SIDE, Picture, overlay, tile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import preceptor
from preceptor.data.images import decode_image, decode_map
from preceptor.evaluation.auc import auc
from preceptor.study.plan import Plan
from preceptor.study.steps import Role
from preceptor.study_folder import reopen

MODELS: dict[Role, str] = {
    "teacher": "Teacher",
    "baseline2": "no maps",
    "centre": "one centred map",
    "shuffled": "shuffled maps",
    "student": "Student",
}
TITLE = 26  # height of a line of text, in pixels

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a model says of all images of the test set.

    Args:
        scores: (n,) probability of the positive class.
        decisions: (n,) classes, by the threshold fixed on validation.
        maps: (n, H, W) decision maps of the positive class in [0, 1], at the size of the images.
    """

    scores: Values
    decisions: NDArray[np.object_]
    maps: NDArray[np.float32]


def seen_by(plan: Plan, role: Role, paths: Sequence[str]) -> Seen:
    """Predictions of the model of a role, at the first seed."""
    member = next(plan.members_of(role))
    predictor = preceptor.load(plan.protocol.run_folder(member.run) / "model", device="cpu")
    found = predictor(list(paths), at="image")
    return Seen(found.score.astype(float), np.array(found.decision, object), np.stack(found.map))


def ranks(scores: Values, authentic: NDArray[np.bool_]) -> Values:
    """(n,) share of authentic images with a lower score."""
    below = np.searchsorted(np.sort(scores[authentic]), scores)
    return below / authentic.sum()


def similar(map_: NDArray[np.float32], human: NDArray[np.float32]) -> float:
    """Pearson correlation; NaN if a map is constant."""
    if map_.std() == 0 or human.std() == 0:
        return float("nan")
    return float(np.corrcoef(map_.ravel(), human.ravel())[0, 1])


def sheet(
    rows: list[list[Picture]], titles: Sequence[str], below: Sequence[str] = ()
) -> Image.Image:
    """Tiles in rows, with titles above the columns and a line of text below them."""
    width = len(titles) * (SIDE + GAP) - GAP
    height = TITLE + len(rows) * (SIDE + GAP) + (TITLE if below else 0)
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for lines, top in ((titles, 4), (below, height - TITLE)):
        for place, text in enumerate(lines):
            middle = place * (SIDE + GAP) + SIDE // 2
            draw.text((middle, top), text, "black", font, "ma")
    for down, row in enumerate(rows):
        for across, one in enumerate(row):
            corner = (across * (SIDE + GAP), TITLE + down * (SIDE + GAP))
            page.paste(Image.fromarray(one), corner)
    return page


def in_color(map_: NDArray[np.floating]) -> Picture:
    """A map in [0, 1] without an image below."""
    return overlay(np.zeros((*map_.shape, 3), np.uint8), map_.astype(np.float32))


def save(page: Image.Image, file: Path) -> None:
    page.quantize(128).save(file, optimize=True)
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--numbers", type=Path, default=Path("benchmarks/evidence/demo_maps"))
    options = parser.parse_args()
    plan = reopen(options.study).first
    manifest = next(plan.members_of("student")).manifest
    table = preceptor.Manifest.read(manifest, verify=False).table
    table = table[table["split"] == plan.protocol.primary].reset_index(drop=True)
    positive = plan.protocol.study.positive
    forged = (table["label"] == positive).to_numpy(bool)
    seen = {role: seen_by(plan, role, list(table["path"])) for role in MODELS}
    humans = np.stack([decode_map(Path(path)) for path in table.loc[forged, "saliency"]])
    images = [decode_image(Path(path)) for path in table.loc[forged, "path"]]
    options.to.mkdir(parents=True, exist_ok=True)
    options.numbers.mkdir(parents=True, exist_ok=True)

    others = np.roll(np.arange(len(humans)), 1)  # the human map of another image
    numbers = []
    for role, one in seen.items():
        maps = one.maps[forged]
        own = [similar(map_, human) for map_, human in zip(maps, humans, strict=True)]
        other = [similar(map_, humans[at]) for map_, at in zip(maps, others, strict=True)]
        right = (one.decisions == positive) == forged
        numbers.append(
            {
                "model": role,
                "auc": auc(forged, one.scores),
                "forged_right": int(right[forged].sum()),
                "authentic_right": int(right[~forged].sum()),
                "map_correlation": np.nanmean(own),
                "map_correlation_other_image": np.nanmean(other),
            }
        )
    frame = pd.DataFrame(numbers).assign(forged=int(forged.sum()), authentic=int((~forged).sum()))
    frame.round(4).to_csv(options.numbers / "maps.csv", index=False)
    print(frame.round(3).to_string(index=False))

    before, after = seen["baseline2"], seen["student"]
    was, is_now = ((one.decisions == positive) == forged for one in (before, after))
    for kind, rows in (("forged", forged), ("authentic", ~forged)):
        print(
            f"{kind}: {(~was & is_now & rows).sum()} of {rows.sum()} corrected, "
            f"{(was & ~is_now & rows).sum()} made wrong"
        )
    corrected = np.flatnonzero(~was & is_now & forged)
    change = ranks(after.scores, ~forged) - ranks(before.scores, ~forged)
    order = corrected[np.argsort(change[corrected], kind="stable")]
    chosen = order[(len(order) - 1) // 2]
    at = int(forged[:chosen].sum())  # its place among the forged images
    print(f"front: {table['name'][chosen]} ({table['source'][chosen]}), rank {change[chosen]:+.2f}")

    def over(role: Role, place: int) -> Picture:
        return overlay(images[place], seen[role].maps[forged][place])

    front = [tile(images[at]), overlay(images[at], humans[at])]
    front += [over(role, at) for role in ("teacher", "baseline2", "student")]
    said = [f"{one.decisions[chosen]} ({one.scores[chosen]:.2f})" for one in (before, after)]
    titles = ["image", "human mark", "Teacher's map", "trained without maps", "Student"]
    save(sheet([front], titles, [str(positive), "", "", *said]), options.to / "front.png")

    sources = table.loc[forged, "source"].reset_index(drop=True)
    first = sources.drop_duplicates().index
    names = ["image", "human mark", *MODELS.values()]
    grid = [
        [tile(images[one]), overlay(images[one], humans[one])]
        + [over(role, one) for role in MODELS]
        for one in first
    ]
    save(sheet(grid, names), options.to / "guidance-images.png")
    means = [humans.mean(0), *(one.maps[forged].mean(0) for one in seen.values())]
    save(
        sheet([[in_color(one / one.max()) for one in means]], ["human marks", *MODELS.values()]),
        options.to / "guidance-mean.png",
    )


if __name__ == "__main__":
    main()
