"""Descriptions of config keys, and the JSON Schema of a config, from the docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

_ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Description of each key of a config, its own and those it inherits.

    Raises:
        ValueError: The docstrings do not describe a key.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        found |= _arguments(kind.__dict__.get("__doc__") or "")
    missing = [name for name in model.model_fields if name not in found]
    if missing:
        raise ValueError(f"{model.__name__}: no description of {', '.join(missing)}")
    return {name: found[name] for name in model.model_fields}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a config file, with the descriptions of its keys, for editors.

    Args:
        model: The config.
    """
    schema = model.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


class _Described(GenerateJsonSchema):
    """JSON Schema with the descriptions of keys instead of those of whole docstrings."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Schema of a model."""
        found = super().model_schema(schema)
        model = schema["cls"]
        found["description"] = (inspect.getdoc(model) or "").split("\n")[0]
        for name, text in descriptions(model).items():
            key = found["properties"][name]
            key.pop("title", None)
            key["description"] = text
        return found


def _arguments(docstring: str) -> dict[str, str]:
    """Descriptions in the section Args of a docstring."""
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    entries: list[str] = []
    for line in section.split("\n"):
        if line and not line.startswith("    "):
            break
        text = line[4:]
        if text.startswith("    "):
            entries[-1] += f" {text.strip()}"
        elif text:
            entries.append(text)
    found: dict[str, str] = {}
    for entry in entries:
        if match := _ENTRY.match(entry):
            found |= dict.fromkeys(match[1].split(", "), match[2])
    return found
