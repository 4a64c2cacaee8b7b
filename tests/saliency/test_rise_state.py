"""An estimation by RISE that is interrupted has the bits of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from preceptor.saliency.rise import RiseResult, rise
from preceptor.saliency.rise_state import RiseState, read_state, write_state


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 2))


def images() -> Tensor:
    return torch.randn(5, 3, 20, 20, generator=torch.Generator().manual_seed(1)) * 3


def estimate(model: nn.Module, tolerance: float = 0.1, **how: object) -> RiseResult:
    classes = torch.tensor([0, 1, 0, 1, 0])
    return rise(model, images(), classes, max_masks=1100, tolerance=tolerance, **how)  # type: ignore[arg-type]


def assert_equal(one: RiseResult, other: RiseResult) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("estimator", ["default", "published"])
def test_from_any_state_the_result_is_the_same(
    tmp_path: Path, tolerance: float, estimator: str
) -> None:
    states: list[RiseState] = []
    how = {"tolerance": tolerance, "estimator": estimator}
    whole = estimate(network(), keep=states.append, **how)
    assert_equal(whole, estimate(network(), **how))
    assert len(states) >= 3
    for number, state in enumerate(states, 1):
        write_state(tmp_path / "state", state)
        later: list[RiseState] = []
        start = read_state(tmp_path / "state")
        assert_equal(estimate(network(), start=start, keep=later.append, **how), whole)
        assert len(later) == len(states) - number  # no block is computed again


def test_a_state_that_does_not_fit_is_ignored(tmp_path: Path) -> None:
    whole = estimate(network())
    assert_equal(estimate(network(), start=RiseState.empty(4, (7, 7))), whole)
    assert read_state(tmp_path / "none") is None
    for content in (b"", b"\x00" * 40):
        (tmp_path / "damaged").write_bytes(content)
        assert read_state(tmp_path / "damaged") is None
