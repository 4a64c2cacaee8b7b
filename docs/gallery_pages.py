"""Finished studies with an archive in benchmarks/evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preceptor.data.notes import MarkPlaces

EVIDENCE = Path(__file__).parents[1] / "benchmarks" / "evidence"


@dataclass(frozen=True)
class Shown:
    """Study with an archive.

    Args:
        name: Name of its page.
        folder: Folder of its tables in benchmarks/evidence.
        title: Title of the page.
        primary: Evaluation set of the tests.
        seed: What a seed is.
        marks: Annotated training images, of all training images.
        places: Row of its marks in benchmarks/evidence/other/marks.csv.
    """

    name: str
    folder: str
    title: str
    primary: str
    seed: str
    marks: str
    places: str


STUDIES = (
    Shown(
        "spots", "spots_evidence", "Small forged regions", "test-seen", "draw", "60 of 6,000",
        "small forged regions",
    ),
    Shown(
        "spots-densenet", "spots_densenet", "Small forged regions, DenseNet", "test-seen", "draw",
        "60 of 6,000", "small forged regions",
    ),
    Shown(
        "brain-mri-planted", "brain_mri_planted", "Brain MRI with a planted stamp", "test-unseen",
        "seed", "12 %", "brain MRI with a planted stamp",
    ),
    Shown(
        "circuit-boards", "circuit_boards", "Circuit boards", "test-unseen", "seed", "120 of 1,245",
        "circuit boards",
    ),
    Shown(
        "forged", "forged_evidence", "Forged photographs", "test-seen", "draw", "100 of 1,500",
        "forged photographs",
    ),
    Shown(
        "road-cracks", "road_cracks", "Road cracks", "test-unseen", "seed", "12 %", "road cracks",
    ),
    Shown(
        "magnetic-tiles", "magnetic_tile", "Magnetic tiles", "test-unseen", "seed",
        "120 of 688", "magnetic tiles",
    ),
    Shown(
        "brain-mri", "brain_mri", "Brain MRI of other hospitals", "test-unseen", "seed",
        "12 %", "brain MRI",
    ),
    Shown(
        "brain-mri-imagenet", "brain_mri_imagenet", "Brain MRI, ImageNet weights",
        "test-unseen", "seed", "12 %", "brain MRI",
    ),
)  # fmt: skip


def marks_of(study: Shown) -> MarkPlaces:
    """Size and places of the marks of a study."""
    row = pd.read_csv(EVIDENCE / "other" / "marks.csv").set_index("data").loc[study.places]
    return MarkPlaces(float(row["area"]), float(row["overlap"]), int(row["n"]))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
