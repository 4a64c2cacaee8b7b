"""A guidance method: `guidance_method("area")`."""

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from preceptor.losses.guidance import CHECKED, Guidance, GuidanceBatch, GuidedForward
from preceptor.saliency.maps import normalize


@dataclass(config=CHECKED, kw_only=True)
class Area(Guidance):
    """The map of the model is as large as the human map, wherever it lies."""

    name = "area"
    about: ClassVar[dict[str, Any]] = {
        "title": "Area of the map",
        "formula": "|mean ã − factor · mean m|",
        "presets": {"twice": {"settings": {"factor": 2.0}, "source": "an example"}},
    }
    factor: float = 1.0

    def terms(self, batch: GuidanceBatch, forward: GuidedForward) -> dict[str, Tensor]:
        """The difference of the areas of each image."""
        own = normalize(forward(map="label").map).mean((1, 2))
        return {"area": batch.only((own - self.factor * batch.mask.mean((1, 2))).abs())}
