"""Precision, memory layout and compiler: the guided step under each, and what the probe chooses.

    python benchmarks/bench_speed.py [--batch 20] [--backbones ...]

What `precision: auto` measures when a study starts, printed as a table. Compiling is measured only
where it is asked for, since it takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import machine

from preceptor.config.run import RunConfig
from preceptor.config.training import Speed, Training
from preceptor.training.probe import step_seconds

PAPER = ("densenet121", "resnet50", "legacy_xception", "inception_v3")
CHOICES = {
    "float32, first": Speed(channels_last=False),
    "float32, last": Speed(),
    "bf16, first": Speed(precision="bf16-mixed", channels_last=False),
    "bf16, last": Speed(precision="bf16-mixed"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backbones", nargs="+", default=[*PAPER, "mobilenetv2_100"])
    arguments = parser.parse_args()
    choices = dict(CHOICES)
    print(machine())
    print("seconds of a guided step; ÷ float32, channels-last")
    print("| backbone | " + " | ".join(choices) + " |\n| --- |" + " --- |" * len(choices))
    for backbone in arguments.backbones:
        training = Training(batch_size=arguments.batch, threads=arguments.threads)
        config = RunConfig(manifest=Path("m"), backbone=backbone, positive="b", training=training)
        seconds = {}
        for name, speed in choices.items():
            seconds[name] = step_seconds(config, ["a", "b"], speed)
        plain = seconds["float32, last"]
        cells = " | ".join(f"{value:.2f} ({value / plain:.2f})" for value in seconds.values())
        print(f"| {backbone} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
