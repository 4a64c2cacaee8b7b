"""How hard each distance pulls at typical maps, next to l2, and the α that makes them alike.

    python benchmarks/distance_pull.py [--images 2000] [--seed 0]

Model maps are random smooth fields: white noise on 64 × 64, blurred by a Gaussian of σ between 0.08
and 0.25 of the side. Targets are one to three small blobs: Gaussians of σ between 0.04 and 0.12 of
the side around uniform centres, the larger wins where they meet. Both are brought to the grid by
area and normalised, as in training. Pull is the norm of a distance's gradient at the normalised
model map, an image; l2's is 1. Relative to classification it acts with (1 − α) ÷ α times that, so
a distance of relative pull r at α' is l2 at α where (1 − α') ÷ α' · r = (1 − α) ÷ α.

Distances of evidence take the map before it is normalised, so that their pull depends on the spread
between its lowest and highest cell, in log-odds; for them and l2 it is the gradient at that map.

Trains nothing; seconds. The α grids of `preceptor.study.config` come from its last table.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from preceptor.config.guidance import Distance
from preceptor.config.maps import PostProcessing
from preceptor.data.resampling import resample
from preceptor.losses.distances import DISTANCES
from preceptor.losses.evidence import EVIDENCE_DISTANCES
from preceptor.losses.guidance_term import guidance
from preceptor.losses.guided import Targets, gradient_norms, guided_loss_terms
from preceptor.saliency.normalise import normalise
from preceptor.saliency.postprocess import post_process
from preceptor.study.alphas import ALPHA_GRIDS

FINE = 64
GRIDS = (6, 7, 10)
ALPHAS = (0.01, 0.1, 0.5)
SPREADS = (2.0, 4.0, 8.0)  # of the evidence of an image, in log-odds


def smooth_fields(count: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(count, FINE, FINE, generator=generator)
    widths = torch.linspace(0.08, 0.25, 8).tolist()
    parts = [
        post_process(part, PostProcessing(blur=width))
        for part, width in zip(noise.chunk(len(widths)), widths, strict=True)
    ]
    return torch.cat(parts)


def blobs(count: int, generator: torch.Generator) -> Tensor:
    centres = torch.rand(count, 3, 2, generator=generator)
    widths = 0.04 + 0.08 * torch.rand(count, 3, generator=generator)
    used = torch.arange(3) < torch.randint(1, 4, (count, 1), generator=generator)
    places = (torch.arange(FINE) + 0.5) / FINE
    squares = (places - centres[..., None]).square() / (2 * widths[..., None, None].square())
    bumps = (-squares[:, :, 0, :, None] - squares[:, :, 1, None, :]).exp()
    return torch.where(used[:, :, None, None], bumps, 0).amax(1)


def pulls(cam: Tensor, maps: Tensor, distance: Distance) -> Tensor:
    """(n,) gradient norms at the normalised map, at α 0."""
    logits, labels = torch.zeros(len(cam), 2), torch.zeros(len(cam), dtype=torch.int64)
    targets = Targets(labels, maps)
    terms = guided_loss_terms(logits, cam, targets, distance)
    _, at_map = gradient_norms(logits, terms, targets, alpha=0.0, distance=distance)
    return at_map


def pulls_at_evidence(fields: Tensor, maps: Tensor, spread: float, distance: Distance) -> Tensor:
    """(n,) gradient norms at evidence of this spread around 0, of masks with the maximum 1."""
    cam = (spread * (normalise(fields) - 0.5)).requires_grad_()
    masks = (maps / maps.amax((1, 2), keepdim=True)).clamp(0, 1)
    (gradient,) = torch.autograd.grad(guidance(cam, masks, distance).sum(), cam)
    return gradient.flatten(1).norm(dim=1)


def equal_alpha(alpha: float, pull: float) -> float:
    """The α at which a distance of this relative pull acts as l2 does at `alpha`."""
    return alpha * pull / (1 - alpha + alpha * pull)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pull of each distance relative to l2.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(arguments.seed)
    fields = smooth_fields(arguments.images, generator)
    targets = blobs(arguments.images, generator)
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(arguments.images, 4)
    found: dict[tuple[str, int], Tensor] = {}
    for grid in GRIDS:
        cam, maps = (resample(each, unit, unit, (grid, grid)) for each in (fields, targets))
        base = pulls(cam, maps, "l2")
        for distance in DISTANCES:
            found[distance, grid] = pulls(cam, maps, distance) / base

    print(
        f"Pull at the map ÷ l2's: median (5 to 95 %) of {arguments.images:,} pairs, "
        f"seed {arguments.seed}\n"
    )
    print("| distance | " + " | ".join(f"{grid} × {grid}" for grid in GRIDS) + " |")
    print("| --- |" + " --- |" * len(GRIDS))
    marks = torch.tensor([0.5, 0.05, 0.95])
    for distance in DISTANCES:
        cells = []
        for grid in GRIDS:
            middle, low, high = found[distance, grid].quantile(marks).tolist()
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {distance} | " + " | ".join(cells) + " |")

    print("\nα at which each pulls, relative to classification, as l2 does at α\n")
    print("| distance | grid | " + " | ".join(f"{alpha:g}" for alpha in ALPHAS) + " |")
    print("| --- | --- |" + " --- |" * len(ALPHAS))
    for distance in DISTANCES:
        for grid in GRIDS:
            pull = found[distance, grid].median().item()
            cells = [f"{equal_alpha(alpha, pull):.2g}" for alpha in ALPHAS]
            print(f"| {distance} | {grid} × {grid} | " + " | ".join(cells) + " |")

    # One number a distance for the default grids: the geometric mean over the three grids.
    print("\nl2's default grid for each distance, at the geometric mean of its medians\n")
    print("| distance | pull | l2's grid becomes | default grid | it acts like l2 at |")
    print("| --- | --- | --- | --- | --- |")
    for distance in DISTANCES:
        medians = [found[distance, grid].median().item() for grid in GRIDS]
        pull = math.prod(medians) ** (1 / len(medians))
        own = ALPHA_GRIDS[distance]
        columns = (
            [equal_alpha(alpha, pull) for alpha in ALPHA_GRIDS["l2"]],
            own,
            [equal_alpha(alpha, 1 / pull) for alpha in own],
        )
        cells = [", ".join(f"{alpha:.2g}" for alpha in column) for column in columns]
        print(f"| {distance} | {pull:.3f} | " + " | ".join(cells) + " |")

    print("\nPull at the evidence ÷ l2's: median, by spread of the evidence\n")
    print("| distance | grid | " + " | ".join(f"{spread:g}" for spread in SPREADS) + " |")
    print("| --- | --- |" + " --- |" * len(SPREADS))
    for distance in EVIDENCE_DISTANCES:
        for grid in GRIDS:
            cam, maps = (resample(each, unit, unit, (grid, grid)) for each in (fields, targets))
            cells = []
            for spread in SPREADS:
                base = pulls_at_evidence(cam, maps, spread, "l2")
                own = pulls_at_evidence(cam, maps, spread, distance)
                cells.append(f"{(own / base).median().item():.3f}")
            print(f"| {distance} | {grid} × {grid} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
