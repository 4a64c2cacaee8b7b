"""Tables and figures of the orders of marking, from the simulations in benchmarks/evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from difference import Difference
from gallery_pages import EVIDENCE, table

from preceptor.evaluation.paired_tests import paired_difference, t_interval
from preceptor.report.export import standalone
from preceptor.report.size_curves import Curve, curves_by_size
from preceptor.runtime.formatting import number

CURVES = {
    "random": Curve("random order", "baseline2"),
    "uncertainty": Curve("order by uncertainty", "baseline1"),
    "gain": Curve("order by gain", "student"),
}


@dataclass(frozen=True)
class Orders:
    """Simulations of several orders of marking with an archive.

    Args:
        file: Name of its rows in benchmarks/evidence/label_order, and of its table in the pages.
        primary: Column with the AUC of the Student on the primary set.
        maps: Column with the correlation of the maps with human maps.
    """

    file: str
    primary: str
    maps: str

    @property
    def rows(self) -> pd.DataFrame:
        """A row a seed, order and number of images."""
        return pd.read_csv(EVIDENCE / "label_order" / f"{self.file}.csv")


ORDERS = (
    Orders("forged", "test-seen", "map_correlation"),
    Orders("brain_mri_planted", "test-unseen", "map_correlation_common"),
)
DRAWN = ORDERS[1]
FIGURES = {
    "order-auc.svg": (DRAWN.primary, "AUC of the Student"),
    "order-maps.svg": (DRAWN.maps, "r with human maps"),
}
"""Column and axis of each figure in docs/images."""


def order_table(orders: Orders) -> str:
    """A row for each number of images and order, with the differences from random order."""
    rows = orders.rows.set_index("seed")
    lines = []
    for count, part in rows.groupby("images"):
        random = part[part["order"] == "random"]
        for order in CURVES:
            own = part[part["order"] == order]
            if own.empty or (count == rows["images"].min() and order != "random"):
                continue  # before the first Teacher all orders are the same
            cells = [f"{count}", order if count > rows["images"].min() else "all", f"{len(own)}"]
            cells += [f"{own['with_mark'].mean():.0f}", f"{own['minutes'].mean():.1f}"]
            for column in (orders.primary, orders.maps):
                cells += [number(own[column].mean())]
                cells.append("" if order == "random" else _minus(own[column], random[column]))
            lines.append(cells)
    header = [
        "images", "order", "repeats", "with a mark", "minutes", "AUC", "minus random",
        "r of the maps", "minus random",
    ]  # fmt: skip
    return table(header, lines)


def _minus(own: pd.Series, random: pd.Series) -> str:
    """Difference paired by seed."""
    found = paired_difference(own.to_numpy(), random[own.index].to_numpy())
    return Difference(found.mean, found.low, found.high, found.p).text


def order_figure(file: str) -> str:
    """Figure of a measure by the number of marked images as an SVG file."""
    column, axis = FIGURES[file]
    points = []
    for (order, count), part in DRAWN.rows.groupby(["order", "images"]):
        low, high = t_interval(part[column])
        points.append(
            {
                "line": order,
                "size": count,
                "mean": part[column].mean(),
                "low": low,
                "high": high,
                "n": len(part),
                "minutes": np.nan,
            }
        )
    title = f"{axis} over the number of marked images"
    drawn = curves_by_size(pd.DataFrame(points), CURVES, title, axis)
    assert drawn is not None
    seeds = DRAWN.rows.groupby("order")["seed"].nunique()
    names = {order: f"{curve.name}, {seeds[order]} seeds" for order, curve in CURVES.items()}
    return standalone(drawn, [(CURVES[order].key, name) for order, name in names.items()])
