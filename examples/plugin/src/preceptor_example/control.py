"""A control of a study: `controls: [shuffled, edge_maps]`."""

from preceptor.config.maps import MapSource
from preceptor.study.config import AddedControl


def settings(alpha: float) -> dict[str, object]:
    """Settings of a run that is guided by the edges of its images, whatever α is."""
    return {"maps": MapSource(kind="edges")}


edge_maps = AddedControl("Control: maps of edges", settings)
