"""Where a model looks: maps, their agreement and their store."""

from preceptor.saliency.cam import class_activation_map
from preceptor.saliency.maps import normalise
from preceptor.saliency.rise import rise

__all__ = ["class_activation_map", "normalise", "rise"]
