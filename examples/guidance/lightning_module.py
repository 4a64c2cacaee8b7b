"""A guidance method in a Lightning module; needs pytorch-lightning, or lightning."""

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from preceptor.losses.guidance import Guidance, GuidanceBatch, GuidedForward, guided_objective
from preceptor.models import GuidedModel


class GuidedModule(LightningModule):
    """Model that is trained with a guidance method, of the scale that `measure_scale` gave."""

    def __init__(self, model: GuidedModel, method: Guidance, scale: float) -> None:
        super().__init__()
        self.model, self.method, self.scale = model, method, scale
        self.guided = GuidedForward(model)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Loss of a batch of images, labels and maps."""
        batch = GuidanceBatch(*batch)
        loss, terms, _ = guided_objective(self.method, batch, self.guided, 0.5, self.scale)
        self.log_dict({name: values.mean() for name, values in terms.items()})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimizer of all parameters."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)
