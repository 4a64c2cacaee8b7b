"""Reading and writing of YAML config files, with `${VARIABLES}` and errors by key and value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from preceptor.config.paths import PathContext
from preceptor.config.settings import Settings
from preceptor.config.yaml_text import YamlError, dump_yaml, literal, read_yaml
from preceptor.errors import InputError, Problem, ProblemsError, is_control

Config = TypeVar("Config", bound=BaseModel)
# More values than any config has, counting each use of an alias: a few lines of nested aliases can
# expand to more values than fit into memory.
_MOST_VALUES, _DEEPEST = 100_000, 40
_TABLES = (".csv", ".parquet")
_INT_BOUND = 2**63  # largest integers of torch, NumPy and Parquet


def load_config(path: str | Path, model: type[Config], **overrides: Any) -> Config:
    """Read a config from a YAML file; relative paths are relative to the file.

    Args:
        path: YAML file.
        model: RunConfig, StudyConfig or another model of settings.
        overrides: Top-level values with precedence over those of the file.

    Raises:
        ProblemsError: The config is invalid; lists all problems by key and value.
        InputError: The file cannot be read, is not YAML, or contains an unset variable.
    """
    path = Path(path)
    if path.is_char_device() or path.is_block_device():
        raise InputError(f"config {path}: is a device; name a YAML file")
    if path.suffix.lower() in _TABLES:
        raise InputError(
            f"config {path}: is a table of images; name a YAML file, which `preceptor study init` "
            "writes for a table"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"config {path}: cannot be read: {reason}") from error
    try:
        values, absent = read_yaml(text)
    except YamlError as error:
        raise InputError(f"config {path}: {error}") from error
    if unset := sorted(absent):
        raise InputError(
            f"config {path}: {', '.join('${' + name + '}' for name in unset)} not set in the "
            f"environment; set it, as in `{unset[0]}=… preceptor …`"
        )
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
    """Validate values against a config model.

    Args:
        values: Values as read from YAML.
        model: RunConfig, StudyConfig or another model of settings.
        source: Name of the config in messages.
        base: Base folder of relative paths; None = the working folder.

    Raises:
        ProblemsError: The config is invalid; lists all problems by key and value.
    """
    if endless := _endless(values):
        raise ProblemsError(source, endless)
    problems = list(_unfit(values, ()))
    try:
        config = model.model_validate(values, context=PathContext((base or Path()).absolute()))
    except ValidationError as error:
        told = {problem.where for problem in problems}
        problems += [one for one in _problems(error.errors(), model) if one.where not in told]
        raise ProblemsError(source, problems) from error
    except UnicodeEncodeError as error:  # a surrogate, which is already among the problems
        raise ProblemsError(source, problems) from error
    if problems:
        raise ProblemsError(source, problems)
    return config


def _endless(values: Mapping[str, Any]) -> list[Problem]:
    """Problems of values that contain themselves or too many values because of aliases."""
    sizes: dict[int, float] = {}
    problems = []
    for key, value in values.items():
        size = _size(value, sizes, 1)
        if size > _MOST_VALUES:
            endless = "contains itself or is nested too deeply"
            what = endless if size == math.inf else f"expands to {size:,.0f} values"
            problems.append(Problem(_name(str(key)), what, "write it without aliases"))
    return problems


def _size(value: Any, sizes: dict[int, float], depth: int) -> float:
    """Number of values in a value, infinite if it contains itself; each is visited once."""
    if isinstance(value, Mapping):
        inside: Any = value.values()
    elif isinstance(value, (list, tuple)):
        inside = value
    else:
        return 1
    if depth > _DEEPEST:
        return math.inf
    if id(value) not in sizes:
        sizes[id(value)] = math.inf  # while it is counted; if visited again, it contains itself
        sizes[id(value)] = 1 + sum(_size(one, sizes, depth + 1) for one in inside)
    return sizes[id(value)]


def _unfit(value: Any, place: tuple[str, ...]) -> Iterator[Problem]:
    """Problems of values that no config may contain at any key."""
    where = ".".join(place)
    if isinstance(value, Mapping):
        for key, one in value.items():
            name = _name(str(key))
            if not isinstance(key, str):
                yield Problem(
                    ".".join((*place, name)), "the key is not a string", "put it in quotes"
                )
            elif any(map(is_control, key)):
                yield Problem(".".join((*place, name)), "a control character", "remove it")
            else:
                yield from _unfit(one, (*place, name))
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _unfit(one, (*place, str(index)))
    elif isinstance(value, str) and any(map(is_control, value)):
        yield Problem(where, f"value {_shown(value)} has a control character", "remove it")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(where, f"value {value}", "write a finite number")
    elif isinstance(value, int) and not -_INT_BOUND < value < _INT_BOUND:
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
    short.maxlevel = 4
    return short.repr(value)[:120]


# Remedies for keys that allow several types.
_EITHER = {
    "seeds": "write a number above 0, or a list of seeds from 0 up, or auto, or "
    "{auto: {width: 0.03, looks: [3, 5, 8]}}",
    "annotated": "write a number of images above 0, or a fraction above 0 and up to 1 (as in 1.0)",
    "weights": "write hub, none or a .safetensors file, or one of these under each backbone",
    "alpha": "write a number from 0 to 1, or auto",
    "distance": "write l2, mse, l1, kl, dice, cells, evidence, energy or cosine, or several with "
    "weights above 0, as in {l2: 0.5, cells: 0.5}",
    "pool_top": "write a share of the cells above 0 and up to 1 (as in 0.1), or a number of cells",
}
_WRITE = {
    "tuple_type": "write a list, as in [a, b]",
    "too_short": "name at least one",
    "dict_type": "write `key: value` lines under it",
    "mapping_type": "write `key: value` lines under it",
    "model_type": "write `key: value` lines under it",
    "path_type": "write a path",
    "number_type": "write a number (in YAML, yes and no are true and false)",
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


def _problems(errors: Sequence[Any], model: type[BaseModel]) -> list[Problem]:
    """Problems found by pydantic, in terms of the file; one problem for all branches of a union."""
    found: dict[tuple[Any, ...], list[Problem]] = {}
    for entry in errors:
        loc = entry["loc"]
        places = [place for place, part in enumerate(loc) if part in _EITHER]
        loc = loc[: places[0] + 1] if places else loc  # without the branch of the union
        if loc not in found or not places:
            found.setdefault(loc, []).extend(_problem(entry, loc, model))
    inner = {loc[:-1] for loc in found if loc}  # an invalid element makes its list too short
    return [
        problem
        for loc, problems in found.items()
        if loc == () or loc not in inner
        for problem in problems
    ]


def _problem(entry: Any, loc: tuple[Any, ...], model: type[BaseModel]) -> list[Problem]:
    key = ".".join(_name(str(part)) for part in loc) or "settings"
    kind, value = entry["type"], entry["input"]
    if kind == "extra_forbidden":
        return [Problem(key, "unknown key", _near(loc, model))]
    if kind == "missing":
        return [Problem(key, "missing", f"add a line `{loc[-1]}: …`")]
    if kind == "value_error":
        lines = [line.partition("; ") for line in str(entry["ctx"]["error"]).split("\n")]
        return [Problem(key, what, fix or "change one of them") for what, _, fix in lines]
    shown = "nothing is written" if value is None else f"value {_shown(value)}"
    if loc and loc[-1] in _EITHER:
        return [Problem(key, shown, _EITHER[loc[-1]])]
    if kind == "string_type":
        scalar = isinstance(value, (int, float)) and not isinstance(value, bool)
        quotes = f"write it in quotes: '{value}'" if scalar else "write a string"
        if isinstance(value, float):  # 1.50 was already converted to 1.5
            quotes = "write it in quotes, with all of its digits"
        if isinstance(value, bool):
            quotes = "write it in quotes (in YAML, yes and no are true and false)"
        return [Problem(key, shown, quotes)]
    message = entry["msg"][:1].lower() + entry["msg"][1:]
    return [Problem(key, shown, _WRITE.get(kind, message).format(**entry.get("ctx", {})))]


def _near(loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    """Remedy for an unknown key: the section to which it belongs, or a similar key."""
    word, above = str(loc[-1]), tuple(map(str, loc[:-1]))
    places = list(_places(model))
    for place, name in places:
        if name == word:
            return f"it belongs under `{'.'.join(place)}:`" if place else "it belongs at the top"
    near = difflib.get_close_matches(word, [name for place, name in places if place == above], 1)
    return f"did you mean {near[0]!r}?" if near else "check its spelling and indentation"


def _places(
    model: type[BaseModel], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of a config model with its parent keys."""
    for name, field in model.model_fields.items():
        yield above, name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            yield from _places(kind, (*above, name))


def dump_config(config: Settings) -> str:
    """Resolved config as YAML, which `load_config` reads as the same config."""
    return dump_yaml(literal(config.model_dump(mode="json")))
