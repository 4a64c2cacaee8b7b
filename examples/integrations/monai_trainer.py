"""Guided training of a MONAI network: python examples/integrations/monai_trainer.py [FOLDER]"""

from pathlib import Path
from typing import Any

import monai.transforms as mt
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet
from squares import CLASSES, folder_given, printed, write_images
from torch import Tensor

from preceptor import GuidedLoss
from preceptor.saliency.cam import class_activation_map

BOTH, LOSS = ["image", "map"], GuidedLoss(alpha=0.5)


class GuidedDenseNet(DenseNet):
    """DenseNet that also returns its class activation maps."""

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the maps of the labels."""
        features = self.class_layers.relu(self.features(images))
        maps = class_activation_map(features, self.class_layers.out.weight, labels)
        return self.class_layers.out(features.mean((2, 3))), maps


def read_images(files: list[tuple[Path, int, Path]]) -> CacheDataset:
    """Images, labels and maps; each map is flipped with its image, and then has 8 × 8 cells."""
    load = mt.LoadImaged(BOTH, ensure_channel_first=True)
    change = [mt.RandFlipd(BOTH, 0.5, spatial_axis=1), mt.RandRotate90d(BOTH, 0.5)]
    cells = [mt.Resized("map", (8, 8), mode="area"), mt.EnsureTyped(BOTH, track_meta=False)]
    scale = mt.ScaleIntensityRanged(BOTH, 0, 255, 0, 1)
    items = [{"image": image, "label": label, "map": m} for image, label, m in files]
    return CacheDataset(items, mt.Compose([load, scale, *change, *cells]), progress=False)


def parts(batch: dict[str, Tensor], *_: Any, **__: Any) -> tuple[Any, ...]:
    """Images, the targets of the loss, and the second argument of the network."""
    return batch["image"], (batch["label"], batch["map"][:, 0]), (batch["label"],), {}


def guided_loss(out: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Guided loss of logits and maps for labels and human maps."""
    return LOSS(out[0], targets[0], out[1], targets[1])


def train(model: DenseNet, data: CacheDataset, epochs: int, loss: Any = guided_loss) -> list[float]:
    """Train a network; returns the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loader, options = DataLoader(data, batch_size=16), {"prepare_batch": parts, "decollate": False}
    trainer = SupervisedTrainer("cpu", epochs, loader, model, optimizer, loss, **options)
    found, state = [], trainer.state
    trainer.on(Events.ITERATION_COMPLETED)(lambda: found.append(state.output["loss"].item()))
    trainer.run()
    return found


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = GuidedDenseNet(2, 3, len(CLASSES), init_features=16, growth_rate=8, block_config=(2, 2))
    return printed(train(model, read_images(write_images(folder, 96)), epochs))


if __name__ == "__main__":
    main(folder_given())
