"""Deletion curves: a loop over pixels, batches, modes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from preceptor.errors import InputError
from preceptor.saliency.maps import deletion_curves

NAN, INF = float("nan"), float("inf")


def probabilities(*arguments: Any, **options: Any) -> Tensor:
    """(B, points) probabilities of the curves."""
    return deletion_curves(*arguments, **options)[1]


class Linear(nn.Module):
    """A random linear model of three classes; in training mode it adds noise."""

    class Output(NamedTuple):
        logits: Tensor
        features: Tensor

    def __init__(self, pixels: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Linear(pixels, 3).double()
        self.dropout = nn.Dropout(0.5)
        with torch.no_grad():
            for part in self.head.parameters():
                part.copy_(torch.randn(part.shape, generator=generator).double() / 3)

    def forward(self, images: Tensor) -> Output:
        flat = images.flatten(1)
        return self.Output(self.head(self.dropout(flat)), flat)


def slow(
    model: Linear, image: Tensor, grid: Tensor, label: int, steps: int, fill: float
) -> list[float]:
    """One image, one point, one pixel at a time."""
    _, height, width = image.shape
    rows, columns = grid.shape
    places = [(i, j) for i in range(rows) for j in range(columns)]
    order = sorted(places, key=lambda place: -float(grid[place]))  # stable: row by row
    points = min(steps, len(order) + 1)
    curve = []
    for point in range(points):
        count = point * len(order) // (points - 1)
        reached = set(order[:count])
        shown = image.clone()
        for y in range(height):
            for x in range(width):
                cell = (y * rows // height, x * columns // width)
                if cell in reached:
                    shown[:, y, x] = fill
        with torch.no_grad():
            curve.append(model(shown[None]).logits.softmax(1)[0, label].item())
    return curve


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 9999),
    grid=st.tuples(st.integers(1, 4), st.integers(2, 5)),
    steps=st.integers(2, 25),
    fill=st.sampled_from([0.0, -1.5]),
    coarse=st.booleans(),
)
def test_the_loop(seed: int, grid: tuple[int, int], steps: int, fill: float, coarse: bool) -> None:
    """Grids that do not divide the image; with coarse maps, ties."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    maps = torch.rand(3, *grid, generator=generator)
    if coarse:
        maps = (3 * maps).round()
        maps[:, 0, 0] += 5  # none is constant
    labels = torch.randint(0, 3, (3,), generator=generator)
    model = Linear(70, seed).eval()
    shares, curves = deletion_curves(model, images, maps, labels, steps=steps, fill=fill)
    cells, points = maps[0].numel(), len(shares)
    counts = [point * cells // (points - 1) for point in range(points)]
    assert (shares * cells).round().long().tolist() == counts
    for row in range(3):
        expected = slow(model, images[row], maps[row], int(labels[row]), steps, fill)
        assert curves[row].tolist() == pytest.approx(expected, rel=1e-9)


def example(seed: int = 0) -> tuple[Linear, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(5, 2, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (5,), generator=generator)
    return Linear(72, seed), images, torch.rand(5, 3, 3, generator=generator), labels


def test_one_logit_is_that_of_two_classes() -> None:
    def two(images: Tensor) -> Tensor:
        one = 4 * images[:, 0, 0, 0] - 2
        return torch.stack([-one, one], 1) / 2

    def single(images: Tensor) -> Tensor:
        return 4 * images[:, 0, :1, 0] - 2

    images, maps = torch.ones(2, 1, 4, 4), torch.arange(4.0).flip(0).view(1, 2, 2).repeat(2, 1, 1)
    classes = torch.tensor([0, 1])
    expected = probabilities(two, images, maps, classes)
    assert not torch.equal(expected[0], expected[1])
    torch.testing.assert_close(probabilities(single, images, maps, classes), expected)


def test_maps_without_order_are_not_valid() -> None:
    model, images, maps, labels = example()
    alone = probabilities(model, images, maps, labels)
    maps[1] = 0.3
    maps[2, 0, 0] = NAN
    maps[3, 1, 1] = INF
    found = probabilities(model, images, maps, labels)
    assert found.isnan().all(1).tolist() == [False, True, True, True, False]
    torch.testing.assert_close(found[[0, 4]], alone[[0, 4]], rtol=1e-12, atol=0)

    def never(part: Tensor) -> Tensor:
        raise AssertionError

    found = probabilities(never, images, torch.zeros(5, 3, 3), labels)
    assert found.isnan().all()
    assert len(probabilities(never, images[:0], maps[:0], labels[:0])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(5, 6, 6)}, "must be"),
        ({"maps": torch.zeros(5, 7, 3)}, "h ≤ H"),
        ({"maps": torch.zeros(5, 3, 7)}, "w ≤ W"),
        ({"classes": torch.zeros(5, 1, dtype=torch.int64)}, "must be"),
        ({"steps": 1}, "steps is 1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    model, images, maps, classes = example()
    values: dict[str, Any] = {"images": images, "maps": maps, "classes": classes} | changes
    with pytest.raises(InputError, match=message):
        probabilities(model, **values)
