"""The interface of a guidance method, and the loss of a step with one.

    L = 1/B Σ_b v_b [ α · CE_b + (1 − α) · w_b · λ · Σ_i term_bi ]

v_b is the weight of an image, w_b that of its map, and λ the scale of the method: its published
weight, or a ratio of losses before the guidance begins (`measure_scale`), which makes α mean
the same for all methods: the strength of the guidance is (1 − α) ÷ α.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from preceptor.errors import InputError
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward, TeacherOutput
from preceptor.losses.guided import LossTerms, combine
from preceptor.saliency.maps import informative

CHECKED = ConfigDict(extra="forbid", strict=True)  # of the settings of a method
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, le=1000)]


@dataclass(config=CHECKED, kw_only=True)
class Guidance:
    """A guidance method: its settings, and the terms that it adds to the loss.

    A plug-in is a subclass and a dataclass, named by an entry point of the group
    `preceptor.guidance`. It defines `name`, `about` and `terms`, and `needs` if it takes more than
    the map.
    """

    name: ClassVar[str]
    about: ClassVar[Mapping[str, Any]] = {}  # of a plug-in: what methods.yaml has of methods here
    needs: ClassVar[frozenset[str]] = frozenset({"map"})
    """What the terms take: "map" or "map_input", "teacher", "gradient" (of the pass that
    classifies, differentiable), "changed" (passes of changed images), "layers" (of its own)."""

    numerics: ClassVar[int] = 1
    """Increased if the arithmetic of the terms changes, so that old runs are not reused."""

    weight: Amount | None = None  # λ; None = measured, see `measure_scale`

    def prepare(self, model: nn.Module, images: Tensor) -> nn.Module | None:
        """Before training: layers of the method's own, which the optimizer trains too."""
        return None

    def usable(self, maps: Tensor) -> Tensor:
        """(B,) bool, whether each map (B, h, w) can guide: finite, and not constant."""
        return informative(maps)

    def weights(self, batch: GuidanceBatch) -> Tensor | None:
        """(B,) weights w ≥ 0 of the terms, 0 without a usable map; None if the batch has no maps,
        or no Teacher, and the terms take them."""
        ones = torch.ones(len(batch.labels), device=batch.images.device)
        given = ones if batch.weight is None else torch.where(batch.weight > 0, batch.weight, 0)
        if "teacher" in self.needs:
            return None if batch.teacher is None else given
        if self.needs & {"map", "map_input"}:
            if "map" in self.needs and batch.map is None and batch.map_input is not None:
                raise ValueError(
                    f"guidance {self.name} takes map: reduce map_input to the grid of the model"
                )
            maps = batch.map if "map" in self.needs or batch.map is not None else batch.map_input
            return None if maps is None else torch.where(self.usable(maps), given, 0)
        return ones

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """(B,) terms by name, finite, exactly 0 for images that are not guided."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What repeats the method: `guidance_method(**settings)`."""
        return {"name": self.name} | asdict(self)


class Objective(NamedTuple):
    """Loss of a step."""

    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # (B,) unweighted: classification, and the terms of the method
    logits: Tensor  # (B, K)


