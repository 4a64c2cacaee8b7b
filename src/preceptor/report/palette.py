"""The magma colour map of the saliency overlays, 64 of its colours as data."""

from __future__ import annotations

# Magma by Nathaniel Smith and Stéfan van der Walt (CC0): perceptually uniform, also in grey.
# Written out, so that 64 colours need no plotting library; hexadecimal, from dark to bright.
MAGMA = bytes.fromhex(
    """
    000004 020109 030312 06051a 0a0822 0e0b2b 130d34 180f3d
    1d1147 221150 29115a 2f1163 36106b 3d0f71 440f76 4a1079
    52137c 59157e 5f187f 651a80 6b1d81 721f81 782281 7e2482
    842681 8b2981 912b81 982d80 9e2f7f a5317e ab337c b2357b
    ba3878 c03a76 c73d73 cd4071 d3436e d9466b df4a68 e44f64
    e95462 ed5a5f f1605d f4675c f66e5c f8765c fa7d5e fb8560
    fc8e64 fd9668 fe9d6c fea571 feac76 feb47b febb81 fec287
    feca8d fed194 fed89a fde0a1 fde7a9 fceeb0 fcf6b8 fcfdbf
    """
)
