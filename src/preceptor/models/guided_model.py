"""The model of a run: a timm network that hands out its features and where it looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from preceptor.config.image_format import Fit, ImageFormat
from preceptor.errors import InputError
from preceptor.models.backbones import classifiers
from preceptor.models.feature_layout import (
    CamSource,
    Layout,
    allow_second_derivatives,
    last_block,
    layout_of,
    cyborg_taps,
)
from preceptor.models.sync_batch_norm import as_evaluated, of_the_batch, statistics
from preceptor.runtime.modes import evaluating
from preceptor.saliency.cam import class_activation_map, binary_logits
from preceptor.saliency.gradcam import grad_cam
from preceptor.version import __version__

Head = Literal["softmax", "sigmoid"]


class ModelOutput(NamedTuple):
    """What one forward gives.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), exactly what the maps are made of.
    """

    logits: Tensor
    features: Tensor


class GuidedOutput(NamedTuple):
    """What one forward gives that was asked where the model looks.

    Args:
        logits: (B, C).
        features: (B, Ch, h, w), exactly what the maps are made of.
        saliency: (B, h, w) raw maps of `classes`; (B, C, h, w) where every class was asked for.
        classes: (B,) whose maps these are; (B, C) where every class was asked for.
    """

    logits: Tensor
    features: Tensor
    saliency: Tensor
    classes: Tensor


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build the model again and to feed it: the content of `model.json`.

    Args:
        backbone: timm's name.
        classes: Class names in logit order.
        positive: The class whose probability is the score (two classes), or None.
        in_chans: 1 or 3.
        input_size: Side of the square input in pixels.
        mean, std: Of the input in [0, 1], a value a channel.
        fit: How an image is brought to the square input.
        backbone_args: Further arguments of the backbone.
        head: softmax (a logit a class) or sigmoid (one logit for two classes).
        cam: How saliency is taken: "cam", exact on this backbone, or "gradcam".
        cam_source: head_input, or cyborg: what the authors' released code takes.
        tap: Where Grad-CAM's features are: "" (what the head gets), or "last_block" (what goes into
            the last transformer block, where the head sees the class token alone).
        thresholds: Decision thresholds by name, fixed on validation.
        version: The library's version when the model was built.
    """

    backbone: str
    classes: tuple[str, ...]
    positive: str | None
    in_chans: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "squash"
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    head: Head = "softmax"
    cam: str = "cam"
    cam_source: CamSource = "head_input"
    tap: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    @property
    def image_format(self) -> ImageFormat:
        """The form in which the trained model takes images."""
        return ImageFormat(self.input_size, self.fit, self.in_chans)


