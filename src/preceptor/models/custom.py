"""Networks from outside timm: guided models of any classifier, and factories of such networks.

A network from outside timm names its linear classifier and the module whose output is the features.
Configs and model folders name a factory, a function that creates the network. Loading a model
folder calls the function only if it is declared by `network_factory`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from preceptor.config.image_format import Fit
from preceptor.config.network import NetworkFactory
from preceptor.errors import InputError, reason
from preceptor.models.guided_model import GuidedModel
from preceptor.models.module_network import ModuleNetwork, Part
from preceptor.models.probes import check_cam_identity, check_grad_cam
from preceptor.models.spec import CamKind, Head, ModelSpec, ModuleParts
from preceptor.runtime.memory import out_of_memory
from preceptor.runtime.modes import evaluating
from preceptor.runtime.module_names import missing_module, parents_of
from preceptor.runtime.plugins import plugin
