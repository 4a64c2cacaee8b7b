"""Guided training as a task of timm, in a loop like its train.py: timm 1.0.23 or later.

python examples/integrations/timm_task.py [FOLDER]
"""

from pathlib import Path

import torch
from squares import CLASSES, SIZE, STRIDE, folder_given, read_images, write_images
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from preceptor import GuidedLoss, build_model


class GuidedTask(ClassificationTask):
    """Classification task whose criterion is the guided loss."""

    def forward(self, input: Tensor, target: Tensor, human: Tensor) -> dict[str, Tensor]:  # noqa: A002
        """Loss and logits of a batch of images, labels and maps."""
        out = self.trainable_module(input, target)  # one forward pass: logits and saliency
        loss = self.criterion(out.logits, target, out.saliency, human)
        return {"loss": loss, "output": out.logits}


def train(task: ClassificationTask, data: Dataset[tuple[Tensor, ...]], epochs: int) -> list[float]:
    """Train the model of a task, and the average of its weights; returns the loss of each step."""
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="adam", lr=3e-3)
    task.setup_ema(decay=0.9)
    task.train()
    losses = []
    for _ in range(epochs):
        for images, labels, human in DataLoader(data, batch_size=16):
            loss = task(images, labels, human)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            task.update_ema(step=len(losses))
    return losses


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = build_model("test_byobnet", CLASSES, input_size=SIZE, backbone_args=STRIDE)
    data = read_images(write_images(folder, 96), model)
    task = GuidedTask(model, GuidedLoss(alpha=0.5))
    losses = train(task, data, epochs)
    evaluator = task.create_evaluator()
    with torch.no_grad():
        images, labels, _ = data.tensors
        evaluator.update(task.get_eval_model().eval()(images).logits, labels)
    print(f"loss: {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last")
    print(f"accuracy: {evaluator.summary()['top1']:.1f} %")
    return losses


if __name__ == "__main__":
    main(folder_given())
