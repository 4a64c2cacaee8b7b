"""YAML config files: unambiguous YAML with `${VARIABLES}`, and problems by key and value."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from preceptor.config.settings import Settings
from preceptor.errors import InputError, Problem, ProblemsError, is_control

Config = TypeVar("Config", bound=BaseModel)
Valid = TypeVar("Valid")
_VARIABLE = re.compile(r"(\$?)\$\{(\w+)\}")  # with another dollar, the text itself
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
# Numbers that YAML 1.1 and 1.2 read differently: 010 is 8 or 10, 1:30 is 90 or a text.
_UNCLEAR = re.compile(
    r"[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*_[0-9_.]*|[0-9]+(:[0-9]+)+(\.[0-9]*)?)"
)
_LARGEST = 2**63  # integers of torch, NumPy and Parquet are below


class YamlError(ValueError):
    """Invalid or ambiguous YAML; the message has the position and the reason in one line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader in which keys are texts that occur once, and dates are texts."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.unset: set[str] = set()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                # A domain may be named 1, 010 or no.
                key.tag, key.style = "tag:yaml.org,2002:str", "'"
                if key.value in seen:
                    raise _refused(key, f"{key.value[:80]!r} is given twice", "remove one")
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge `<<`; what a mapping says itself wins, also where it is merged again."""
        super().flatten_mapping(node)
        if all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            node.value = list({pair[0].value: pair for pair in node.value}.values())

    def construct_text(self, node: yaml.ScalarNode) -> Any:
        """A scalar: its variables are replaced, and a plain one may then be a number."""
        plain = node.style is None
        if plain and _UNCLEAR.fullmatch(node.value):
            what = f"{node.value[:80]} is an ambiguous number"
            raise _refused(node, what, "write it in decimal digits, or in quotes if it is a string")
        text = _VARIABLE.sub(self._variable, node.value)
        if plain and _NUMBER.fullmatch(text):
            return int(text) if re.fullmatch("[-+]?[0-9]+", text) else float(text)
        if plain and node.tag == "tag:yaml.org,2002:float":
            raise _refused(node, f"{text[:80]} is not finite", "write a finite number")
        return text

    def _variable(self, match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in os.environ:
            self.unset.add(name)
        return os.environ.get(name, "")


def _refused(node: yaml.Node, problem: str, fix: str) -> YamlError:
    return YamlError(f"line {node.start_mark.line + 1}: {problem}; {fix}")


_CONSTRUCTORS: dict[str | None, Any] = {
    f"tag:yaml.org,2002:{name}": _Loader.construct_text
    for name in ("int", "float", "timestamp", "value", "str")
}
_CONSTRUCTORS |= {  # no other types than those of JSON
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (None, *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "seq", "map")))
}
_Loader.yaml_constructors = _CONSTRUCTORS


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes the texts which are numbers for the loader."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _UNCLEAR, list("-+_0123456789"))


def read_yaml(text: str) -> tuple[Any, set[str]]:
    """Parse a YAML text with one document; returns its values and the names of unset variables.

    Values may contain `${VARIABLES}` of the environment; `$${NAME}` is the text `${NAME}`.

    Raises:
        YamlError: The text is invalid, a key is repeated, or programs read a number in it in
            different ways.

    Example:
        >>> read_yaml("lr: 1e-3")
        ({'lr': 0.001}, set())
    """
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.unset
    except RecursionError as error:
        raise YamlError("lists or mappings are nested too deeply; write them flat") from error
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), " ".join(str(error).split())
        if mark is not None:
            problem = f"line {mark.line + 1}: {getattr(error, 'problem', '')}"
        raise YamlError(f"not YAML: {problem}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise YamlError("not YAML: a tag (!!) does not fit its value; remove it") from error


def load_config(path: str | Path, model: type[Config], **overrides: Any) -> Config:
    """Read a config from a YAML file, see `read_yaml`; relative paths are relative to the file.

    Args:
        path: YAML file.
        model: RunConfig, StudyConfig or another model of settings.
        overrides: Top-level values with precedence over those of the file.

    Raises:
        ProblemsError: The config is invalid; lists all problems by key and value.
        InputError: The file cannot be read, is not unambiguous YAML, or has an unset variable.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".parquet"):
        raise InputError(
            f"config {path}: is a table of images; name a YAML file, which `preceptor study init` "
            "writes for a table"
        )
    try:
        values, absent = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"config {path}: cannot be read: {reason}") from error
    except YamlError as error:
        raise InputError(f"config {path}: {error}") from error
    if unset := sorted(absent):
        raise InputError(
            f"config {path}: {', '.join('${' + name + '}' for name in unset)} not set in the "
            f"environment; set it, as in `{unset[0]}=… preceptor …`"
        )
    if not isinstance(values, dict):
        kind = "nothing" if values is None else type(values).__name__
        raise InputError(f"config {path}: expected `key: value` lines, found {kind}")
    return parse_config(values | overrides, model, source=f"config {path}", base=path.parent)


def parse_config(
    values: Mapping[str, Any],
    model: type[Config],
    *,
    source: str = "config",
    base: Path | None = None,
) -> Config:
    """Validate values against a config model; `source` names the config in messages.

    Relative paths start at `base`, or at the working folder.

    Raises:
        ProblemsError: The config is invalid; lists all problems by key and value.
    """
    try:
        problems = list(_unfit(values, ""))
    except RecursionError as error:
        fix = "lists or mappings are nested too deeply, or contain themselves; write them flat"
        raise InputError(f"{source}: {fix}") from error
    if problems:
        raise ProblemsError(source, problems)
    try:
        return model.model_validate(values, context=(base or Path()).absolute())
    except ValidationError as error:
        raise ProblemsError(source, _problems(error.errors(), model)) from error


