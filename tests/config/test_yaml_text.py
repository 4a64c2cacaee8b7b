"""YAML text: what is read, what is refused because programs read it differently, variables."""

from __future__ import annotations

import pytest

from preceptor.config.files import YamlError, dump_yaml, literal, read_yaml


def read(text: str) -> object:
    values, unset = read_yaml(text)
    assert not unset
    return values


WORDS = ("2020-01-01", "2020-13-45", "12ab", "1e5x", "1.2.3", "=", "0o17", "_")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("5.", 5.0),
        (".5", 0.5),
        ("-1", -1),
        ("+2", 2),
        ("'010'", "010"),
        ("no", False),
        ("'no'", "no"),
        ("~", None),
        ("", None),
        *((word, word) for word in WORDS),
    ],
)
def test_scalars(written: str, value: object) -> None:
    found = read(f"key: {written}")
    assert found == {"key": value}
    assert isinstance(found, dict)
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    "written", ["010", "08", "-007", "0x1F", "0b11", "1_000", "1_0.5", "1:30", "1:30:15", "1:30.5"]
)
def test_numbers_that_programs_read_differently_are_refused(written: str) -> None:
    with pytest.raises(YamlError, match=f"^line 2: {written} is an ambiguous number; write it in"):
        read_yaml(f"a: 1\nb: [{written}]")


@pytest.mark.parametrize(
    "tag", ["python/object/apply:os.getcwd []", "binary aGVs", "set {a, b}", "omap [a: 1]"]
)
def test_tags_make_nothing(tag: str) -> None:
    with pytest.raises(YamlError, match="could not determine a constructor"):
        read_yaml(f"a: !!{tag}")


def test_a_key_is_a_word_whatever_it_looks_like() -> None:
    assert read("1: a\nno: b\nnull: c\n010: d") == {"1": "a", "no": "b", "null": "c", "010": "d"}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: 1\n'a': 2", "x: {a: 1,\n a: 1}"])
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="line 2: 'a' is given twice; remove one"):
        read_yaml(text)


def test_merge_keys_may_repeat_what_they_merge() -> None:
    text = "a: {inner: &b {<<: {x: 1}, x: 2}}\nc: {<<: *b, x: 3}\nd: {<<: *b}"
    found = read(text)
    assert found == {"a": {"inner": {"x": 2}}, "c": {"x": 3}, "d": {"x": 2}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("a: \0", "not YAML: unacceptable character #x0000"),
        ("? [a, b]\n: 1", "line 1: found unhashable key"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("[" * 1_000, "nested too deeply"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    with pytest.raises(YamlError, match=reason) as error:
        read_yaml(text)
    assert "\n" not in str(error.value)


def test_a_variable_is_a_value_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", "/my data: x #1")
    monkeypatch.setenv("NUMBER", "3")
    monkeypatch.setenv("LINES", "a\nb: c")
    text = (
        "a: ${ODD}/m.csv  # ${NOT_SET}\nb: {c: '${ODD}', d: '${NUMBER}'}\ne: ${NUMBER}\nf: ${LINES}"
    )
    assert read(text) == {
        "a": "/my data: x #1/m.csv",
        "b": {"c": "/my data: x #1", "d": "3"},
        "e": 3,
        "f": "a\nb: c",
    }


TEXTS = [
    *("1e5", "5e3", ".5e3", "12E03", "1e-3", "1.", "+1", "1:30", "010", "0x1f", "0o17", "1_0"),
    *("no", "off", "y", "~", "<<", "=", "null", ".nan", "NaN", "2026-11-28", "", "  a", "a: b"),
    *("${X}", "$${X}", "$$${X}", "a${X}b${Y}", "$", "${", "${a b}", "é", "x # y", "'", "\n"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_is_read_as_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "value")
    values = {"key": text, "list": [text, {"a": text}], text: 1}
    written = dump_yaml(literal(values))
    assert read(written) == values
    assert dump_yaml(literal(read(written))) == written


def test_numbers_are_written_as_numbers() -> None:
    values = {"a": 1e5, "b": 1e-5, "c": 10, "d": -0.5, "e": True, "f": None, "g": 1e300}
    assert read(dump_yaml(values)) == values
