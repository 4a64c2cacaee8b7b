"""What guidance methods compute with: a batch with its maps, and the forward passes of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from preceptor.errors import InputError, reason
from preceptor.utils.process import evaluating, out_of_memory

MapKind = Literal["label", "predicted", "decision", "every"]
Scalar = Literal["ce", "logp", "margin", "label"]


class TeacherOutput(NamedTuple):
    """Output of a Teacher for the images of a batch, without gradients."""

    logits: Tensor  # (B, K)
    maps: Tensor | None = None  # (B, K, h, w) CAM of every class, on the grid of the Student
    attention: Tensor | None = None  # (B, h, w) mean square of the features over the channels


class GuidanceBatch(NamedTuple):
    """A batch with the maps that guide it.

    Args:
        images: (B, C, H, W) as the network takes them.
        labels: (B,) int64.
        map: (B, h, w) in [0, 1] on the grid of the features, 1 where the evidence lies; None = the
            batch has no maps, but those of `map_input` for methods that use nothing else.
        weight: (B,) weights of the maps, ≥ 0; 0 = no map, whose content is ignored; None = 1.
        map_input: (B, H, W) in [0, 1]; None = `map`, enlarged bilinearly.
        teacher: Output of the Teacher, for distillation.
    """

    images: Tensor
    labels: Tensor
    map: Tensor | None = None
    weight: Tensor | None = None
    map_input: Tensor | None = None
    teacher: TeacherOutput | None = None

    # What follows is for methods, which get batches with weights.

    @property
    def guided(self) -> Tensor:
        """(B,) bool, whether an image is guided."""
        assert self.weight is not None
        return self.weight > 0

    def only(self, values: Tensor) -> Tensor:
        """(B,) values, exactly 0 for images that are not guided."""
        return torch.where(self.guided, values, 0)

    @property
    def mask(self) -> Tensor:
        """(B, h, w) maps on the grid."""
        assert self.map is not None
        return self.map

    @property
    def inside(self) -> Tensor:
        """(B, 1, H, W) maps of the input, m."""
        if self.map_input is not None:
            return self.map_input[:, None]
        size = list(self.images.shape[-2:])
        return functional.interpolate(self.mask[:, None], size, mode="bilinear")

    @property
    def outside(self) -> Tensor:
        """(B, 1, H, W) what the maps leave out, m̄ = 1 − m; 0 for images that are not guided."""
        return torch.where(self.guided[:, None, None, None], 1 - self.inside, 0)


class ForwardOutput(NamedTuple):
    """Output of a pass; what was not asked for is empty."""

    logits: Tensor  # (B, K)
    features: Tensor  # (B, Ch, h, w)
    map: Tensor = torch.empty(0)  # (B, h, w) raw map; (B, K, h, w) CAM (Grad-CAM × h · w) of all
    evidence: Tensor = torch.empty(0)  # the map with its bias; its mean is the logit or log-odds
    gradient: Tensor = torch.empty(0)  # (B, C, H, W) ∂s/∂x, 0 for images that are not guided

    @property
    def pooled(self) -> Tensor:
        """(B, Ch) mean of the features."""
        return self.features.mean((2, 3))


class GuidedForward:
    """The forward passes of a guided model in one step, as guidance methods need them.

    `passes` counts them. In training mode, only the first one updates running statistics. Where
    the trunk is differentiated twice, attention is computed by its formula (fused kernels have no
    second derivative), depthwise convolution and batch norm with faster second derivatives.

    Args:
        model: A `GuidedModel`.
        run: What is called instead, such as the model in another precision.
    """

    def __init__(self, model: nn.Module, run: Callable[..., Any] | None = None) -> None:
        if not hasattr(model, "spec"):
            raise InputError("GuidedForward takes a GuidedModel; give one in a wrapper as `run`")
        self.model, self.run = model, model if run is None else run
        self._differentiable = False  # whether second derivatives were tried

    def begin(
        self, batch: GuidanceBatch, needs: frozenset[str] = frozenset(), *, update: bool = True
    ) -> Self:
        """Begin a step; InputError if it needs second derivatives and the network has none."""
        self.batch, self.passes, self._update = batch, 0, update
        self._on_grid = "map" in needs and batch.map is not None
        self._twice = "gradient" in needs
        if self._twice and torch.is_grad_enabled() and not self._differentiable:
            self._try_second_derivative(batch.images)
        self._images = batch.images.detach().requires_grad_(self._twice)
        self._plain: dict[MapKind | None, ForwardOutput] = {}
        return self

    def end(self) -> None:
        """End a step: forget its outputs, whose graph cannot be copied with the model."""
        self._plain.clear()

    def __call__(
        self,
        images: Tensor | None = None,
        *,
        map: MapKind | None = None,  # noqa: A002
        gradient: Scalar | None = None,
    ) -> ForwardOutput:
        """Logits and features, with a map or an input gradient.

        Args:
            images: Changed images; None = those of the batch, whose pass is made once, and whose
                gradient is differentiable.
            map: Map of the label, of the predicted or of every class, or the decision map.
            gradient: Scalar s of ∂s/∂x, see `scalar`.
        """
        own = images is None
        if gradient and not torch.is_grad_enabled():
            raise InputError("this guidance differentiates the pass; call it outside torch.no_grad")
        if images is None:
            kind, pixels = next(iter(self._plain), None) if map is None else map, self._images
            out = self._plain[kind] = self._plain.get(kind) or self._pass(pixels, kind)
        else:
            pixels = images.detach().requires_grad_() if gradient else images
            out = self._pass(pixels, map)
        if gradient is None:
            return out
        value = self.batch.only(scalar(out.logits, self.batch.labels, gradient)).sum()
        factor = 1 if own else 1024  # float16 rounds small slopes to 0
        (slope,) = torch.autograd.grad(factor * value, pixels, create_graph=own, retain_graph=own)
        return out._replace(gradient=slope / factor)

    def _pass(self, images: Tensor, kind: MapKind | None) -> ForwardOutput:
        with ExitStack() as stack:
            if self._twice:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                stack.enter_context(FastSecondDerivatives())
            if self.passes or not self._update:
                stack.enter_context(held_statistics(self.model))
            self.passes += 1
            if kind is None:
                out = self.run(images)
            else:
                classes = kind if kind in ("predicted", "every") else self.batch.labels
                out = self.run(images, classes, decision=kind == "decision")
        if self._on_grid and self.batch.mask.shape[1:] != out.features.shape[-2:]:
            raise ValueError(
                f"maps {tuple(self.batch.mask.shape)} must have the grid of the features, "
                f"{tuple(out.features.shape[-2:])}; reduce them by adaptive_avg_pool2d"
            )
        if kind is None:
            return ForwardOutput(*out)
        of_cam = self.model.spec.cam == "cam"  # type: ignore[union-attr]
        scale = 1 if kind != "every" or of_cam else out.saliency[0, 0].numel()
        return ForwardOutput(out.logits, out.features, scale * out.saliency, out.evidence)

    def _try_second_derivative(self, images: Tensor) -> None:
        pixels = images[:1].detach().clone().requires_grad_()
        kept = [(part, part.grad) for part in self.model.parameters()]
        for part, _ in kept:
            part.grad = None  # `backward` would add to it in place
        try:
            with evaluating(self.model), sdpa_kernel(SDPBackend.MATH), FastSecondDerivatives():
                value = self.run(pixels)[0].square().sum()
                (slope,) = torch.autograd.grad(value, pixels, create_graph=True)
                # Through the whole graph: `grad` would leave out what leads to no weight.
                slope.square().sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise InputError(
                f"the network has no second derivative ({reason(error, 120)}); train it without "
                "torch.compile, or choose a guidance method without input gradients"
            ) from error
        finally:
            for part, own in kept:
                part.grad = own
        self._differentiable = True


def scalar(logits: Tensor, labels: Tensor, kind: Scalar) -> Tensor:
    """(B,) scalar s of input gradients, from logits (B, K) and labels (B,).

    ce: −log p_y. logp: Σ_c log p_c. margin: the log-odds log p_y − log(1 − p_y), for two classes
    z_y − z_other. label: z_y. Never Σ_c z_c, which can change without changing a probability.
    """
    if kind == "logp":
        return logits.log_softmax(1).sum(1)
    if kind == "ce":
        return functional.cross_entropy(logits, labels, reduction="none")
    value = logits.gather(1, labels[:, None])[:, 0]
    if kind == "label":
        return value
    own = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    return value - logits.masked_fill(own, -torch.inf).logsumexp(1)


@contextmanager
def held_statistics(model: nn.Module) -> Iterator[None]:
    """Context in which passes in training mode leave running statistics as they are.

    They write to copies, since a change of the buffers in place would invalidate earlier graphs.
    """
    held = [
        (part, name, value)
        for part in model.modules()
        if part.training and getattr(part, "running_var", None) is not None
        for name, value in part.named_buffers(recurse=False)
    ]
    try:
        for part, name, value in held:
            setattr(part, name, value.clone())
        yield
    finally:
        for part, name, value in held:
            setattr(part, name, value)


class FastSecondDerivatives(TorchFunctionMode):
    """Context in which depthwise convolution and batch norm have fast second derivatives.

    PyTorch loops over the channels of a depthwise convolution, and multiplies 27 times in a batch
    norm. Gradients with a graph are those by activations: weights get none there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and len(args) == 7 and args[6] == args[0].shape[1] > 1:
            lower = torch.is_autocast_enabled(args[0].device.type)
            if not lower and all(isinstance(argument, tuple) for argument in args[3:6]):
                return _Depthwise.apply(*args)  # type: ignore[no-untyped-call]
        if func is functional.batch_norm and kwargs["training"]:
            images, weight = args[0], kwargs["weight"]
            whole = images.ndim == 4 and weight is not None and kwargs["bias"] is not None
            if whole and weight.dtype == images.dtype and images[:, 0].numel() > 1:
                how = kwargs["bias"], *args[1:], True, kwargs["momentum"], kwargs["eps"]
                return _BatchNorm.apply(images, weight, *how)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _Depthwise(Function):
    """Depthwise convolution; its gradient is a transposed one."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Any, *how: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.bias, ctx.how = bias, how
        return torch.conv2d(images, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (images, weight), (*how, groups) = ctx.saved_tensors, ctx.how
        if torch.is_grad_enabled():
            sizes = zip(images.shape[2:], weight.shape[2:], *how, strict=True)
            left = [(size + 2 * p - d * (k - 1) - 1) % s for size, k, s, p, d in sizes]
            stride, padding, dilation = how
            rest = stride, padding, left, groups, dilation
            return functional.conv_transpose2d(slope, weight, None, *rest), *[None] * 6
        bias = None if ctx.bias is None else [len(weight)]
        wanted = [*ctx.needs_input_grad[:2], bias is not None]
        given = slope, images, weight, bias, *how, False, [0, 0], groups, wanted
        return *torch.ops.aten.convolution_backward(*given), *[None] * 4


class _BatchNorm(Function):
    """Batch norm by the statistics of the batch."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, *how: Any) -> Tensor:
        out, mean, scale = torch.native_batch_norm(images, weight, *how)
        ctx.save_for_backward(images, weight, mean, scale)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _BatchNormSlope.apply(slope, *ctx.saved_tensors), *[None] * 7  # type: ignore[no-untyped-call]
        return *_batch_norm_backward(slope, *ctx.saved_tensors), *[None] * 5


