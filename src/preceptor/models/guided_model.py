"""Guided model: a network that also returns its features and saliency maps."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from preceptor.errors import InputError
from preceptor.models.backbones import classifiers
from preceptor.models.batch_norm import as_evaluated, of_the_batch, statistics
from preceptor.models.cam_head import class_weight, linear_head, with_cam
from preceptor.models.check_images import check_square, check_uint8
from preceptor.models.feature_copies import FeatureCopies
from preceptor.models.feature_layout import (
    Layout,
    allow_second_derivatives,
    cyborg_taps,
    last_block,
    layout_of,
)
from preceptor.models.grad_cam_head import with_grad_cam
from preceptor.models.module_network import ModuleNetwork
from preceptor.models.outputs import GuidedOutput, ModelOutput
from preceptor.models.pooling import pooled_logits
from preceptor.models.spec import ModelSpec
from preceptor.runtime.modes import evaluating
from preceptor.saliency.cam import binary_logits


class GuidedModel(nn.Module):
    """Network that also returns features and saliency maps; built by `build_model` or `guide`.

    Args:
        backbone: Network with its classifier, in the interface of timm's.
        spec: Specification of the model.
    """

    def __init__(self, backbone: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        # Where the network is already: `with_pool` and `guide` take networks of a GPU too.
        device = next((part.device for part in backbone.parameters()), None)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            value = torch.tensor(values, device=device).view(1, spec.in_chans, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self._layout: Layout | None = None
        self._tapped: Tensor | None = None
        self._differentiate = False  # whether the current pass needs a graph from the tap on
        self._entered: Tensor | None = None  # what follows the features is a function of it
        self._copies = FeatureCopies()
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
            decision: Decision maps instead of class maps, see `saliency.cam.decision_map`.

        Returns:
            `ModelOutput`, or with `saliency_for` a `GuidedOutput`. In training, gradients flow
            through the maps. They are computed inside the forward pass, so that precision and
            parallelism apply to them as well.

        Raises:
            ValueError: `saliency_for` is invalid, or does not have one class per image.
        """
        if isinstance(saliency_for, Tensor):
            if saliency_for.shape != (images.shape[0],):
                raise ValueError(
                    f"saliency_for {tuple(saliency_for.shape)} must be (B,) with B = {len(images)}"
                )
        elif saliency_for not in (None, "predicted", "every"):
            raise ValueError(f"saliency_for {saliency_for!r} is not classes, predicted or every")
        if self.spec.cam == "cam" or saliency_for is None:
            logits, features = self._pass(images)
            if saliency_for is None:
                return ModelOutput(logits, features)
            return with_cam(logits, features, self.head, saliency_for, decision=decision)
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
                return with_grad_cam(
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
            linear, dense = linear_head(self.head, features)
            maps = linear.maps(dense)
            spec = self.spec
            return pooled_logits(maps, linear.bias, spec.pool, spec.positive_index), features

    def mean_pooled(self, images: Tensor) -> ModelOutput:
        """Logits of the backbone itself, whatever the pooling, and the features."""
        raw, features = self._features(images)
        return ModelOutput(self._head(raw), features)

    def _pass_apart(self, images: Tensor, norms: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
        """As `_pass`, with further logits for differentiation that are independent between images.

        In training, batch norm couples the images: the logit of an image depends on the features of
        the whole batch, and in a batch of one class the derivatives add up to zero. Therefore the
        layers after the features are computed again with the running statistics that the batch
        norms had before this batch, as in evaluation.
        """
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
        check_square(self._layout, images)
        return raw, features

    def _attach(self) -> None:
        """Take the features of a network from outside timm, which has them for one model at a time.

        Models that differ in their pooling share a network, and any of them may be called.
        """
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
        # By name, since modules may have been replaced by synchronized batch norms.
        norms = [self.backbone.get_submodule(name) for name in self.norms_after_features()]
        return [norm for norm in norms if norm.training]

    def _head(self, raw: Tensor) -> Tensor:
        entered = self._copies.of(raw) if self._differentiate and not self._taps else raw
        logits: Tensor = self.backbone.forward_head(entered)  # type: ignore[operator]
        self._copies.after_pass()
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
            return self._copies.of(self._entered)
        self._tapped = self._as_features(raw)
        if self._differentiate:
            torch.set_grad_enabled(True)  # from here to the end of the forward
        entered = self._layout_of(raw).from_grid(self._tapped, raw)
        if self._differentiate:
            self._entered = entered
            entered = self._copies.of(entered)
        return entered

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalize (B, in_chans, H, W) uint8 images to mean and std; others are a ValueError."""
        check_uint8(images, self.spec.in_chans)
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
    def logits_network(self) -> nn.Module:
        """Network with the logits of the model: the backbone, or itself if it pools otherwise."""
        return self.backbone if self.spec.pool.kind == "mean" else self

    @property
    def class_weight(self) -> Tensor:
        """(C, Ch) weight of the logit of each class; for a sigmoid head ± half of its weight."""
        return class_weight(self.head)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def guidable_grid(self) -> tuple[int, int]:
        """Size of the feature grid, at least 2 × 2 cells.

        Raises:
            InputError: The grid is coarser: all maps would be constant or nearly so, and guidance
                would have no effect.
        """
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

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Size (h, w) of the features of (N, in_chans, H, W) images."""
        height, width = self(images).features.shape[-2:]
        return int(height), int(width)

    def _blank(self) -> ModelOutput:
        """Output for two blank images in evaluation mode."""
        some = next(self.parameters())
        size = (2, self.spec.in_chans, self.spec.input_size, self.spec.input_size)
        # Not in inference mode: what a network then caches cannot be trained with.
        with evaluating(self), torch.no_grad():
            blank = torch.zeros(size, dtype=some.dtype, device=some.device)
            return ModelOutput(*self._pass(blank))
