"""Which of timm's families have batch norm between features and logits.

    python benchmarks/norms_in_heads.py [--out norms.csv]

A row a network of `timm.list_models()`: its family (timm's module), its number of weights, and the
batch norms that are called after `forward_features`. Everything is on torch's meta device: no
weight is made and nothing is computed. Printed is the smallest such network of each family. Of
transformers, whose map may be taken before their last block, the batch norms of that block and of
all that follows count too. About seven minutes.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from timm.models import list_modules

from preceptor.models.batch_norm import of_the_batch
from preceptor.models.feature_layout import last_block


def main() -> None:
    """Walk through timm's networks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("norms.csv"))
    arguments = parser.parse_args()
    rows = [
        _row(family, name) for family in list_modules() for name in timm.list_models(module=family)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out, index=False)
    normed = table[(table["head"] != "") | (table["last block"] != "")]
    print(normed.sort_values("weights").groupby("family").first().to_string())
    print(table[table["failed"] != ""].to_string())


def _row(family: str, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "family": family,
        "network": name,
        "weights": 0,
        "head": "",
        "last block": "",
        "failed": "",
    }
    called: list[tuple[str, str]] = []
    stage = ["trunk"]

    def reach(where: str, *_: Any) -> None:
        stage[0] = where

    def call(norm: str, *_: Any) -> None:
        called.append((stage[0], norm))

    try:
        with torch.device("meta"), torch.no_grad():
            network: Any = timm.create_model(name, num_classes=2).eval()
            row["weights"] = sum(value.numel() for value in network.parameters())
            for norm, part in network.named_modules():
                if of_the_batch(part):
                    part.register_forward_pre_hook(partial(call, norm))
            block = last_block(network)
            if block is not None:
                block.register_forward_pre_hook(partial(reach, "last block"))
            raw = network.forward_features(torch.zeros(2, *network.default_cfg["input_size"]))
            if raw.ndim != 3:  # no tokens
                called.clear()
            stage[0] = "head"
            network.forward_head(raw)
    except Exception as error:  # what the meta device cannot do
        row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    for where in ("head", "last block"):
        row[where] = " ".join(dict.fromkeys(norm for at, norm in called if at == where))
    return row


if __name__ == "__main__":
    main()