def guided_objective(
    method: Guidance,
    batch: GuidanceBatch,
    forward: GuidedForward,
    alpha: float,
    scale: float | None = None,
    sample_weight: Tensor | None = None,
) -> Objective:
    """Loss of a step: the mean of α · cross-entropy + (1 − α) · w · λ · terms.

    Args:
        method: Guidance method.
        batch: Images, labels and maps. Without maps, the loss is α times the plain loss.
        forward: The model.
        alpha: α in [0, 1]: 1 is plain cross-entropy.
        scale: λ ≥ 0, from `measure_scale`; None = `method.weight`.
        sample_weight: (B,) weights of the images; None = 1. The divisor stays B.

    Raises:
        InputError: Neither scale nor weight is given, or the network lacks second derivatives.
        ValueError: α outside [0, 1], λ < 0, shapes that differ, or maps outside [0, 1].

    Example:
        >>> from preceptor import build_model, guidance_method
        >>> from preceptor.losses.guidance import GuidanceBatch, GuidedForward, TeacherOutput
        >>> model = build_model("test_resnet", ["a", "b"], input_size=64)
        >>> maps = torch.rand(2, *model.grid())
        >>> batch = GuidanceBatch(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), maps)
        >>> method, forward = guidance_method("rank"), GuidedForward(model)
        >>> loss, terms, logits = guided_objective(method, batch, forward, alpha=0.5, scale=1)
        >>> list(terms), tuple(logits.shape)
        (['classification', 'rank'], (2, 2))
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, not in [0, 1]")
    scale = method.weight if scale is None else scale
    if scale is None:
        raise InputError(f"guidance {method.name}: give scale, see measure_scale, or a weight")
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale is {scale}, not a number ≥ 0")
    terms, weight, logits = _terms(method, batch, forward, plain=alpha == 1)
    classification = cross_entropy(logits, batch.labels, reduction="none")
    guidance = scale * _total(terms, classification) * weight.to(classification.dtype)
    v = torch.ones_like(weight) if sample_weight is None else sample_weight
    if v.shape != weight.shape:
        raise ValueError(f"sample_weight {tuple(v.shape)} must be (B,) with B = {len(weight)}")
    losses = LossTerms(classification * v, guidance * v, weight > 0, weight == 0)
    return Objective(combine(losses, alpha), {"classification": classification, **terms}, logits)


def measure_scale(
    method: Guidance, batches: Iterable[GuidanceBatch], forward: GuidedForward
) -> float:
    """λ = mean cross-entropy ÷ mean term over the guided images of some batches.

    Measured once, and stored with the model; `method.weight` has precedence. Measure it after a
    hundred steps without guidance: at the start of training the term of `gradient` is thousands of
    times smaller. A run takes log K as the cross-entropy and one centered map for at least 64
    images, see `Trainer.measured_scale`. Changes neither the model nor the random numbers. The code
    of F. Friedrich et al., "A typology for exploring the mitigation of shortcut behaviour", Nature
    Machine Intelligence 2023, divides the same losses.
    Raises InputError if the term is 0 or no image is guided.
    """
    if method.weight is not None:
        return method.weight
    classification, guidance = mean_losses(method, batches, forward)
    return classification / guidance


def mean_losses(
    method: Guidance, batches: Iterable[GuidanceBatch], forward: GuidedForward
) -> tuple[float, float]:
    """Mean cross-entropy and mean term over the guided images of batches, see `measure_scale`."""
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    with torch.random.fork_rng():
        for batch in batches:
            terms, weight, logits = _terms(method, batch, forward, update=False)
            losses = cross_entropy(logits, batch.labels, reduction="none")
            pair = torch.stack([losses, _total(terms, losses)]).detach()
            sums += pair[:, weight > 0].sum(1).cpu().double()
            count += int((weight > 0).sum())
    classification, guidance = sums.tolist()
    if not guidance > 0:
        raise InputError(
            f"guidance {method.name}: its term is {guidance:g} for the measured batches, so that "
            "no scale can be measured; check that images have maps, or give a weight"
        )
    return classification / count, guidance / count


def _total(terms: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """(B,) sum of the terms; zeros for none."""
    # A batch without maps has a graph too, so that α = 0 can call backward.
    return sum(terms.values(), torch.zeros_like(like) if terms else 0 * like)


def _terms(
    method: Guidance,
    batch: GuidanceBatch,
    forward: GuidedForward,
    *,
    update: bool = True,
    plain: bool = False,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Terms, (B,) weights of the maps, and (B, K) logits of the plain pass."""
    weight = method.weights(batch)
    if weight is None:
        weight, plain = torch.zeros(len(batch.labels), device=batch.images.device), True
    _check_shapes(batch, weight)

    def kept(maps: Tensor | None) -> Tensor | None:  # zeros without weight, since NaN · 0 is NaN
        if maps is None:
            return None
        maps = maps.to(torch.promote_types(batch.images.dtype, torch.float32))  # uint8 wraps around
        return torch.where((weight > 0).view(-1, *[1] * (maps.ndim - 1)), maps, 0)

    teacher = None if batch.teacher is None else TeacherOutput._make(map(kept, batch.teacher))
    batch = batch._replace(
        map=kept(batch.map), weight=weight, map_input=kept(batch.map_input), teacher=teacher
    )
    # A check of values makes a GPU wait, so that there only `measure_scale` checks them.
    if (batch.images.is_cpu or not update) and not torch.compiler.is_compiling():
        for maps in (batch.map, batch.map_input) if method.needs & {"map", "map_input"} else ():
            low, high = (0, 1) if maps is None or not maps.numel() else maps.aminmax()
            if not -1e-4 < low <= high < 1.0001:
                what = f"maps are from {low:g} to {high:g}, not in [0, 1]"
                raise ValueError(f"{what}; divide them by their maximum")
    # Where no image is guided, further passes and second derivatives would be for nothing. Whether
    # a batch on a GPU has maps is not asked where the map is all that the method needs. Layers
    # of the method's own are always used: DDP waits for their gradients in every process.
    plain = plain or (method.needs - {"layers"} != {"map"} and not bool(batch.guided.any()))
    forward.begin(batch, frozenset() if plain else method.needs, update=update)
    terms = {} if plain else method.terms(batch, forward)
    for name, term in terms.items():
        if term.shape != weight.shape:
            raise ValueError(f"term {name} is {tuple(term.shape)}, not ({len(weight)},)")
    logits = forward().logits
    forward.end()
    return terms, weight, logits


def _check_shapes(batch: GuidanceBatch, weight: Tensor) -> None:
    """Check shapes, since a (B, 1) weight would broadcast to B × B terms without an error."""
    values = (batch.labels, weight, batch.map, batch.map_input)
    shapes = [tuple(value.shape) for value in values if value is not None]
    axes = [count for value, count in zip(values, (1, 1, 3, 3), strict=True) if value is not None]
    size = len(batch.images)
    if [len(shape) for shape in shapes] != axes or any(shape[0] != size for shape in shapes):
        raise ValueError(f"labels, weights and maps have shapes {shapes} for {size} images")
    if batch.map_input is not None and batch.map_input.shape[1:] != batch.images.shape[2:]:
        raise ValueError(f"map_input is {shapes[-1]} for images {tuple(batch.images.shape)}")
    if batch.labels.dtype != torch.int64:
        raise ValueError(f"labels are {batch.labels.dtype}, not torch.int64")
