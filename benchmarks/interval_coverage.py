"""Coverage of the 95 % intervals of AUCs, on simulated scores whose AUC is known.

    python benchmarks/interval_coverage.py [--replicates 1000] [--parts seeds one model]

The simulations of tests/evaluation/test_simulations.py with more settings and replicates: `seeds`
has the tested intervals over seeds, `one` those of a single AUC near 1 or with few positives (twice
the replicates), `model` DeLong's (four times the replicates). Groups have five images. A line a
setting: for each interval its coverage and the share of replicates in which it lies above the
truth; an AUC of 1 has no interval and counts as a miss. Several minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.evaluation.simulated_scores import Draw, spread

from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.delong import delong
from preceptor.evaluation.share_of_the_way import share_of_the_way

RESAMPLES = 300
Found = dict[str, tuple[float, float, float]]  # truth, lower and upper limit by name


def over_seeds(draw: Draw, seed: int) -> Found:
    """Difference and single AUC over seeds × images or groups."""
    (a, b) = draw.sides
    how: dict[str, Any] = {"groups": draw.groups, "resamples": RESAMPLES, "seed": seed}
    gain = two_level_bootstrap(draw.labels, a, b, **how)
    own = two_level_bootstrap(draw.labels, a, **how)
    return {
        "difference": (draw.truth[0] - draw.truth[1], gain.low, gain.high),
        "one": (draw.truth[0], own.low, own.high),
    }


def of_the_way(draw: Draw, seed: int) -> Found:
    """Share of the way; nothing where the study would have none."""
    found = share_of_the_way(draw.labels, *draw.sides, resamples=RESAMPLES, seed=seed)
    if found.low is None or found.high is None:
        return {}
    student, baseline, ceiling = draw.truth
    return {"share": ((student - baseline) / (ceiling - baseline), found.low, found.high)}


def of_one(draw: Draw, seed: int) -> Found:
    """Single AUC, and the percentile interval of the same resamples."""
    found = two_level_bootstrap(
        draw.labels, draw.sides[0], groups=draw.groups, resamples=RESAMPLES, seed=seed
    )
    low, high = np.quantile(found.replicates, [0.025, 0.975])
    return {"one": (draw.truth[0], found.low, found.high), "percentile": (draw.truth[0], low, high)}


def of_one_model(draw: Draw, _: int) -> Found:
    """DeLong's intervals, and AUC ± 1.96 · se; nothing with a class in fewer than two groups."""
    found = delong(draw.labels, draw.sides[0][0], draw.sides[1][0], draw.groups)
    own = found.interval_a
    if np.isnan(own.se):
        return {}
    return {
        "one": (draw.truth[0], own.low, own.high),
        "normal": (draw.truth[0], own.auc - 1.96 * own.se, own.auc + 1.96 * own.se),
        "difference": (draw.truth[0] - draw.truth[1], found.low, found.high),
    }


def simulate(setting: str, replicates: int, of: Callable[[Draw, int], Found], **draws: Any) -> None:
    """Print the coverage of the intervals `of` draws with the AUCs of `draws`."""
    rng, held, above, none, count = np.random.default_rng(0), Counter[str](), Counter[str](), 0, 0
    scale = spread(draws["seed_sd"], draws.get("group_sd", 0.0))
    draws["shifts"] = tuple(float(stats.norm.ppf(auc)) * scale for auc in draws.pop("aucs"))
    for again in range(replicates):
        found = of(Draw(rng, **draws), again)
        count += bool(found)
        for name, (truth, low, high) in found.items():
            held[name] += low <= truth <= high
            above[name] += low > truth
            none += name == "one" and bool(np.isnan(low))
    parts = [f"{name} {held[name] / count:.1%} (above {above[name] / count:.1%})" for name in held]
    left = f"excluded {1 - count / replicates:.1%}, without interval {none / count:.1%}"
    print(f"{setting}: {', '.join(parts)}; {left}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--replicates", type=int, default=1000, help="of `seeds`")
    parts = ["seeds", "one", "model"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    given = parser.parse_args()
    count, groups = given.replicates, {"per_group": 5, "group_sd": 1.0}
    for n in (3, 5, 10) if "seeds" in given.parts else ():
        same: dict[str, Any] = {"seeds": n, "aucs": (0.76, 0.69)}
        for sd in (0.0, 0.3):
            name = f"{n} seeds that differ by {sd}, 200 images"
            simulate(name, count, over_seeds, images=200, seed_sd=sd, **same)
        for units, both in ((40, False), (100, True)):
            name, more = f"{n} seeds, {units} groups", {"both": both, "seed_sd": 0.1, **groups}
            simulate(name, count, over_seeds, images=5 * units, **more, **same)
        same["aucs"] = (0.78, 0.69, 0.86)
        simulate(f"{n} seeds, 200 images", count, of_the_way, images=200, seed_sd=0.1, **same)
    few = [(5, 200, 20, 0.96), (3, 100, 40, 0.98), (3, 100, 10, 0.98), (10, 100, 40, 0.76)]
    few += [(5, 200, 10, 0.90), (1, 100, 20, 0.90), (10, 200, 20, 0.96), (5, 300, 30, 0.99)]
    for n, images, positives, auc in few if "one" in given.parts else ():
        more = groups if auc == 0.76 else {}
        name = f"{n} seeds, {images} images{' in groups' if more else ''}, {positives} positive"
        own: dict[str, Any] = {"seeds": n, "images": images, "positives": positives, **more}
        own |= {"seed_sd": 0.1 if n > 1 else 0.0, "aucs": (auc,)}
        simulate(f"{name}, AUC {auc}", 2 * count, of_one, **own)
    models: list[tuple[int, int | None, float, dict[str, Any]]] = [(300, None, 0.76, {})]
    for units in (10, 20, 40, 100):
        models += [(5 * units, None, 0.72, {"both": both, **groups}) for both in (False, True)]
    models += [(200, 30, 0.90, groups), (100, 40, 0.95, groups), (100, 40, 0.98, {})]
    models += [(200, 10, 0.90, {}), (200, 20, 0.96, {}), (300, 30, 0.99, {})]
    for images, some, auc, more in models if "model" in given.parts else ():
        how = f" in groups of {'both classes' if more.get('both') else 'one class'}" if more else ""
        name = f"{images} images{how}, {some or '40 %'} positive, AUC {auc}"
        own = {"seeds": 1, "images": images, "positives": some, "seed_sd": 0.0, "aucs": (auc, 0.6)}
        simulate(name, 4 * count, of_one_model, **own, **more)


if __name__ == "__main__":
    main()