class GuidableModel(nn.Module):
    """A timm backbone that hands out its features and its saliency; made by `build_model`.

    Args:
        backbone: The timm network, its classifier included.
        spec: What it is.
    """

    def __init__(self, backbone: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        shape = (1, spec.in_chans, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(shape), persistent=False)
        self._trunk: Callable[[Tensor], Any] = backbone.forward_features  # type: ignore[assignment]
        self._compiled: Callable[[Tensor], Any] | None = None
        self._layout: Layout | None = None
        self._tapped: Tensor | None = None
        self._differentiate = False  # whether the forward under way needs a graph from its tap on
        self._entered: tuple[Any, ...] | None = None  # what went into the tapped block
        self._after: list[str] | None = None  # see `norms_after_features`
        self._watched: list[str] = []
        self._taps = spec.cam_source == "cyborg" or spec.tap != ""
        if spec.cam_source == "cyborg":
            cyborg_taps(backbone, self._keep)
        elif spec.cam == "gradcam":
            allow_second_derivatives(backbone, spec.tap)
        if spec.tap == "last_block":
            block = last_block(backbone)
            assert block is not None
            block.register_forward_pre_hook(self._tap_block)

    def forward(
        self, images: Tensor, of: Tensor | Literal["predicted", "every"] | None = None
    ) -> ModelOutput | GuidedOutput:
        """Logits and features in one pass and, if asked, saliency.

        Args:
            images: (B, in_chans, H, W) normalised.
            of: Whose map is wanted: (B,) classes, "predicted", or "every" class; None = no map.

        Returns:
            `ModelOutput`, or with `of` a `GuidedOutput`. The map carries gradients in training; it
            is made inside the forward, so that precision and parallelism wrap it too.

        Raises:
            ValueError: `of` is another word, or not one class an image.
        """
        if isinstance(of, Tensor):
            if of.shape != (len(images),):
                raise ValueError(f"of {tuple(of.shape)} must be (B,) with B = {len(images)}")
        elif of not in (None, "predicted", "every"):
            raise ValueError(f"of {of!r} is neither classes nor predicted nor every")
        if self.spec.cam == "cam" or of is None:
            logits, features = self._pass(images)
            if of is None:
                return ModelOutput(logits, features)
            return self._with_cam(logits, features, of)
        if torch.is_inference_mode_enabled():  # whose tensors can never be differentiated
            with torch.inference_mode(False), torch.no_grad():
                return self.forward(images.clone(), of.clone() if isinstance(of, Tensor) else of)
        trainable = torch.is_grad_enabled()
        norms = self._norms_in_training()
        self._differentiate = True
        try:
            with torch.set_grad_enabled(trainable):  # ends what a tap in the trunk switches on
                logits, features, alone = self._pass_apart(images, norms)
                return self._with_grad_cam(logits, features, alone, of, trainable)
        finally:
            self._differentiate, self._entered = False, None

    def _pass(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C) logits and (B, Ch, h, w) features, the one a function of the other."""
        raw, features = self._features(images)
        return self._head(raw), features

    def _pass_apart(self, images: Tensor, norms: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
        """As `_pass`, and the logits to be differentiated, in which no image meets another.

        Through a batch norm in training the sum of an image's own logit moves with all features of
        the batch: in a batch of one class their derivatives add up to zero, and the map to
        rounding. So what follows the features is computed again with the running statistics that
        the batch norms had before this batch, as evaluation would.
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
        """What the head takes, and the features (B, Ch, h, w) that it is a function of."""
        trunk = self._compiled if self.training and self._compiled is not None else self._trunk
        raw = trunk(images)
        if self._tapped is None:
            assert not self._taps
            features = self._as_features(raw)
            with torch.set_grad_enabled(self._differentiate or torch.is_grad_enabled()):
                raw = self._layout_of(raw).from_grid(features, raw)
        else:
            features, self._tapped = self._tapped, None
        return raw, features

    def _from_tap(self, images: Tensor) -> Tensor:
        """What the trunk gives where what entered the tapped block enters it once more."""
        norms = [part for part in self.backbone.modules() if of_the_batch(part)]
        with as_evaluated(norms, [{}] * len(norms)), torch.no_grad():
            raw: Tensor = self._trunk(images)
        return raw

    def norms_after_features(self) -> list[str]:
        """Names of the batch norms through which the features go on their way to the logits."""
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
        # By name: synchronised batch norms may have taken the place of those that were seen.
        norms = [self.backbone.get_submodule(name) for name in self.norms_after_features()]
        return [norm for norm in norms if norm.training]

    def _head(self, raw: Tensor) -> Tensor:
        logits: Tensor = self.backbone.forward_head(raw)  # type: ignore[operator]
        return binary_logits(logits)

    def _as_features(self, raw: Tensor) -> Tensor:
        """Features as a grid; the start of a graph where one is needed and none is there."""
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
        """Lead the tokens that enter the last block through the features."""
        if self._entered is not None:
            torch.set_grad_enabled(True)
            return self._entered
        raw = arguments[0]
        self._tapped = self._as_features(raw)
        if self._differentiate:
            torch.set_grad_enabled(True)  # from here to the end of the forward
        entered = (self._layout_of(raw).from_grid(self._tapped, raw), *arguments[1:])
        if self._differentiate:
            self._entered = entered
        return entered

    def _with_cam(self, logits: Tensor, features: Tensor, of: Tensor | str) -> GuidedOutput:
        # In float32 whatever the precision: the map is a small product, and its min-max is not kind
        # to rounding.
        with torch.autocast(features.device.type, enabled=False):
            wide = torch.promote_types(features.dtype, torch.float32)
            weight, dense = self.class_weight.to(wide), features.to(wide)
            classes = self._classes(logits, of)
            if classes.ndim == 2:
                maps = torch.einsum("kc,bchw->bkhw", weight, dense)
            else:
                maps = class_activation_map(dense, weight, classes)
        return GuidedOutput(logits, features, maps, classes)

    def _with_grad_cam(
        self,
        logits: Tensor,
        features: Tensor,
        alone: Tensor,
        of: Tensor | str,
        trainable: bool,
    ) -> GuidedOutput:
        classes = self._classes(logits, of)
        if classes.ndim == 2:
            every = [grad_cam(alone, features, c, trainable=trainable) for c in classes.unbind(1)]
            maps = torch.stack(every, 1)
        else:
            maps = grad_cam(alone, features, classes, trainable=trainable)
        if not trainable:
            logits, features = logits.detach(), features.detach()
        return GuidedOutput(logits, features, maps, classes)

    @staticmethod
    def _classes(logits: Tensor, of: Tensor | str) -> Tensor:
        if isinstance(of, Tensor):
            return of
        if of == "predicted":
            return logits.detach().argmax(1)
        return torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalise (B, in_chans, H, W) uint8 images to the backbone's mean and spread."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return images.to(mean.dtype).div_(255).sub_(mean).div_(std)

    def compile_trunk(self) -> None:
        """Let torch.compile have the trunk in training; head and saliency stay as they are.

        The state dict does not change. Evaluation stays eager: it comes in batches of other sizes,
        each of which would be compiled anew.
        """
        # A trunk with a tap must not run what was compiled for one of the same class without.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        self._compiled = torch.compile(self.backbone.forward_features)  # type: ignore[arg-type]

    @property
    def head(self) -> nn.Linear:
        """The linear classifier: weight (C, Ch), bias (C,); of a sigmoid head (1, Ch) and (1,).

        Raises:
            InputError: There is none, or there are two; such models have Grad-CAM alone.
        """
        heads = classifiers(self.backbone)
        if len(heads) != 1 or not isinstance(heads[0], nn.Linear):
            names = ", ".join(type(part).__name__ for part in heads) or "missing"
            raise InputError(
                f"{self.spec.backbone}: its classifier is {names}, not one linear layer"
            )
        return heads[0]

    @property
    def class_weight(self) -> Tensor:
        """(C, Ch) weight of each class's logit; of a sigmoid head both signs of half of it."""
        return binary_logits(self.head.weight.T).T

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def guidable_grid(self) -> tuple[int, int]:
        """The grid, where it has at least 2 × 2 cells.

        Raises:
            InputError: It is coarser: every map on it is constant or nearly so, and guidance would
                do nothing in silence.
        """
        height, width = self.grid()
        if min(height, width) < 2:
            raise InputError(
                f"{self.spec.backbone} at input size {self.spec.input_size} has a {height} × "
                f"{width} feature grid, too coarse to guide; raise input_size, or set "
                "backbone_args: {output_stride: 8} where the backbone takes it"
            )
        return height, width

    def grid(self) -> tuple[int, int]:
        """(h, w) of the features at the model's input size."""
        shape = self._blank().features.shape
        return int(shape[-2]), int(shape[-1])

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the features of (N, in_chans, H, W) images."""
        height, width = self(images).features.shape[-2:]
        return int(height), int(width)

    def _blank(self) -> ModelOutput:
        """What two blank images give in evaluation mode."""
        some = next(self.parameters())
        size = (2, self.spec.in_chans, self.spec.input_size, self.spec.input_size)
        # Not in inference mode: what a network then caches cannot be trained with.
        with evaluating(self), torch.no_grad():
            blank = torch.zeros(size, dtype=some.dtype, device=some.device)
            return ModelOutput(*self._pass(blank))
