"""Saliency methods as functions of tensors: CAM, Grad-CAM, RISE; agreement measures."""
