"""Guided model: a network that also returns its features and saliency maps, in any precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from preceptor.config.training import Precision
from preceptor.errors import InputError
from preceptor.models.features import (
    Layout,
    ModuleNetwork,
    allow_second_derivatives,
    as_evaluated,
    cyborg_taps,
    last_block,
    layout_of,
    of_the_batch,
    statistics,
)
from preceptor.models.networks import classifiers
from preceptor.models.spec import ModelSpec, pooled_logits
from preceptor.saliency.cam import (
    binary_logits,
    class_activation_map,
    decision_map,
    grad_cam,
    log_odds_slopes,
    other_entropy,
)
from preceptor.utils.process import evaluating


class ModelOutput(NamedTuple):
    """Output of a forward pass.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), the features from which saliency maps are computed.
    """

    logits: Tensor
    features: Tensor


class GuidedOutput(NamedTuple):
    """Output of a forward pass with saliency maps.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), the features from which the maps are computed.
        saliency: (B, h, w) raw maps of `classes`; (B, C, h, w) for "every" class.
        classes: (B,) class of each map; (B, C) for "every" class.
        evidence: Evidence of each cell, in the shape of `saliency`: the maps with their bias, so
            that their mean is the logit of a head on mean-pooled features; for decision maps, the
            log-odds log p − log(1 − p) of the class, whatever the number of classes. Grad-CAM is
            scaled by the number of cells, as the CAM is, and what its mean lacks counts as the same
            in every cell.
    """

    logits: Tensor
    features: Tensor
    saliency: Tensor
    classes: Tensor
    evidence: Tensor


class GuidedModel(nn.Module):
    """Network that also returns features and saliency maps; built by `build_model` or `guide`.

    Args:
        backbone: Network with its classifier, in the interface of timm's.
        spec: Specification of the model.
        takes: (K, h, w) of the features that it takes for images, see `models.frozen`; () = images.
    """

    def __init__(self, backbone: nn.Module, spec: ModelSpec, takes: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.takes = takes
        self.frozen: tuple[str, ...] = ()  # modules that are never trained; the last is the highest
        # Where the network is already: `with_pool` and `guide` take networks of a GPU too.
        device = next((part.device for part in backbone.parameters()), None)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            value = torch.tensor(values, device=device).view(1, spec.in_chans, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self._layout: Layout | None = None
        self._tapped: Tensor | None = None
        self._differentiate = False  # whether the current pass needs a graph from the tap on
        self._entered: Tensor | None = None  # what follows the features is a function of it
        self._after: list[str] | None = None  # see `norms_after_features`
        self._watched: list[str] = []
        self._taps = spec.cam_source == "cyborg" or spec.tap != "" or spec.module is not None
        if isinstance(backbone, ModuleNetwork):
            self._attach()
        elif spec.cam_source == "cyborg":
            cyborg_taps(backbone, self._keep)
        elif spec.cam == "gradcam":
            allow_second_derivatives(backbone, spec.tap)
        if spec.tap == "last_block":
            block = last_block(backbone)
            assert block is not None
            block.register_forward_pre_hook(self._tap_block)

    def forward(
        self,
        images: Tensor,
        saliency_for: Tensor | Literal["predicted", "every"] | None = None,
        *,
        decision: bool = False,
    ) -> ModelOutput | GuidedOutput:
        """Logits, features and, optionally, saliency maps in one forward pass.

        Args:
            images: (B, in_chans, H, W) normalized images.
            saliency_for: Classes of the maps: (B,) class indices, "predicted", or "every" class;
                None = no maps.
            decision: Decision maps instead of class maps of one class per image, see
                `saliency.cam.decision_map`.

        Returns:
            `ModelOutput`, or with `saliency_for` a `GuidedOutput`. In training, gradients flow
            through the maps. They are computed inside the forward pass, so that precision and
            parallelism apply to them as well.

        Raises:
            ValueError: `saliency_for` is invalid, or does not have one class per image.
        """
        if self._taps and getattr(self, "_is_replica", False):  # the original has the hooks
            raise InputError("nn.DataParallel fails here; use DistributedDataParallel or one GPU")
        if isinstance(saliency_for, Tensor):
            if saliency_for.shape != (images.shape[0],):
                raise ValueError(
                    f"saliency_for {tuple(saliency_for.shape)} must be (B,) with B = {len(images)}"
                )
            if saliency_for.dtype not in (torch.int64, torch.int32):  # bool and uint8 are masks
                raise ValueError(f"saliency_for is {saliency_for.dtype}, not int64")
        elif saliency_for not in (None, "predicted", *(() if decision else ("every",))):
            raise ValueError(f"saliency_for {saliency_for!r} is not classes, predicted or every")
        if saliency_for is None:
            return ModelOutput(*self._pass(images))
        if self.spec.cam == "cam":
            return _with_cam(*self._pass(images), self.head, saliency_for, decision=decision)
        if torch.is_inference_mode_enabled():  # tensors of inference mode have no gradients
            with torch.inference_mode(False), torch.no_grad():
                if isinstance(saliency_for, Tensor):
                    saliency_for = saliency_for.clone()
                return self.forward(images.clone(), saliency_for, decision=decision)
        trainable = torch.is_grad_enabled()
        norms = self._norms_in_training()
        self._differentiate = True
        try:
            with torch.set_grad_enabled(trainable):  # undone here if a tap in the trunk changed it
                logits, features, alone = self._pass_apart(images, norms)
                return _with_grad_cam(
                    logits, features, alone, saliency_for, decision=decision, trainable=trainable
                )
        finally:
            self._differentiate, self._entered = False, None

    def _pass(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C) logits, and the (B, Ch, h, w) features that they are computed from."""
        raw, features = self._features(images)
        if self.spec.pool.kind == "mean":
            return self._head(raw), features
        with torch.autocast(features.device.type, enabled=False):  # as for the CAM
            weight, bias, dense = _linear_head(self.head, features)
            maps, spec = _every_map(weight, dense), self.spec
            return pooled_logits(maps, bias, spec.pool, spec.positive_index), features

    def mean_pooled(self, images: Tensor) -> ModelOutput:
        """Logits of the backbone itself, whatever the pooling, and the features."""
        raw, features = self._features(images)
        return ModelOutput(self._head(raw), features)

    def _pass_apart(self, images: Tensor, norms: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
        """As `_pass`, with further logits, independent between images, to differentiate."""
        # In training, batch norm couples images: in a batch of one class the derivatives add up to
        # zero. The head is computed again with the running statistics from before this batch.
        before = [statistics(norm) for norm in norms]
        raw, features = self._features(images)
        with torch.enable_grad():
            logits = self._head(raw)
            if not norms:
                return logits, features, logits
            with as_evaluated(norms, before):
                return logits, features, self._head(self._from_tap(images) if self._taps else raw)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the head, and the features (B, Ch, h, w) from which it is computed."""
        if not torch.compiler.is_compiling():
            self._attach()
        raw = self.backbone.forward_features(images)  # type: ignore[operator]
        if self._tapped is None:
            assert not self._taps
            features = self._as_features(raw)
            with torch.set_grad_enabled(self._differentiate or torch.is_grad_enabled()):
                raw = self._layout_of(raw).from_grid(features, raw)
        else:
            features, self._tapped = self._tapped, None
        # The layout first: in a traced graph, a comparison of sizes fixes them.
        tokens = self._layout is not None and self._layout.kind == "tokens"
        if tokens and images.shape[-2] != images.shape[-1]:
            height, width = images.shape[-2:]
            raise InputError(
                f"images are {height} × {width} pixels: the grid of tokens is known for square "
                "images only; give square images"
            )
        return raw, features

    def _attach(self) -> None:
        """Take the features of a network from outside timm, which serves one model at a time."""
        network = self.backbone
        if isinstance(network, ModuleNetwork) and network.tap != self._tap:
            network.tap, network.plain_attention = self._tap, self.spec.cam == "gradcam"

    def _from_tap(self, images: Tensor) -> Tensor:
        """Output of the trunk if the input of the tapped block is given to the block again."""
        norms = [part for part in self.backbone.modules() if of_the_batch(part)]
        with as_evaluated(norms, [{}] * len(norms)), torch.no_grad():
            raw: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return raw

    def norms_after_features(self) -> list[str]:
        """Names of the batch norms between the features and the logits."""
        if self._after is None:
            handles = [
                part.register_forward_pre_hook(partial(self._watch, name))
                for name, part in self.backbone.named_modules()
                if of_the_batch(part)
            ]
            self._watched = []
            if handles:
                self._blank()
            for handle in handles:
                handle.remove()
            self._after = list(self._watched)
        return self._after

    def _watch(self, name: str, *_: Any) -> None:
        self._watched.append(name)

    def _norms_in_training(self) -> list[nn.Module]:
        if not self.training:
            return []
        # By name, since modules of a copy may have been replaced.
        norms = [self.backbone.get_submodule(name) for name in self.norms_after_features()]
        return [norm for norm in norms if norm.training]

    def _head(self, raw: Tensor) -> Tensor:
        # A copy, since the layers after the features may change their input in place.
        entered = raw.clone() if self._differentiate and not self._taps else raw
        logits: Tensor = self.backbone.forward_head(entered)  # type: ignore[operator]
        return binary_logits(logits)

    def _as_features(self, raw: Tensor) -> Tensor:
        """Features as a grid; a leaf with gradients if a graph is needed and none exists."""
        features = self._layout_of(raw).to_grid(raw)
        self._watched.clear()  # those before the features
        if self._differentiate and not features.requires_grad:
            features = features.detach().requires_grad_()
        return features

    def _layout_of(self, raw: Tensor) -> Layout:
        layout = self._layout
        if layout is None or (layout.kind == "tokens" and raw.shape[1] != layout.tokens):
            layout = self._layout = layout_of(self.backbone, raw)
        return layout

    def _keep(self, features: Tensor) -> None:
        self._tapped = features

    def _tap_block(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Replace the tokens that enter the last block by a function of the features."""
        return (self._tap(arguments[0]), *arguments[1:])

    def _tap(self, raw: Tensor) -> Tensor:
        """Keep the features inside the network, and return a function of them to go on with."""
        if self._entered is not None:
            torch.set_grad_enabled(True)
            return self._entered.clone()
        self._tapped = self._as_features(raw)
        if self._differentiate:
            torch.set_grad_enabled(True)  # from here to the end of the forward
        entered = self._layout_of(raw).from_grid(self._tapped, raw)
        if self._differentiate:
            self._entered = entered
            entered = entered.clone()
        return entered

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, except of what is frozen, which has the latter."""
        super().train(mode)
        for name in self.frozen:
            self.backbone.get_submodule(name).eval()
        return self

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalize (B, in_chans, H, W) uint8 images to mean and std; others are a ValueError."""
        if self.takes:  # features
            return images.float()
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}; give uint8 images, from 0 to 255")
        if images.ndim != 4 or images.shape[1] != self.spec.in_chans:
            shape = f"(B, {self.spec.in_chans}, H, W)"
            raise ValueError(f"images {tuple(images.shape)} must be {shape}")
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return images.to(mean.dtype).div_(255).sub_(mean).div_(std)

    @property
    def head(self) -> nn.Linear:
        """Linear classifier with weight (C, Ch) and bias (C,); (1, Ch) and (1,) for sigmoid heads.

        Raises:
            InputError: The model has no linear classifier, or two; its saliency is Grad-CAM.
        """
        heads = classifiers(self.backbone)
        if len(heads) != 1 or not isinstance(heads[0], nn.Linear):
            names = ", ".join(type(part).__name__ for part in heads) or "missing"
            raise InputError(
                f"{self.spec.backbone}: its classifier is {names}, not one linear layer"
            )
        return heads[0]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def guidable_grid(self) -> tuple[int, int]:
        """Size of the feature grid, at least 2 × 2 cells."""
        height, width = self.grid()
        if min(height, width) < 2:
            raise InputError(
                f"{self.spec.backbone} at input size {self.spec.input_size} has a {height} × "
                f"{width} feature grid, too coarse to guide; raise input_size, or set "
                "output_stride: 8 in backbone_args where the backbone takes it"
            )
        return height, width

    def grid(self) -> tuple[int, int]:
        """Size (h, w) of the features at the model's input size."""
        shape = self._blank().features.shape
        return int(shape[-2]), int(shape[-1])

    def _blank(self) -> ModelOutput:
        """Output for two blank images in evaluation mode."""
        some = next(self.parameters())
        size = (2, *(self.takes or (self.spec.in_chans, *[self.spec.input_size] * 2)))
        # Not in inference mode: what a network then caches cannot be trained with.
        # Nor under autocast: before torch 2.11 it keeps casts that were made without gradients.
        whole = torch.autocast(some.device.type, enabled=False)
        with evaluating(self), torch.no_grad(), whole:
            blank = torch.zeros(size, dtype=some.dtype, device=some.device)
            return ModelOutput(*self._pass(blank))


