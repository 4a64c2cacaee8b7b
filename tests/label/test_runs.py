"""Run-length code against a slow implementation; runs.json has cases that the page shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from preceptor.label.marks import (
    bounding_runs,
    check_tight,
    decode_runs,
    encode_runs,
    from_text,
    run_lengths,
    to_text,
)

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("runs.json").read_text(encoding="utf-8")
)
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30))


@pytest.mark.parametrize("case", CASES["valid"])
def test_the_shared_cases(case: dict[str, Any]) -> None:
    bits = np.array([[letter == "1" for letter in row] for row in case["rows"]])
    assert to_text(encode_runs(bits)) == case["runs"]
    code = from_text(case["runs"])
    assert decode_runs(code, bits.size).reshape(bits.shape).tolist() == bits.tolist()
    check_tight(code, case["w"], case["h"])


@pytest.mark.parametrize("case", CASES["long"])
def test_long_runs_of_the_shared_cases(case: dict[str, Any]) -> None:
    lengths = case["lengths"]
    assert run_lengths(from_text(case["runs"]), sum(lengths)).tolist() == lengths
    bits = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    assert to_text(encode_runs(bits)) == case["runs"]


@pytest.mark.parametrize("case", CASES["invalid"], ids=lambda case: case["why"])
def test_malformed_runs_of_the_shared_cases_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_runs(from_text(case["runs"]), case["size"])


@given(masks)
def test_decoding_gives_the_bits_again(mask: np.ndarray) -> None:
    code = encode_runs(mask)
    assert (decode_runs(code, mask.size).reshape(mask.shape) == mask).all()


@given(masks)
def test_the_bounding_box_is_tight_and_no_larger_one_is(mask: np.ndarray) -> None:
    found = bounding_runs(mask)
    if found is None:
        assert not mask.any()
        return
    x, y, w, h, code = found
    check_tight(code, w, h)
    again = np.zeros_like(mask)
    again[y : y + h, x : x + w] = decode_runs(code, w * h).reshape(h, w)
    assert (again == mask).all()
    if (w, h) != mask.shape[::-1]:
        with pytest.raises(ValueError, match="larger than its marked pixels"):
            check_tight(encode_runs(mask), mask.shape[1], mask.shape[0])


@given(st.binary(max_size=40), st.integers(1, 200))
def test_any_bytes_are_decoded_or_refused(code: bytes, size: int) -> None:
    try:
        bits = decode_runs(code, size)
    except ValueError:
        return
    assert encode_runs(bits) == code
