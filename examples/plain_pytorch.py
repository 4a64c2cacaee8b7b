"""Guided training in a plain PyTorch loop: python examples/plain_pytorch.py [FOLDER]

Noise images are written to FOLDER, half of them with a red square, with maps that are white on the
square. The guided loss trains the model's saliency to agree with these maps.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from preceptor import GuidedLoss, build_model
from preceptor.saliency.agreement import correlation

CLASSES, SIZE = ["plain", "marked"], 64


def write_images(folder: Path, count: int) -> None:
    """Write `count` images as LABEL-NUMBER.png, and their maps as NUMBER-map.png."""
    generator = np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        pixels = generator.integers(0, 160, (SIZE, SIZE, 3), dtype=np.uint8)
        human = np.zeros((SIZE, SIZE), np.uint8)
        if label:
            top, left = generator.integers(0, SIZE - 20, 2)
            pixels[top : top + 20, left : left + 20, 0] = 200
            human[top : top + 20, left : left + 20] = 255
        Image.fromarray(pixels).save(folder / f"{CLASSES[label]}-{number}.png")
        Image.fromarray(human).save(folder / f"{number}-map.png")


def read_images(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W) in [0, 1], labels (N,), maps (N, H, W) in [0, 1]."""
    files = sorted(path for name in CLASSES for path in folder.glob(f"{name}-*.png"))
    labels = torch.tensor([CLASSES.index(path.name.split("-")[0]) for path in files])
    images = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in files])
    maps = [folder / f"{path.stem.split('-')[1]}-map.png" for path in files]
    human = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in maps])
    return images.permute(0, 3, 1, 2) / 255, labels, human / 255


def main(folder: Path, epochs: int = 8) -> None:
    """Write images into `folder` and train on them."""
    torch.manual_seed(0)
    write_images(folder, 96)
    images, labels, human = read_images(folder)
    stride = {"output_stride": 8}  # maps of 8 × 8
    model = build_model("test_byobnet", CLASSES, weights="none", backbone_args=stride)
    grid = model(images[:2], labels[:2]).saliency.shape[1:]
    human = functional.adaptive_avg_pool2d(human[:, None], grid)[:, 0]
    loss_of = GuidedLoss(alpha=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(images)).split(16):
            out = model(images[batch], labels[batch])  # one forward pass: logits and saliency
            loss = loss_of(out.logits, labels[batch], out.saliency, human[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        agreement, valid = correlation(out.saliency.detach(), human[batch])
        print(f"epoch {epoch}: loss={loss:.3f} map correlation={agreement[valid].mean():.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
