"""Test images that the manifests of several seeds share.

Random splits or cross-validation of one data set give every seed a manifest of its own, but not
independent data: what is a test image of one seed trains the models of another. Differences by
seed are then correlated, and a t interval over them is too narrow (C. Nadeau, Y. Bengio, "Inference
for the Generalization Error", Machine Learning 52, 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from preceptor.data.file_contents import arrow_hashes
from preceptor.study.workspaces import Workspaces


@dataclass(frozen=True)
class SharedImages:
    """Test images of a seed that are in the manifest of another seed, by their content.

    Args:
        seeds: Number of seeds with such test images.
        of: Number of seeds.
        share: Largest share of such images among the test images of a seed.
    """

    seeds: int
    of: int
    share: float

    @property
    def words(self) -> str:
        """What is shared, and what it means for intervals."""
        return (
            f"up to {100 * self.share:.3g} % of the test images of a seed are in the manifest of "
            f"another seed ({self.seeds} of {self.of} seeds), so that seeds are not independent "
            "draws of the data, and the intervals over draws are too narrow"
        )

    @property
    def note(self) -> str:
        """The same with its remedy."""
        return (
            f"manifest: {self.words}; use one manifest with several seeds, whose intervals are for "
            "these images, or data without common images for each seed"
        )


def shared_images(workspaces: Workspaces) -> SharedImages | None:
    """Test images that the manifests of several seeds share; None if there are none.

    Args:
        workspaces: Manifests of a study.
    """
    several = workspaces.all()
    if len(several) < 2:
        return None
    distinct = [pc.unique(arrow_hashes(one.hashes.images)) for one in several]
    counts = pc.value_counts(pa.concat_arrays(distinct))
    common = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    shares = []
    for one in several:
        tests = arrow_hashes(one.hashes.images[one.split_rows("test")])
        shares.append(pc.mean(pc.is_in(tests, value_set=common)).as_py() or 0.0)
    if not any(shares):
        return None
    return SharedImages(sum(share > 0 for share in shares), len(several), max(shares))
