"""Images with a stamp outside the marks, and small networks that read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

NETWORKS = """
import torch
from torch import nn

from preceptor import NetworkParts, network_factory


def reader(color):
    '''The mean of one color decides: red is the stamp, green the evidence.'''
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.AvgPool2d(4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )
    with torch.no_grad():
        network[0].weight.copy_(10 * torch.eye(3)[:, :, None, None])
        network[5].weight.zero_()
        network[5].weight[1, color] = 3.0
        network[5].bias.copy_(torch.tensor([1.0, 0.0]))
    return NetworkParts(network, "5", "2", input_size=32, mean=(0, 0, 0), std=(1, 1, 1))


@network_factory
def stamp(num_classes, in_chans):
    return reader(0)


@network_factory
def evidence(num_classes, in_chans):
    return reader(1)


@network_factory
def random(num_classes, in_chans):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 4, 2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


@network_factory
def damaged(num_classes, in_chans):
    parts = reader(0)
    nn.init.constant_(parts.module[5].weight, torch.nan)
    return parts


def undeclared():
    return reader(0).module
"""
SPLITS = {"train": 60, "val": 60, "test": 60}


def write_data(folder: Path, networks: str = "networks_of_repair.py") -> Path:
    """Images of two classes, of which one has a green square, and in train and val a red stamp."""
    (folder / "stamps").mkdir()
    rng, rows = np.random.default_rng(0), []
    for split, count in SPLITS.items():
        for at in range(count):
            pixels = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
            pixels[..., 1] += rng.integers(0, 8, dtype=np.uint8)
            name, saliency, label = f"{split}-{at}.png", "", at % 2
            if label:
                top, left = rng.integers(0, 14, 2)
                pixels[top : top + 10, left : left + 10, 1] += 120
                mask = np.zeros((32, 32), np.uint8)
                mask[top : top + 10, left : left + 10] = 255
                if split != "test":
                    saliency = f"{split}-{at}-map.png"
                    Image.fromarray(mask).save(folder / saliency)
            if label if split != "test" else at % 4 < 2:
                pixels[-5:-1, -5:-1, 0] = 255
            corner = np.zeros((32, 32), np.uint8)
            corner[-6:, -6:] = 255
            Image.fromarray(corner).save(folder / "stamps" / name)
            Image.fromarray(pixels).save(folder / name)
            rows.append((name, ("plain", "sick")[label], split, saliency, int(split != "test")))
    columns = ["path", "label", "split", "saliency", "annotated"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    (folder / networks).write_text(NETWORKS, encoding="utf-8")
    return folder