class _BatchNormSlope(Function):
    """γ s (g − E g − x̂ E x̂g), x̂ = s (x − E x): gradient of batch norm by its input."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, *given: Tensor) -> Tensor:
        own, *sums = _batch_norm_backward(slope, *given)
        ctx.save_for_backward(slope, *given, own, *sums)
        return own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, images, weight, mean, s, own, b, g_sum = ctx.saved_tensors
        # The map from g to `own` is its own transpose. a and b are the sums of x̂v and x̂g.
        image, a, v_sum = _batch_norm_backward(v, images, weight, mean, s)
        count = v.numel() / len(s)
        inner = s * ((v * g).sum((0, 2, 3)) - (v_sum * g_sum + a * b) / count)  # Σ v · own ÷ γ
        factors = -weight * inner * s**2 / count, -s * b / count, -s * a / count
        x, y, z = (factor[:, None, None] for factor in factors)
        gradient = torch.addcmul(-x * mean[:, None, None], x, images)
        return image, gradient.addcmul_(y, image).addcmul_(z, own), inner, None, None


def _batch_norm_backward(slope: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by the images, the weight and the bias."""
    images, weight, mean, scale = given
    rest = images, weight, None, None, mean, scale, True, 0.0, [True] * 3
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(slope, *rest)
    return grads
