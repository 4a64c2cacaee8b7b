"""The pictures of docs/method.md, from the models of a finished study of small forged regions.

python docs/pictures/method_pictures.py spots-ladder --to docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preceptor.config.training import Augmentation
from preceptor.data.augment import draw
from preceptor.data.loader import MapTargets
from preceptor.inference.predict import predict
from preceptor.models.build import load_model
from preceptor.models.guided_model import GuidedModel
from preceptor.report.palette import MAGMA
from preceptor.saliency.maps import normalize
from preceptor.study.plan import Plan
from preceptor.study.steps import Role
from preceptor.study_folder import reopen

SIDE = 160  # of a tile, in pixels
GAP = 4
KINDS = ("noise", "other", "mean")
COLORS = np.frombuffer(MAGMA, np.uint8).reshape(-1, 3)

Picture = NDArray[np.uint8]


def tile(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def overlay(picture: Picture, saliency: NDArray[np.float32]) -> Picture:
    """The image below a map in [0, 1], whose opacity increases with saliency."""
    smooth = Image.fromarray((255 * saliency).astype(np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    level = np.asarray(smooth, np.float32)[..., None] / 255
    color = COLORS[(level[..., 0] * (len(COLORS) - 1)).astype(int)]
    opacity = 0.25 + 0.5 * level
    return (tile(picture) * (1 - opacity) + color * opacity).round().astype(np.uint8)


def sheet(rows: list[list[Picture]]) -> Image.Image:
    height = len(rows) * (SIDE + GAP) - GAP
    width = len(rows[0]) * (SIDE + GAP) - GAP
    page = np.full((height, width, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, one in enumerate(row):
            top, left = down * (SIDE + GAP), across * (SIDE + GAP)
            page[top : top + SIDE, left : left + SIDE] = one
    return Image.fromarray(page)


def model_of(plan: Plan, role: Role, alpha: float | None = None) -> GuidedModel:
    """A finished model of a role, with its α where several are trained."""
    member = next(one for one in plan.members_of(role) if alpha is None or one.arm.alpha == alpha)
    return load_model(plan.protocol.run_folder(member.run) / "model").eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    parser.add_argument("--images", type=int, default=3)
    options = parser.parse_args()
    plan = reopen(options.study).first
    workspace = plan.protocol.workspace
    table = workspace.manifest.table
    chosen = np.flatnonzero(
        (table["split"] == "test-seen")
        & (table["label"] == plan.protocol.study.positive)
        & (table["saliency"] != "")
    )[: options.images]
    models = {
        "teacher": model_of(plan, "teacher"),
        "mapper": model_of(plan, "mapper"),
        "student": model_of(plan, "student"),
        "plain": model_of(plan, "baseline2"),
    }
    some = models["plain"]
    human = MapTargets.human(np.ones(len(chosen), np.float32))
    rows = workspace.rows(
        chosen, some.spec.image_format, some.spec.classes, targets=human, grid=(64, 64)
    )
    batch = rows.batch(np.arange(len(rows)))
    pictures = [image.permute(1, 2, 0).numpy() for image in batch.images]
    assert batch.maps is not None
    marks = normalize(batch.maps).numpy()

    def maps(name: str, cams: str) -> NDArray[np.float32]:
        found = predict(models[name], rows, cams=cams).cams
        assert found is not None
        return (found if cams == "cells" else normalize(found)).numpy()

    options.to.mkdir(parents=True, exist_ok=True)

    def write(name: str, columns: list[NDArray[np.float32]]) -> None:
        page = sheet(
            [
                [tile(picture), overlay(picture, marks[place])]
                + [overlay(picture, column[place]) for column in columns]
                for place, picture in enumerate(pictures)
            ]
        )
        page.quantize(128).save(options.to / f"{name}.png", optimize=True)

    write("method-decision", [maps("student", "label"), maps("student", "decision")])
    write("method-mapper", [maps("teacher", "label"), maps("mapper", "cells")])

    changed = []
    for kind in KINDS:
        settings = Augmentation(outside=kind, outside_rate=1.0)
        positions = np.arange(len(rows))
        images = rows.batch(positions, settings, draw(0, 0, positions)).images
        changed.append([image.permute(1, 2, 0).numpy() for image in images])
    page = sheet(
        [
            [tile(picture), overlay(picture, marks[place])]
            + [tile(column[place]) for column in changed]
            for place, picture in enumerate(pictures)
        ]
    )
    page.quantize(128).save(options.to / "method-outside.png", optimize=True)


if __name__ == "__main__":
    main()
