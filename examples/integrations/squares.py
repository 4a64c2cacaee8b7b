"""Images with squares and their maps, the training data of the examples in this folder.

The images are noise, half of them with a red square; the map of an image is white on its square.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import TensorDataset

from preceptor.models import GuidedModel

CLASSES, SIZE = ["plain", "marked"], 64
STRIDE = {"output_stride": 8}  # maps of 8 × 8


def write_images(folder: Path, count: int) -> list[tuple[Path, int, Path]]:
    """Write images and their maps; returns image, label and map in an order that is mixed once."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        label = number % 2
        pixels = generator.integers(0, 160, (SIZE, SIZE, 3), dtype=np.uint8)
        human = np.zeros((SIZE, SIZE), np.uint8)
        if label:
            top, left = generator.integers(0, SIZE - 20, 2)
            pixels[top : top + 20, left : left + 20, 0] = 200
            human[top : top + 20, left : left + 20] = 255
        files.append((folder / f"{number}.png", label, folder / f"{number}-map.png"))
        Image.fromarray(pixels).save(files[-1][0])
        Image.fromarray(human).save(files[-1][2])
    return [files[index] for index in generator.permutation(count)]


def read_images(files: list[tuple[Path, int, Path]], model: GuidedModel) -> TensorDataset:
    """Images (3, 64, 64) as a model expects them, their labels, and maps (h, w) on its grid."""
    paths, labels, maps = zip(*files, strict=True)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in paths])
    human = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in maps])
    human = functional.adaptive_avg_pool2d(human[:, None] / 255, model.grid())[:, 0]
    images = model.preprocess(pixels.permute(0, 3, 1, 2))
    return TensorDataset(images, torch.tensor(labels), human)


def folder_given() -> Path:
    """Folder given on the command line, else a new one."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())


def printed(losses: list[float]) -> list[float]:
    """Print the first and the last loss."""
    print(f"loss: {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last")
    return losses
