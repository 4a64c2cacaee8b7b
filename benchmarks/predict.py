"""Speed of `preceptor predict` against the slower of decoding and the network alone.

  python benchmarks/predict.py [--backbone NAME] [--images N] [--batch-size B] [--turns T]

JPEG files of 400 × 300, in the page cache; maps are computed on both sides. Decoding alone: files
to canvases, by as many threads as `predict` has. Network alone: bare batches of canvases that are
ready. Predict: the whole way from the list of files to the CSV file and the map store. All run in
turn.

On a CPU, decoding and the network share the cores: where both keep all of them busy, `predict`
cannot be faster than one after the other. Therefore the CPU time of `predict` is compared with the
sum of theirs as well, which other programs on the machine hardly change. Also printed: the time of
`import preceptor` and of `preceptor.load`, each in a new process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from measure import in_turn, machine
from PIL import Image

import preceptor
from preceptor.batch_prediction.image_list import ListedImage
from preceptor.batch_prediction.predict_files import MapOutput, predict_files
from preceptor.models.build import build_model
from preceptor.models.model_folder import save_model
from preceptor.predictor.inputs import Canvas, canvas_of
from preceptor.predictor.torch_network import TorchNetwork
from preceptor.runtime.cores import core_count

IMPORT = "import time; t = time.perf_counter(); import preceptor; print(time.perf_counter() - t)"
LOAD = (
    "import sys, time, preceptor; t = time.perf_counter(); preceptor.load(sys.argv[1]); "
    "print(time.perf_counter() - t)"
)


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of 400 × 300."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def in_new_process(code: str, *arguments: str) -> float:
    """Median of the seconds that three new processes print."""
    command = [sys.executable, "-c", code, *arguments]
    found = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    return median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    workers = core_count()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = make_images(folder / "images", options.images)
        model = build_model(options.backbone, ["real", "fake"], positive="fake")
        save_model(model, folder / "model")
        size = options.batch_size
        predictor = preceptor.load(folder / "model", device=options.device, batch_size=size)
        network = TorchNetwork(model, device=options.device, batch_size=size)
        form = network.info.image_format
        listed = [ListedImage(path.name, str(path)) for path in paths]
        ready: list[np.ndarray] = []
        turn = 0

        def decode() -> None:
            ready.clear()
            with ThreadPoolExecutor(workers) as pool:
                found = pool.map(lambda path: canvas_of(path, form), paths)
                pixels = [one.pixels for one in found if isinstance(one, Canvas)]
            ready.extend(np.stack(pixels[at : at + size]) for at in range(0, len(pixels), size))

        def compute() -> None:
            for batch in ready:
                network(batch)

        def predict() -> None:
            nonlocal turn
            turn += 1
            out = folder / f"{turn}.csv"
            maps = MapOutput("store", folder / f"{turn}-maps")
            predict_files(predictor, listed, out, model="", settings="", maps=maps)

        used: dict[str, list[float]] = {}

        def counted(name: str, run: Callable[[], None]) -> Callable[[], None]:
            """Side whose CPU time is noted."""

            def call() -> None:
                started = time.process_time()
                run()
                used.setdefault(name, []).append(time.process_time() - started)

            return call

        sides = {"decode": decode, "network": compute, "predict": predict}
        counting = {name: counted(name, run) for name, run in sides.items()}
        seconds = in_turn(counting, turns=options.turns)
        print(machine())
        print(f"{options.backbone} at {form.size} px, batch {size}, {workers} decoding threads")
        for name, values in seconds.items():
            print(f"{name:8} {options.images / median(values):8.1f} images/s")
        slower = [max(one[:2]) / one[2] for one in zip(*seconds.values(), strict=True)]
        work = [sum(one[:2]) / one[2] for one in list(zip(*used.values(), strict=True))[1:]]
        print(f"predict ÷ the slower of both alone, images/s: {median(slower):.3f}")
        print(f"CPU time of both alone ÷ of predict:          {median(work):.3f}")
        print(f"import preceptor:     {in_new_process(IMPORT):.3f} s")
        print(f"preceptor.load:       {in_new_process(LOAD, str(folder / 'model')):.3f} s")


if __name__ == "__main__":
    main()
