"""Models that return logits, features and saliency maps."""

from preceptor.models.build import build_model, load_model, save_model
from preceptor.models.guided_model import GuidedModel

__all__ = ["GuidedModel", "build_model", "load_model", "save_model"]
