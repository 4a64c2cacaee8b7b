"""Guided training by an engine of Ignite: python examples/integrations/ignite_engine.py [FOLDER]"""

from collections.abc import Callable
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from squares import CLASSES, SIZE, STRIDE, folder_given, printed, read_images, write_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from preceptor import GuidedLoss, build_model
from preceptor.models import GuidedModel

Step = Callable[[Engine, list[Tensor]], float]


def guided_step(model: GuidedModel, optimizer: torch.optim.Optimizer) -> Step:
    """Process function of an engine: a step on a batch of images, labels and maps."""
    loss_of = GuidedLoss(alpha=0.5)

    def step(_: Engine, batch: list[Tensor]) -> float:
        model.train()
        images, labels, human = batch
        out = model(images, labels)  # one forward pass: logits and saliency
        loss = loss_of(out.logits, labels, out.saliency, human)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def train(step: Step, data: Dataset[tuple[Tensor, ...]], epochs: int) -> list[float]:
    """Run an engine; returns the loss of each step."""
    engine, losses = Engine(step), []

    @engine.on(Events.ITERATION_COMPLETED)
    def keep(engine: Engine) -> None:
        losses.append(engine.state.output)

    engine.run(DataLoader(data, batch_size=16), max_epochs=epochs)
    return losses


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = build_model("test_byobnet", CLASSES, input_size=SIZE, backbone_args=STRIDE)
    step = guided_step(model, torch.optim.Adam(model.parameters(), lr=3e-3))
    return printed(train(step, read_images(write_images(folder, 96), model), epochs))


if __name__ == "__main__":
    main(folder_given())
