"""Saliency methods as functions of tensors: CAM, Grad-CAM, RISE; agreement measures."""

from preceptor.saliency.cam import class_activation_map, decision_map, grad_cam
from preceptor.saliency.maps import normalize
from preceptor.saliency.rise import rise

__all__ = ["class_activation_map", "decision_map", "grad_cam", "normalize", "rise"]
