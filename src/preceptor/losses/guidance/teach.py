"""Guidance by a Teacher's predictions and maps (distillation)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from preceptor.errors import InputError
from preceptor.losses.guidance.base import CHECKED, Amount, Guidance, Number, Positive
from preceptor.losses.guidance.forward import GuidanceBatch, GuidedForward


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(B,) KD: τ² KL(p_T ‖ p_S) of logits (B, K) at temperature τ."""
    log_p, log_q = ((logits / temperature).log_softmax(1) for logits in (teacher, student))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).clamp_min(0)


def explanation(student: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """(B,) e²KD: 1 − cos(ReLU cam_T, ReLU cam_S) of one class, of maps (B, K, h, w)."""
    rows = torch.arange(len(classes), device=classes.device)
    s, t = (maps[rows, classes].clamp_min(0).flatten(1) for maps in (student, teacher))
    return 1 - functional.cosine_similarity(s, t, 1, 1e-6)


def class_attention(student: Tensor, teacher: Tensor, side: int, *, unit: bool) -> Tensor:
    """(B,) CAT-KD: mean (pool cam_T − pool cam_S)² of all classes; CAT: of maps of norm 1."""
    s, t = (functional.adaptive_avg_pool2d(maps, side).flatten(2) for maps in (student, teacher))
    if unit:
        s, t = functional.normalize(s, dim=2), functional.normalize(t, dim=2)
    return (s - t).square().mean((1, 2))


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) AT: mean (Q_T ÷ ‖Q_T‖ − Q_S ÷ ‖Q_S‖)² of attention maps (B, h, w)."""
    s, t = (functional.normalize(features.flatten(1), dim=1) for features in (student, teacher))
    return (s - t).square().mean(1)


@dataclass(config=CHECKED, kw_only=True)
class Teach(Guidance):
    """The Student predicts and explains as the Teacher does."""

    name = "teach"
    needs = frozenset({"teacher"})
    kind: Literal["kd", "e2kd", "cat_kd", "cat", "at"] = "e2kd"
    temperature: Positive = 1.0
    maps: Amount = 1.0  # weight of the maps beside the divergence, for e2kd
    pool: Number = 2

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The distance of predictions, of maps, or both."""
        assert batch.teacher is not None
        logits, maps, attention = batch.teacher
        if (attention if self.kind == "at" else maps) is None and self.kind != "kd":
            raise InputError(f"guidance teach: {self.kind} takes maps of the Teacher; give them")
        if self.kind == "at":
            assert attention is not None
            own = forward().features.square().mean(1)
            _check("attention", attention, own)
            return {"attention": batch.only(attention_transfer(own, attention))}
        out = forward(map=None if self.kind == "kd" else "every")
        _check("logits", logits, out.logits)
        divergence = batch.only(distillation(out.logits, logits, self.temperature))
        if self.kind == "kd":
            return {"divergence": divergence}
        assert maps is not None
        _check("maps", maps, out.map)
        if self.kind == "e2kd":
            away = batch.only(explanation(out.map, maps, logits.argmax(1)))
            return {"maps": self.maps * away, "divergence": divergence}
        unit = self.kind == "cat"
        return {"maps": batch.only(class_attention(out.map, maps, self.pool, unit=unit))}


def _check(what: str, teacher: Tensor, own: Tensor) -> None:
    """Check shapes, since a Teacher's output would be broadcast."""
    if teacher.shape != own.shape:
        shapes = f"{tuple(teacher.shape)}, and the Student's are {tuple(own.shape)}"
        raise ValueError(f"guidance teach: {what} of the Teacher are {shapes}")
