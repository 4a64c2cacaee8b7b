"""Strict YAML parser: unambiguous YAML only, with environment variables."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

import yaml
from yaml.reader import ReaderError

_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"(\$?)\$\{(\w+)\}")  # with another dollar, the text itself
# Placeholder of a variable during parsing, since its value may contain comments, keys or line ends
# of YAML.
_PLACE = re.compile("\ue000(\\$?)(\\w+)\ue001")


class YamlError(ValueError):
    """Invalid or ambiguous YAML; the message has the position and the reason in one line."""


def read_yaml(text: str) -> tuple[Any, set[str]]:
    """Parse a YAML text with one document.

    Duplicate keys are errors, since the first value would be dropped silently. Numbers that YAML
    1.1 and 1.2 interpret differently are errors as well: 010 is 8 or 10, and 1:30 is 90 or a
    string. 1e-3 is a number; dates and keys are strings. Tags cannot create types other than those
    of JSON.

    Args:
        text: YAML text, whose values may contain `${VARIABLES}` of the environment; `$${NAME}` is
            the text `${NAME}`.

    Returns:
        The values, and the names of unset variables.

    Raises:
        YamlError: The text is invalid or ambiguous.

    Example:
        >>> read_yaml("lr: 1e-3")
        ({'lr': 0.001}, set())
    """
    try:
        loader = _Loader(_VARIABLE.sub("\ue000\\1\\2\ue001", text))
        return loader.get_single_data(), loader.unset
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(_reason(error, text)) from error
    except RecursionError as error:
        reason = "lists or mappings are nested too deeply, or hold themselves; write them flat"
        raise YamlError(reason) from error


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that programs interpret in different ways."""


class _Loader(yaml.SafeLoader):
    """YAML loader of `read_yaml`."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as declared above; filled below)
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.unset: set[str] = set()

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if _PLACE.search(node.value):
            node.value = _PLACE.sub(self._variable, node.value)
            if node.style is None:  # plain: ${SEEDS} may be a number
                node.tag = self.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        return node

    def _variable(self, found: re.Match[str]) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in os.environ:
            self.unset.add(name)
        return os.environ.get(name, "")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:  # before merge keys are resolved, which may well repeat a key
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list as a key is rejected when the mapping is constructed
            if key.value in seen:
                what = f"{key.value[:80]!r} is given twice; remove one"
                raise _Refused(problem=what, problem_mark=key.start_mark)
            seen.add(key.value)
            if key.tag != _MERGE:
                key.tag = "tag:yaml.org,2002:str"  # a variant may be named 1 or no
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve merge keys: keys of the mapping have precedence, then the first merged mapping.

        The precedence in PyYAML depends on its version: in 6.0.4 the last of several wins.
        """
        merged = [value for key, value in node.value if key.tag == _MERGE]
        if not merged:
            return
        node.value = [pair for pair in node.value if pair[0].tag != _MERGE]  # ends a cycle
        known = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        for value in merged:
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(one, yaml.MappingNode):
                    what = "<< takes a mapping, or a list of mappings"
                    raise _Refused(problem=what, problem_mark=one.start_mark)
                self.flatten_mapping(one)
                fresh = [pair for pair in one.value if str(pair[0].value) not in known]
                known |= {str(key.value) for key, _ in fresh}
                node.value = node.value + fresh

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _Refused(
                problem=f"{str(node.value)[:80]!r} cannot be read as {kind}; remove the tag",
                problem_mark=node.start_mark,
            ) from error

    def construct_unclear(self, node: yaml.ScalarNode) -> Any:
        """Reject a number that programs interpret in different ways."""
        raise _Refused(
            problem=f"{node.value[:80]} is an ambiguous number; write it in decimal digits, or "
            "in quotes if it is a string",
            problem_mark=node.start_mark,
        )


_NUMBER = "-+0123456789"
for _tag, _form, _first in (
    # Octal, hexadecimal and binary numbers, digits in groups, minutes and seconds: in YAML 1.1.
    (
        "unclear",
        r"[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9_]*_[0-9_]*(?:\.[0-9_]*)?)",
        _NUMBER,
    ),
    ("unclear", r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", _NUMBER),
    ("int", "[-+]?(?:0|[1-9][0-9]*)", _NUMBER),
    ("float", r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", _NUMBER + "."),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("bool", "yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "yYnNoO"),
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    # The first match is used.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), _first)
for _tag in ("null", "bool", "int", "float", "str", "seq", "map"):
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{_tag}"]
    )
_Loader.add_constructor("tag:yaml.org,2002:unclear", _Loader.construct_unclear)
_Loader.add_constructor(None, yaml.SafeLoader.yaml_constructors[None])


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes each string which `read_yaml` or YAML 1.1 reads as another type."""


for _first, _several in _Loader.yaml_implicit_resolvers.items():
    for _tag, _form in _several:
        _Dumper.add_implicit_resolver(_tag, _form, [_first])


def dump_yaml(values: Any) -> str:
    """YAML text of values, in which `${NAME}` stays a variable; see `literal`.

    Example:
        >>> dump_yaml({"positive": "1e5", "lr": 1e-5})
        "positive: '1e5'\\nlr: 1.0e-05\\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def literal(values: Any) -> Any:
    """Values whose texts `${NAME}` are read back as they are, and not as variables.

    Example:
        >>> literal(["${HOME}", 1])
        ['$${HOME}', 1]
    """
    if isinstance(values, dict):
        return {literal(key): literal(value) for key, value in values.items()}
    if isinstance(values, list):
        return [literal(value) for value in values]
    return _VARIABLE.sub(r"$\g<0>", values) if isinstance(values, str) else values


def _reason(error: Exception, text: str) -> str:
    """Position and reason of an error in one line."""
    if isinstance(error, ReaderError) and isinstance(error.character, int):
        line = text.count("\n", 0, error.position) + 1
        return f"not YAML: line {line}: the character {chr(error.character)!r}; remove it"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "not YAML: " + " ".join(str(error).split())
    problem = str(error.problem)
    if problem == "but found another document":
        problem = "a second document begins; a config is one"
    hint = "; indent with spaces" if r"'\t'" in problem else ""
    what = "" if isinstance(error, _Refused) else "not YAML: "
    return f"{what}line {error.problem_mark.line + 1}: {problem}{hint}"
