"""Guided training by Hugging Face's Trainer: python examples/integrations/hf_trainer.py [FOLDER]"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from squares import CLASSES, SIZE, STRIDE, folder_given, printed, read_images, write_images
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from transformers import Trainer, TrainingArguments

from preceptor import GuidedLoss, build_model
from preceptor.models import GuidedModel


class GuidedTrainer(Trainer):
    """Trainer with the guided loss."""

    loss_of = GuidedLoss(alpha=0.5)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Guided loss of a batch, and the logits if outputs are wanted."""
        labels = inputs["labels"]
        out = model(inputs["images"], labels)  # one forward pass: logits and saliency
        loss = self.loss_of(out.logits, labels, out.saliency, inputs["human"])
        return (loss, {"logits": out.logits}) if return_outputs else loss


def collate(items: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Batch of images, labels and maps by name."""
    return dict(zip(("images", "labels", "human"), default_collate(items), strict=True))


def train(
    model: GuidedModel, data: Dataset[Any], epochs: int, trainer: type[Trainer] = GuidedTrainer
) -> list[float]:
    """Train a model; returns the loss of each step."""
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            train_sampling_strategy="sequential",  # mixed already
            lr_scheduler_type="constant",
            max_grad_norm=0,  # without clipping, which is the default
            remove_unused_columns=False,  # the maps are no argument of the model
            label_names=["labels"],
            logging_steps=1,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        found = trainer(model, arguments, collate, data, optimizers=(optimizer, None))
        found.train()
    return [entry["loss"] for entry in found.state.log_history if "loss" in entry]


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = build_model("test_byobnet", CLASSES, input_size=SIZE, backbone_args=STRIDE)
    return printed(train(model, read_images(write_images(folder, 96), model), epochs))


if __name__ == "__main__":
    main(folder_given())