def _unfit(value: Any, where: str) -> Iterator[Problem]:
    """Values that no setting takes: not printable, not finite, too large."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{where}.{_name(str(key))}".lstrip(".")
            if any(map(is_control, str(key))):
                yield Problem(inner, "a control character", "remove it")
            yield from _unfit(item, inner)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unfit(item, f"{where}.{index}")
    elif isinstance(value, str) and any(map(is_control, value)):
        yield Problem(where, f"value {_shown(value)} has a control character", "remove it")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(where, f"value {value}", "write a finite number")
    elif isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        yield Problem(where, f"value {_shown(value)}", "write a number below 2^63")


def _name(key: str) -> str:
    """Key in messages."""
    printed = key if key and not any(map(is_control, key)) else repr(key)
    return printed if len(printed) <= 80 else printed[:79] + "…"


def _shown(value: Any) -> str:
    """Shortened value in messages."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 100
    short.maxlist = short.maxtuple = short.maxdict = 12
    return short.repr(value)[:120]


_LINES = "write `key: value` lines under it"
_WRITE = {
    "tuple_type": "write a list, as in [a, b]",
    "too_short": "name at least one",
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), _LINES),
    **dict.fromkeys(("bool_type", "bool_parsing"), "write true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "write a whole number"),
    "number_type": "write a number (in YAML, yes and no are true and false)",
    "string_type": "write a string; a number, yes and no need quotes",
    "float_parsing": "write a number",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "write {expected}",
}


_UNION = {
    f"{kind}{base}" for kind in ("", "constrained-") for base in ("bool", "int", "float", "str")
}
"""Names that pydantic gives to the branches of a union, beside those with brackets."""


def _problems(errors: Sequence[Any], model: type[BaseModel]) -> list[Problem]:
    """Problems found by pydantic, in terms of the file; one for all branches of a union."""
    keys = list(_keys(model))
    by_place: dict[tuple[str, ...], list[Any]] = {}
    for entry in errors:
        location = tuple(map(str, entry["loc"]))
        for at, part in enumerate(location[1:], 1):
            if "[" in part or part in _UNION:
                location = location[:at]
                break
        by_place.setdefault(location, []).append(entry)
    problems = []
    for location, entries in by_place.items():
        key, entry = ".".join(map(_name, location)) or "settings", entries[0]
        kind, value = entry["type"], entry["input"]
        if kind == "extra_forbidden":
            problems.append(Problem(key, "unknown key", _near(location, keys)))
        elif kind == "missing":
            problems.append(Problem(key, "missing", f"add a line `{location[-1]}: …`"))
        elif kind == "value_error":
            lines = [line.partition("; ") for line in str(entry["ctx"]["error"]).split("\n")]
            problems += [Problem(key, what, fix or "change one of them") for what, _, fix in lines]
        else:
            shown = "nothing is written" if value is None else f"value {_shown(value)}"
            ways = []
            for error in entries:
                limits = {name: _plain(limit) for name, limit in error.get("ctx", {}).items()}
                way = _WRITE.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])
                ways.append(way.format(**limits))
            problems.append(Problem(key, shown, ", or ".join(dict.fromkeys(ways))))
    return problems


def validated(adapter: TypeAdapter[Valid], text: str | bytes, source: str) -> Valid:
    """Value of a JSON text; for any other text an InputError with its source and the key."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, kind = ".".join(map(_name, map(str, first["loc"]))), first["type"]
        if kind == "json_invalid":
            what = "it is no JSON, or damaged"
        elif kind in ("missing", "extra_forbidden", "unexpected_keyword_argument"):
            what = "it is missing" if kind == "missing" else "the key is unknown"
        elif kind == "value_error":
            what = str(first["ctx"]["error"])
        else:
            values = {name: _plain(value) for name, value in first.get("ctx", {}).items()}
            write = _WRITE[kind].format(**values) if kind in _WRITE else first["msg"]
            what = f"value {_shown(first['input'])}; {write}"
        where = f"{source}: {key}" if key else source
        raise InputError(f"{where}: {' '.join(what.split())}") from error


def _plain(value: Any) -> Any:
    """Number of a limit in messages: 0 and not 0.0."""
    return f"{value:g}" if isinstance(value, float) else value


def _near(location: tuple[str, ...], keys: Sequence[tuple[str, ...]]) -> str:
    """Remedy for an unknown key: the section to which it belongs, or a similar key."""
    for path in keys:
        if path[-1] == location[-1]:
            above = ".".join(path[:-1])
            return f"it belongs under `{above}:`" if above else "move it to the top"
    siblings = [path[-1] for path in keys if path[:-1] == location[:-1]]
    near = difflib.get_close_matches(location[-1], siblings, 1)
    return (
        f"did you mean {near[0]!r}?" if near else "check its spelling and indentation, or remove it"
    )


def _keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a config model, after those above it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, (*above, name))


def dump_config(config: Settings) -> str:
    """Resolved config as YAML, which `load_config` reads as the same config."""
    return dump_yaml(literal(config.model_dump(mode="json")))


def dump_yaml(values: Any) -> str:
    """YAML text of values, in which `${NAME}` stays a variable; see `literal`."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def literal(values: Any) -> Any:
    """Values whose texts `${NAME}` are read back as they are, and not as variables."""
    if isinstance(values, dict):
        return {literal(key): literal(value) for key, value in values.items()}
    if isinstance(values, list):
        return [literal(value) for value in values]
    return _VARIABLE.sub(r"$\g<0>", values) if isinstance(values, str) else values
