"""Guided training in a Lightning module: python examples/integrations/lightning_module.py [FOLDER]

The module is the same with `import lightning.pytorch`, which is the same library.
"""

from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer
from squares import CLASSES, SIZE, STRIDE, folder_given, printed, read_images, write_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from preceptor import GuidedLoss, build_model
from preceptor.models import GuidedModel


class GuidedModule(LightningModule):
    """Guided model with its loss and optimizer."""

    def __init__(self, model: GuidedModel) -> None:
        super().__init__()
        self.model = model
        self.loss_of = GuidedLoss(alpha=0.5)
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Guided loss of a batch of images, labels and maps."""
        images, labels, human = batch
        out = self.model(images, labels)  # one forward pass: logits and saliency
        loss: Tensor = self.loss_of(out.logits, labels, out.saliency, human)
        self.log("loss", loss, batch_size=len(images))
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimizer of all parameters."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def train(module: GuidedModule, data: Dataset[tuple[Tensor, ...]], epochs: int) -> list[float]:
    """Train a module; returns the loss of each step."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=16))
    return module.losses


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = build_model("test_byobnet", CLASSES, input_size=SIZE, backbone_args=STRIDE)
    data = read_images(write_images(folder, 96), model)
    return printed(train(GuidedModule(model), data, epochs))


if __name__ == "__main__":
    main(folder_given())
