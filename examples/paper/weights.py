"""ImageNet weights of the paper's four backbones as safetensors files.

    python examples/paper/weights.py $UND/weights

Needs a network. The files have the names that examples/paper/study.yaml expects. timm unpickles the
published file of Xception, which is not offered as safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
from safetensors.torch import save_file

# Those of torchvision and, for Xception, of its first port from TensorFlow.
TAGS = (
    "densenet121.tv_in1k",
    "resnet50.tv_in1k",
    "legacy_xception.tf_in1k",
    "inception_v3.tv_in1k",
)


def write_weights(folder: Path, *, pretrained: bool = True) -> None:
    """Write the files that are missing.

    Args:
        folder: Output folder.
        pretrained: ImageNet weights, or random ones (for a rehearsal without a network).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for tag in TAGS:
        name = tag.split(".")[0]
        file = folder / f"{name}.safetensors"
        if not file.exists():
            model = timm.create_model(tag if pretrained else name, pretrained=pretrained)
            partial = file.with_suffix(".partial")
            save_file(model.state_dict(), partial)
            partial.rename(file)
            print(f"wrote {file}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder")
    write_weights(parser.parse_args().folder)


if __name__ == "__main__":
    main()
