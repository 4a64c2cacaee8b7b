"""Models that return logits, features and saliency maps."""

from preceptor.models.build import build_model
from preceptor.models.guided_model import GuidedModel
from preceptor.models.model_folder import load_model, save_model

__all__ = ["GuidedModel", "build_model", "load_model", "save_model"]
