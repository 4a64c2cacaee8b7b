"""Comparisons of one model with six others: AUCs of equal resamples kept, and measured anew.

    python benchmarks/bench_bootstrap.py

Synthetic scores: 600 images, ten seeds a model; intervals of six differences and of seven AUCs.
Processor seconds, both sides in turn, five times.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from preceptor.evaluation import resampling
from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.resampled_values import ResampledValues


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2 == 0
    models = [rng.normal(0.8 * labels, 1, (10, 600)) for _ in range(7)]
    times = []
    for _ in range(5):
        times.append([seconds(labels, models, room) for room in (0, 2**26)])
        print(f"anew {times[-1][0]:.2f} s, kept {times[-1][1]:.2f} s")
    anew, kept = np.median(times, axis=0)
    print(f"median: anew {anew:.2f} s, kept {kept:.2f} s, ratio {kept / anew:.2f}")


def seconds(labels: np.ndarray, models: list[np.ndarray], room: int) -> float:
    resampling._KNOWN = ResampledValues(room)
    begin = time.process_time()
    for model in models[1:]:
        two_level_bootstrap(labels, models[0], model)
    for model in models:
        two_level_bootstrap(labels, model)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
