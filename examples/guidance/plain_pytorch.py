"""A guidance method in a plain PyTorch loop: python examples/guidance/plain_pytorch.py"""

from itertools import islice

import torch

from preceptor import build_model, guidance_method
from preceptor.losses.guidance import GuidanceBatch, GuidedForward, guided_objective, measure_scale

torch.manual_seed(0)
images, labels, human = torch.randn(32, 3, 64, 64), torch.arange(32) % 2, torch.zeros(32, 2, 2)
images[labels == 1, 0, :32, :32] += 2  # the evidence, and where it lies
images[labels == 1, 1, 32:, 32:] += 2  # a shortcut
human[labels == 1, 0, 0] = 1  # images without evidence have no map
batches = list(map(GuidanceBatch, images.split(8), labels.split(8), human.split(8)))

model = build_model("test_resnet", ["plain", "marked"], input_size=64).train()
method, forward = guidance_method("gradient", "ross"), GuidedForward(model)
scale = measure_scale(method, islice(batches, 2), forward)  # store it with the model
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(3):
    for batch in batches:
        loss, terms, logits = guided_objective(method, batch, forward, alpha=0.5, scale=scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    means = {name: round(values.mean().item(), 4) for name, values in terms.items()}
    print(f"epoch {epoch + 1}: {means}")
