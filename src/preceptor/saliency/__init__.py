"""Saliency of a model as tensors: CAM, Grad-CAM, RISE, and how maps agree."""

from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.normalise import normalise
from preceptor.saliency.rise import rise

__all__ = ["class_activation_map", "normalise", "rise"]
