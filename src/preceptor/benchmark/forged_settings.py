"""Settings of the built-in benchmark and its presets."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.benchmark.forgeries import (
    STAMP_MARGIN,
    STAMP_SHAPE,
    Kind,
    StampPlace,
    Strengths,
)

Split = Literal["train", "val", "val-noshort", "test-seen", "test-unseen"]
# The order is part of the random streams.
SPLITS: tuple[Split, ...] = ("train", "val", "val-noshort", "test-seen", "test-unseen")


class ForgedSettings(BaseModel):
    """Settings of the benchmark, except for the seed.

    Args:
        size: Side of the crops in pixels.
        train: Number of crops in train, half of them forged. Row i of a split does not depend on
            the number of rows: a larger split begins with the smaller one.
        val: Number of crops in val.
        val_noshort: Number of crops in val-noshort.
        test_seen: Number of crops in test-seen.
        test_unseen: Number of crops in test-unseen.
        kinds: Kinds of forgery in all splits except test-unseen, equally often.
        unseen_kinds: Kinds of forgery in test-unseen.
        strengths: Strength of each kind.
        radius: Smallest and largest semi-axis of the region, in units of `size`.
        edge: Width of the region's soft edge in pixels.
        least_change: Smallest mean absolute change of a forgery in its region, in gray levels;
            crops with a smaller change (blur on a clear sky) are not used in either class.
        stamp_rate: Share of the forged crops in train and val with the stamp; the share of the
            authentic ones is one minus this. With 0.5 the stamp is uninformative.
        stamp_strength: Contrast of the stamp in gray levels; 0 = no stamp.
        stamp_place: corner (lower right) or moving (uniform over all places outside the region; in
            authentic crops, outside the region that a forgery would have had).

    Raises:
        pydantic.ValidationError: A value is out of range, or a kind is in both lists.

    Example:
        >>> ForgedSettings(train=500).model_copy(update={"stamp_strength": 0.0}).train
        500
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Each part of the narrowest photograph (384 px) must be larger than a crop.
    size: int = Field(default=64, ge=32, le=128)
    train: int = Field(default=1000, ge=4)
    val: int = Field(default=200, ge=4)
    val_noshort: int = Field(default=200, ge=4)
    test_seen: int = Field(default=300, ge=4)
    test_unseen: int = Field(default=300, ge=4)
    kinds: tuple[Kind, ...] = Field(default=("noise", "pixelation", "splice"), min_length=1)
    unseen_kinds: tuple[Kind, ...] = Field(default=("blur", "jpeg", "color"), min_length=1)
    strengths: Strengths = Strengths()
    radius: tuple[float, float] = (0.15, 0.3)
    edge: float = Field(default=4.0, gt=0, le=16)
    least_change: float = Field(default=2.0, ge=0, le=64)
    stamp_rate: float = Field(default=0.95, ge=0.5, le=1)
    stamp_strength: float = Field(default=16.0, ge=0, le=128)
    stamp_place: StampPlace = "corner"

    @model_validator(mode="after")
    def _check(self) -> Self:
        every = self.kinds + self.unseen_kinds
        twice = sorted({kind for kind in every if every.count(kind) > 1})
        if twice:
            raise ValueError(
                f"kinds both seen and unseen: {', '.join(twice)}; remove them from one"
            )
        smallest, largest = self.radius
        if not 0.05 <= smallest <= largest <= 0.4:
            raise ValueError(f"radius {self.radius}: needs 0.05 <= smallest <= largest <= 0.4")
        if self.edge > 2 * smallest * self.size:
            raise ValueError(
                f"edge {self.edge}: no forgery would reach its full strength; "
                f"write at most twice the smallest semi-axis, {2 * smallest * self.size:g} pixels"
            )
        # Above or below the largest region there must be room for the stamp and its margins.
        reach = largest * (self.size + self.edge / (2 * smallest)) + 0.5
        room = self.size / 2 - STAMP_SHAPE[0] - 2 * STAMP_MARGIN
        if self.stamp_place == "moving" and reach > room:
            raise ValueError(
                f"stamp_place moving: regions that extend {reach:.1f} pixels from their center "
                f"leave no place for the stamp; at most {room:g} pixels are possible: lower radius "
                "or edge, or increase size"
            )
        return self

    def count(self, split: Split) -> int:
        """Number of crops in a split."""
        return int(getattr(self, split.replace("-", "_")))


_STRONG = Strengths(noise=40, pixelation=8, splice=1.0, blur=4, jpeg=3, color=100)

PRESETS: dict[str, ForgedSettings] = {
    # For tests: all splits and kinds, written in a fraction of a second.
    "tiny": ForgedSettings(size=32, train=48, val=24, val_noshort=24, test_seen=24, test_unseen=24),
    # For small studies: fewer crops of the kind of `full`.
    "small": ForgedSettings(
        size=48,
        train=800,
        val=60,
        val_noshort=120,
        test_seen=300,
        test_unseen=300,
        strengths=_STRONG,
        radius=(0.25, 0.4),
        stamp_rate=1.0,
        stamp_strength=32,
    ),
    # For `preceptor demo`. Small regions and a moving stamp: only maps at the right place help.
    # Chosen on draws 100 and above; see benchmarks/RESULTS.md.
    "demo": ForgedSettings(
        size=48,
        train=1500,
        val=60,
        val_noshort=120,
        test_seen=600,
        test_unseen=300,
        strengths=_STRONG,
        radius=(0.14, 0.22),
        edge=3.0,
        stamp_rate=1.0,
        stamp_strength=32,
        stamp_place="moving",
    ),
    # Few annotations, many images, small regions: the stamp moves, or with stamp_place corner is
    # always at the same place. Chosen on draws 100 and above from the baselines and the ceiling
    # only; see benchmarks/RESULTS.md.
    "spots": ForgedSettings(
        size=64,
        train=6000,
        val=100,
        val_noshort=200,
        test_seen=1000,
        test_unseen=1000,
        strengths=_STRONG,
        radius=(0.12, 0.2),
        stamp_rate=1.0,
        stamp_strength=32,
        stamp_place="moving",
    ),
    # For reported results. Chosen on draws 100 and above from the baselines and the ceiling only,
    # without any Student; see benchmarks/RESULTS.md.
    "full": ForgedSettings(
        size=48,
        train=1500,
        val=100,
        val_noshort=200,
        test_seen=600,
        test_unseen=600,
        strengths=_STRONG,
        radius=(0.25, 0.4),
        stamp_rate=1.0,
        stamp_strength=32,
    ),
}
