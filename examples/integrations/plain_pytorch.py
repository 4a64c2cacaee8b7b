"""Guided training in a plain PyTorch loop: python examples/integrations/plain_pytorch.py [FOLDER]

Images, maps and the trained model are written to FOLDER. The guided loss trains the model's
saliency to agree with the maps.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from squares import CLASSES, SIZE, STRIDE, folder_given, read_images, write_images
from torch import Tensor, nn
from torch.utils.data import DataLoader

from preceptor import GuidedLoss, build_model
from preceptor.models import save_model
from preceptor.saliency.maps import correlation


def train(model: nn.Module, batches: Iterable[list[Tensor]], epochs: int) -> list[float]:
    """Train a model on batches of images, labels and maps; returns the loss of each step."""
    loss_of = GuidedLoss(alpha=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    model.train()
    for epoch in range(1, epochs + 1):
        for images, labels, human in batches:
            out = model(images, labels)  # one forward pass: logits and saliency
            loss = loss_of(out.logits, labels, out.saliency, human)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        agreement, valid = correlation(out.saliency.detach(), human)
        print(f"epoch {epoch}: loss={loss:.3f} map correlation={agreement[valid].mean():.2f}")
    return losses


def main(folder: Path, epochs: int = 8) -> list[float]:
    """Write images into `folder` and train on them; returns the loss of each step."""
    torch.manual_seed(0)
    model = build_model("test_byobnet", CLASSES, input_size=SIZE, backbone_args=STRIDE)
    data = read_images(write_images(folder, 96), model)
    losses = train(model, DataLoader(data, batch_size=16), epochs)
    save_model(model, folder / "model")  # for preceptor.load, preceptor predict and the others
    return losses


if __name__ == "__main__":
    main(folder_given())
