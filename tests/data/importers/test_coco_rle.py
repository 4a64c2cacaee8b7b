import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as oracle

from preceptor.data.importers.coco_rle import (
    decode_counts,
    decode_string,
    encode_counts,
    encode_string,
)
from preceptor.data.importers.shapes import Pixels

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1]))
)


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_it_is_the_encoding_of_pycocotools(mask: Pixels) -> None:
    height, width = mask.shape
    theirs = oracle.encode(np.asfortranarray(mask))["counts"]
    counts = encode_counts(mask)
    assert encode_string(counts).encode() == theirs
    assert decode_string(theirs).tolist() == counts
    assert (decode_counts(counts, width, height) == mask * 255).all()


@pytest.mark.parametrize("spots", [1, 30, 3000])
def test_large_masks_with_long_runs(spots: int) -> None:
    random = np.random.default_rng(spots)
    mask = np.zeros((900, 1100), np.uint8)
    for x, y, side in random.integers(0, 800, (spots, 3)):
        mask[y : y + side // 9, x : x + side // 7] = 1
    theirs = oracle.encode(np.asfortranarray(mask))["counts"]
    assert encode_string(encode_counts(mask)).encode() == theirs
    assert (decode_counts(decode_string(theirs), 1100, 900) == mask * 255).all()


@pytest.mark.parametrize(
    ("text", "why"), [("P", "cut short"), ("1 2", "character"), ("o" * 13 + "0", "too many")]
)
def test_a_damaged_string_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_string(text)


@pytest.mark.parametrize("counts", [[-1, 7], [3, 4], [2**62, 2**62], [], [1.5, 4.5]])
def test_counts_that_do_not_add_up_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="count"):
        decode_counts(counts, 2, 3)
