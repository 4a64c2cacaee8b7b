"""Time of ONNX Runtime ÷ torch on a CPU, and what the map costs.

For the four backbones of the paper, untrained, at their input sizes. Both sides compute the same
batch with the same number of threads; rounds alternate between them, and the medians are compared.

    python benchmarks/onnx_speed.py --threads 1 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import torch

from preceptor.model_export.check_images import synthetic_images
from preceptor.model_export.deployed_model import DeployedModel
from preceptor.model_export.onnx import to_onnx
from preceptor.model_export.traced import trace
from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel

BACKBONES = ("densenet121", "resnet50", "legacy_xception", "inception_v3")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, batch {arguments.batch}, ms per image")
    print("backbone          torch  onnx  onnx/torch  map onnx  map torch")
    for backbone in arguments.backbones:
        times = times_of(backbone, arguments.threads, arguments.batch, arguments.rounds)
        per = {name: 1000 * value / arguments.batch for name, value in times.items()}
        print(
            f"{backbone:16} {per['torch']:6.1f} {per['onnx']:5.1f} "
            f"{per['onnx'] / per['torch']:11.2f} "
            f"{per['onnx'] / per['onnx without map'] - 1:+9.1%} "
            f"{per['torch'] / per['torch without map'] - 1:+10.1%}",
            flush=True,
        )


def times_of(backbone: str, threads: int, batch: int, rounds: int) -> dict[str, float]:
    """Median time of a batch in seconds, by side."""
    torch.manual_seed(0)
    model = build_model(backbone, ["real", "fake"], positive="fake").eval()
    images = synthetic_images(model.spec.image_format, max(batch, 16))
    pixels = images.read(images.positions[:batch])
    whole, bare = (exported(model, maps=maps) for maps in (True, False))
    sides = {
        "onnx": session(whole, threads),
        "onnx without map": session(bare, threads),
    }
    calls: dict[str, Callable[[], object]] = {
        name: lambda run=run: run.run(None, {"image": pixels})  # type: ignore[misc]
        for name, run in sides.items()
    }
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calls["torch"] = lambda: by_torch(model, pixels, maps=True)
    calls["torch without map"] = lambda: by_torch(model, pixels, maps=False)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:  # the first round warms up
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def exported(model: GuidedModel, *, maps: bool) -> onnx.ModelProto:
    deployed = DeployedModel(model, 0.5, maps=maps)
    return to_onnx(trace(deployed, torch.uint8, dynamic_size=False), deployed)


def session(graph: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def by_torch(model: GuidedModel, pixels: np.ndarray, *, maps: bool) -> None:  # type: ignore[type-arg]
    with torch.no_grad():
        batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        images = model.preprocess(batch)
        if maps:
            model(images, torch.ones(len(pixels), dtype=torch.int64), decision=True)
        else:
            model(images)


if __name__ == "__main__":
    main()