def class_weight(head: nn.Linear) -> Tensor:
    """(C, Ch) weight of the logit of each class; for a sigmoid head ± half of its weight."""
    return binary_logits(head.weight.T).T


def _linear_head(head: nn.Linear, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight (C, Ch) and bias (C,) of the logits, and the features, in float32 or wider."""
    wide = torch.promote_types(features.dtype, torch.float32)
    weight = class_weight(head).to(wide)
    bias = weight.new_zeros(len(weight))
    if head.bias is not None:
        bias = binary_logits(head.bias.to(wide))
    return weight, bias, features.to(wide)


def _every_map(weight: Tensor, features: Tensor) -> Tensor:
    """(B, C, h, w) map of every class, without the bias."""
    return torch.einsum("kc,bchw->bkhw", weight, features)


def _classes_of_maps(logits: Tensor, saliency_for: Tensor | str) -> Tensor:
    """Class of each map: (B,), or (B, C) for "every" class."""
    if isinstance(saliency_for, Tensor):
        return saliency_for
    if saliency_for == "predicted":
        return logits.detach().argmax(1)
    return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)


def _with_cam(
    logits: Tensor, features: Tensor, head: nn.Linear, saliency_for: Tensor | str, *, decision: bool
) -> GuidedOutput:
    """Output with the class activation maps, or the decision maps, of a linear head."""
    # Always in float32: the map is a small product, and min-max normalization amplifies rounding
    # errors.
    with torch.autocast(features.device.type, enabled=False):
        weight, bias, dense = _linear_head(head, features)
        classes = _classes_of_maps(logits, saliency_for)
        if classes.ndim == 2:
            maps = _every_map(weight, dense)
            offset = bias.expand(len(maps), -1)
        elif decision:
            maps = decision_map(dense, weight, logits, classes)
            offset = log_odds_slopes(logits, classes).to(bias.dtype) @ bias
            offset = offset - other_entropy(logits, classes)
        else:
            maps = class_activation_map(dense, weight, classes)
            offset = bias[classes]
    return GuidedOutput(logits, features, maps, classes, maps + offset[..., None, None])


def _with_grad_cam(
    logits: Tensor,
    features: Tensor,
    alone: Tensor,
    saliency_for: Tensor | str,
    *,
    decision: bool,
    trainable: bool,
) -> GuidedOutput:
    """Output with Grad-CAM, scaled as class activation maps are."""
    classes = _classes_of_maps(logits, saliency_for)
    each = classes.unbind(1) if classes.ndim == 2 else (classes,)
    raw = [grad_cam(alone, features, k, decision=decision, trainable=trainable) for k in each]
    values = [
        (log_odds_slopes(logits, k).to(logits.dtype) * logits).sum(1) - other_entropy(logits, k)
        if decision
        else logits.gather(1, k[:, None])[:, 0]
        for k in each
    ]
    cells = features.shape[-2] * features.shape[-1]
    scaled = [
        cells * slope + (value - cells * slope.mean((-2, -1))).detach()[:, None, None]
        for value, slope in zip(values, raw, strict=True)
    ]
    maps, evidence = (
        torch.stack(part, 1) if classes.ndim == 2 else part[0] for part in (raw, scaled)
    )
    if not trainable:
        logits, features = logits.detach(), features.detach()
    return GuidedOutput(logits, features, maps, classes, evidence)


_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast context of a precision; a null context for 32-true."""
    kind = _TYPES.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


def in_precision(model: nn.Module, precision: Precision) -> Callable[..., Any]:
    """Forward function of a `GuidedModel` in a precision, whose outputs are float32."""
    if precision not in _TYPES:
        return model

    def forward(*arguments: Any, **options: Any) -> Any:
        with autocast(next(model.parameters()).device, precision):
            out = model(*arguments, **options)
        return out._make(part.float() if part.is_floating_point() else part for part in out)

    return forward
