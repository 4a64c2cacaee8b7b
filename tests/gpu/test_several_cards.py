"""One run on several GPUs is that on one, up to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preceptor.training.run import train
from tests.launches import apart, ended, run_of, start_anew


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_byobnet"])
def test_two_gpus_do_what_one_does(
    two_cards: int, manifest: Path, tmp_path: Path, backbone: str
) -> None:
    """Also with batch norm, which is synchronized."""
    settings = {"device": "cuda", "batch_size": 8, "lr": 0.001}
    one = train(run_of(manifest, settings, backbone=backbone), tmp_path / "one").folder
    config = run_of(manifest, settings | {"devices": 2}, backbone=backbone)
    outcome = ended(start_anew(config, tmp_path / "two"))
    assert outcome.code == 0, outcome
    two = Path(outcome.out.splitlines()[-1].removeprefix("run "))
    assert apart(one, two) < 1e-2
    metrics, same = (pd.read_csv(folder / "metrics.csv") for folder in (one, two))
    np.testing.assert_allclose(metrics["loss"], same["loss"], rtol=1e-3)
