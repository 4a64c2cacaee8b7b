"""Saliency methods as functions of tensors: CAM, Grad-CAM, RISE; agreement measures."""

from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.normalise import normalise
from preceptor.saliency.rise import rise

__all__ = ["class_activation_map", "normalise", "rise"]
