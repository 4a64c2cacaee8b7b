import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preceptor.annotations.json_formats import decode_brush, encode_brush
from preceptor.annotations.shapes import Pixels

MASKS = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 255, 7]))
)


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_a_stroke_is_decoded_to_what_was_encoded(mask: Pixels) -> None:
    height, width = mask.shape
    assert (decode_brush(encode_brush(mask), width, height) == mask).all()


def test_long_runs_are_divided() -> None:
    mask = np.zeros((700, 900), np.uint8)
    mask[100:600, 20:] = 255
    packed = encode_brush(mask)
    assert len(packed) < 40_000
    assert (decode_brush(packed, 900, 700) == mask).all()


def test_values_that_are_listed_one_by_one() -> None:
    """Blocks that our encoder does not write: a list of three values, then a run."""
    values = [0, 0, 0, 9] + [0] * 4
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += f"0{0:02b}{3:03b}" + "".join(f"{one:08b}" for one in values[:4])
    bits += f"1{0:02b}{3:03b}{0:08b}"
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert decode_brush(packed, 2, 1).tolist() == [[9, 0]]
