"""Sealed files: every change of a byte is told, and other programs read them as before."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.errors import InputError
from preceptor.predictor.sealed_file import checked, read_sealed, sealed

PATH = Path("model.onnx")


@given(st.binary(max_size=300), st.data())
def test_a_changed_or_missing_byte_is_refused(content: bytes, data: st.DataObject) -> None:
    whole = sealed(content)
    assert checked(whole, PATH) == whole
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    for wrong in (
        whole[:place] + bytes([other]) + whole[place + 1 :],
        whole[:place],
        whole[:place] + whole[place + 1 :],
        whole + bytes([other]),
    ):
        with pytest.raises(InputError) as found:
            checked(wrong, PATH)
        assert "\n" not in str(found.value)


def test_messages_tell_another_program_from_damage(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x08\x08" + b"weights" * 100)
    with pytest.raises(InputError, match="not a file of preceptor export"):
        read_sealed(file)
    file.write_bytes(sealed(b"weights" * 100)[:-20])
    with pytest.raises(InputError, match="cut short or changed"):
        read_sealed(file)
    with pytest.raises(InputError, match=r"none\.onnx: No such file"):
        read_sealed(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="directory"):
        read_sealed(tmp_path)


def test_the_marks_are_metadata_of_an_onnx_model() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto(producer_name="test")
    found = onnx.load_from_string(sealed(model.SerializeToString()))
    assert found.producer_name == "test"
    assert [entry.key for entry in found.metadata_props] == ["preceptor_file", "preceptor_sha256"]
