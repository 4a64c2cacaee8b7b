"""Decoy-Fashion-MNIST as the Typology guides it: its network, and maps of all but a corner.

    preceptor data decoys --to FOLDER --source fashion --exact
    python benchmarks/published_decoys.py FOLDER/0

`patch.csv`: maps of all but the patch; `opposite.csv`: the wrong corner. Friedrich et al., 2023.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

from preceptor import NetworkParts, network_factory
from preceptor.benchmark.decoys import FASHION_CLASSES, levels


@network_factory
def simple_conv_net(num_classes: int, in_chans: int) -> NetworkParts:
    """Two convolutions of 5 × 5 with pooling, and two linear layers."""
    features = nn.Sequential(
        *(nn.Conv2d(in_chans, 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
    )
    head = nn.Linear(256, num_classes)
    network = nn.Sequential(features, nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), head)
    return NetworkParts(network, head="4", features="0", input_size=28, mean=[0.0], std=[1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for row, column in np.ndindex(2, 2):
        left_out = np.full((28, 28), 255, np.uint8)
        left_out[24 * row : 24 * row + 4, 24 * column : 24 * column + 4] = 0
        Image.fromarray(left_out).save(folder / "maps" / f"all-but-{row}{column}.png")
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    grays = dict(zip(FASHION_CLASSES, levels(10), strict=True))
    opposite = table.copy()
    for i, path in enumerate(table["path"][table["split"] == "train"]):
        row, column = np.random.default_rng([0, 0, i]).integers(2, size=2)  # as they were drawn
        patch = np.asarray(Image.open(folder / path))[24 * row :, 24 * column :][:4, :4]
        assert (patch == grays[table["label"][i]]).all(), path
        table.loc[i, "saliency"] = f"maps/all-but-{row}{column}.png"
        opposite.loc[i, "saliency"] = f"maps/all-but-{1 - row}{1 - column}.png"
    for name, one in (("patch", table), ("opposite", opposite)):
        one.to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
