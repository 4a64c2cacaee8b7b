"""Config files: YAML with `${VARIABLES}` in, every mistake named by key and value, YAML out."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from preceptor.config.run import Settings
from preceptor.errors import InputError, Problem, ProblemsError

Config = TypeVar("Config", bound=Settings)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_COMMENT = re.compile(r"(?m)(?:^|\s)#.*$")


def load_config(path: str | Path, model: type[Config], **overrides: Any) -> Config:
    """Read a YAML file into a config; relative paths in it are relative to the file.

    Args:
        path: The YAML file.
        model: RunConfig or StudyConfig.
        overrides: Top-level values that win over the file's.

    Raises:
        ProblemsError: Everything that is wrong with it, by key and value.
        InputError: It cannot be read, is not YAML, or names an unset variable.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"config {path}: cannot be read: {reason}") from error
    names = set(_VARIABLE.findall(_COMMENT.sub("", text)))
    unset = sorted(name for name in names if name not in os.environ)
    if unset:
        raise InputError(
            f"config {path}: {', '.join('${' + name + '}' for name in unset)} not set in the "
            f"environment; set it, as in `{unset[0]}=… preceptor …`"
        )
    text = _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), text)
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"config {path}: not YAML: {_yaml_reason(error)}") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise InputError(f"config {path}: expected `key: value` lines, found {found}")
    return parse_config(values | overrides, model, source=f"config {path}", base=path.parent)


def parse_config(
    values: Mapping[str, Any],
    model: type[Config],
    *,
    source: str = "config",
    base: Path | None = None,
) -> Config:
    """Check values against a config model; see `load_config`.

    Args:
        values: As YAML gives them.
        model: RunConfig or StudyConfig.
        source: What the user knows them as.
        base: What relative paths are relative to; None = the working folder.

    Raises:
        ProblemsError: Everything that is wrong with it, by key and value.
    """
    try:
        return model.model_validate(_absolute(values, (base or Path()).absolute()))
    except ValidationError as error:
        raise ProblemsError(source, _problems(error.errors(), model)) from error


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error: else the first would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else None
            if word in seen:
                raise yaml.MarkedYAMLError(None, None, f"{word!r} is given twice", key.start_mark)
            seen |= {word} - {None}
        return super().construct_mapping(node, deep)


def _yaml_reason(error: Exception) -> str:
    """Where and why, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    hint = "; indent with spaces" if r"'\t'" in str(error.problem) else ""
    return f"line {error.problem_mark.line + 1}: {error.problem}{hint}"


def _absolute(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Values with their paths made absolute, so that a resolved config is read from anywhere."""

    def path(value: Any) -> Any:
        if not isinstance(value, (str, Path)) or str(value) == "":
            return value
        # Not resolve(): a manifest's paths start from where it is linked.
        return Path(os.path.normpath(base / Path(value).expanduser()))

    def weights(value: Any) -> Any:
        return value if value in ("hub", "none") or not isinstance(value, str) else str(path(value))

    found = dict(values)
    for key in ("manifest", "store"):
        if key in found:
            found[key] = path(found[key])
    given = found.get("weights")
    if isinstance(given, Mapping):
        found["weights"] = {name: weights(value) for name, value in given.items()}
    elif given is not None:
        found["weights"] = weights(given)
    maps = found.get("maps")
    if isinstance(maps, Mapping):  # a study's name → folder, or a run's map source
        own = "kind" in maps
        found["maps"] = {
            key: path(value) if key == "path" or not own else value for key, value in maps.items()
        }
    domains = found.get("domains")
    if isinstance(domains, Mapping):
        found["domains"] = {
            name: _absolute(one, base) if isinstance(one, Mapping) else one
            for name, one in domains.items()
        }
    soft = found.get("soft_labels")
    if isinstance(soft, Mapping) and "path" in soft:
        found["soft_labels"] = {**soft, "path": path(soft["path"])}
    return found


# What to write where several kinds of value are allowed, by key.
_EITHER = {
    "seeds": "write a number above 0, or a list of seeds from 0 up",
    "annotated": "write a number of images above 0, or a fraction above 0 and up to 1 (as in 1.0)",
    "weights": "write hub, none or a .safetensors file, or one of these under each backbone",
}
_WRITE = {
    "tuple_type": "write a list, as in [a, b]",
    "too_short": "name at least one",
    "dict_type": "write `key: value` lines under it",
    "mapping_type": "write `key: value` lines under it",
    "model_type": "write `key: value` lines under it",
    "path_type": "write a path",
    "number_type": "write a number (YAML takes yes and no for true and false)",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "write {expected}",
    "finite_number": "write a finite number",
}


def _problems(errors: Sequence[Any], model: type[Settings]) -> list[Problem]:
    """What pydantic found, in words of the file; a union's branches are told once."""
    found: dict[tuple[Any, ...], list[Problem]] = {}
    for entry in errors:
        either = entry["loc"][0] if entry["loc"] else ""
        loc = entry["loc"][:1] if either in _EITHER and len(entry["loc"]) > 1 else entry["loc"]
        if loc not in found or either not in _EITHER:
            found.setdefault(loc, []).extend(_problem(entry, loc, model))
    inner = {loc[:-1] for loc in found if loc}  # what is wrong inside a list makes it too short
    return [
        problem
        for loc, problems in found.items()
        if loc == () or loc not in inner
        for problem in problems
    ]


def _problem(entry: Any, loc: tuple[Any, ...], model: type[Settings]) -> list[Problem]:
    key = ".".join(str(part) for part in loc) or "settings"
    kind, value = entry["type"], entry["input"]
    if kind == "extra_forbidden":
        return [Problem(key, "unknown word", _near(loc, model))]
    if kind == "missing":
        return [Problem(key, "missing", f"add a line `{loc[-1]}: …`")]
    if kind == "value_error":
        lines = str(entry["ctx"]["error"]).splitlines()
        return [Problem(key, *line.split("; ", 1)) for line in lines]
    shown = "nothing is written" if value is None else f"value {value!r}"[:120]
    if key in _EITHER:
        return [Problem(key, shown, _EITHER[key])]
    if kind == "string_type":
        scalar = isinstance(value, (int, float)) and not isinstance(value, bool)
        quotes = f"write it in quotes: '{value}'" if scalar else "write a word"
        if isinstance(value, bool):
            quotes = "write it in quotes (YAML takes yes and no for true and false)"
        return [Problem(key, shown, quotes)]
    message = entry["msg"][:1].lower() + entry["msg"][1:]
    return [Problem(key, shown, _WRITE.get(kind, message).format(**entry.get("ctx", {})))]


def _near(loc: tuple[Any, ...], model: type[Settings]) -> str:
    """What to do about an unknown word: where it belongs, or what it may have been meant to be."""
    word, above = str(loc[-1]), tuple(map(str, loc[:-1]))
    places = list(_places(model))
    for place, name in places:
        if name == word:
            return f"it belongs under `{'.'.join(place)}:`" if place else "it belongs at the top"
    near = difflib.get_close_matches(word, [name for place, name in places if place == above], 1)
    return f"did you mean {near[0]!r}?" if near else "check its spelling and indentation"


def _places(
    model: type[Settings], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every word of a config model with the words that it stands under."""
    for name, field in model.model_fields.items():
        yield above, name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            yield from _places(kind, (*above, name))


def dump_config(config: Settings) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
