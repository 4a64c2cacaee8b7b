"""Pages that are generated from the code: config keys, commands, schema, llms.txt."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from preceptor.cli.main import app
from preceptor.config.run import RunConfig
from preceptor.config.settings import Settings
from preceptor.losses.guidance import METHODS, catalogue
from preceptor.results.tables import CSV_FILES, MEANINGS
from preceptor.study.config import StudyConfig
from preceptor.utils.text import argument_descriptions

HERE = Path(__file__).parent
GENERATED = HERE / "reference" / "generated"
FILES: dict[str, tuple[str, type[Settings], str]] = {
    "study": ("Study files", StudyConfig, "`preceptor study`"),
    "run": ("Run files", RunConfig, "`preceptor train`"),
}
"""Configuration files: title, model of the keys, and commands that read them, by name."""

_CODE = re.compile(r"(?<![`\w])(`[^`]+`)")


def write_reference() -> None:
    """Write the generated pages and the schemas of configuration files."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    schemas = {name: json_schema(model) for name, (_, model, _) in FILES.items()}
    for name, text in {
        "config.md": config_page(schemas),
        "commands.md": commands_page(),
        "tables.md": tables_page(),
        "guidance.md": guidance_page(),
        "results.md": _beside("benchmarks/RESULTS.md"),
        "archive.md": _beside("benchmarks/evidence/README.md"),
        "changelog.md": _beside("CHANGELOG.md"),
        "paper.md": _beside("examples/paper/README.md"),
        **{
            f"{name}.schema.json": json.dumps(one, indent=1) + "\n" for name, one in schemas.items()
        },
    }.items():
        file = GENERATED / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:  # keep the times
            file.write_text(text, encoding="utf-8")


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Description of each key of a config in the docstrings of its class and those above it."""
    texts: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        texts |= argument_descriptions(kind.__dict__.get("__doc__") or "")
    return {name: texts[name] for name in model.model_fields}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a config file, with the descriptions of its keys, for editors."""
    schema = model.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


class _Described(GenerateJsonSchema):
    """JSON Schema with the descriptions of keys instead of those of whole docstrings."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Schema of a model."""
        described, model = super().model_schema(schema), schema["cls"]
        described["description"] = (inspect.getdoc(model) or "").split("\n")[0]
        for name, text in descriptions(model).items():
            key = described["properties"][name]
            key.pop("title", None)
            key["description"] = text
        return described


def _beside(name: str) -> str:
    """Text of a page outside this folder, with links from `reference/generated`."""
    text = (HERE.parent / name).read_text(encoding="utf-8")
    text = re.sub(
        r"\[([^\]]+)\]\((?:evidence/[^)]*|[^)]*\.(?:csv|yaml)|CONTRIBUTING\.md|\.\./slurm/[^)]*)\)",
        r"\1",
        text,
    )
    return re.sub(r"\]\((?:\.\./)*docs/", "](../../", text)


def with_links_inside(text: str, up: str) -> str:
    """Text with links to pages of the site, and without links to folders of the repository.

    Args:
        text: Markdown of a page.
        up: Path from the page to the folder of the site.
    """
    for file, page in (
        ("benchmarks/RESULTS.md", "results"),
        ("benchmarks/evidence/README.md", "archive"),
        ("CHANGELOG.md", "changelog"),
    ):
        text = re.sub(
            rf"\]\((?:\.\./)+{re.escape(file)}", f"]({up}reference/generated/{page}.md", text
        )
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?:benchmarks|examples|src)/[^)]*\)", r"\1", text)


def config_page(schemas: dict[str, dict[str, Any]]) -> str:
    """Page of all keys of the configuration files.

    Args:
        schemas: JSON Schemas by the names of `FILES`.
    """
    parts = [
        "# Configuration files: all keys\n",
        "Configuration files are YAML. All keys exist since version 0.1.0; keys without a default "
        "are required. Unknown keys and wrong values are errors with the key, the value and a "
        "remedy. Relative paths start at the folder of the file; `${NAME}` is an environment "
        "variable.\n",
        "Editors with a YAML language server complete and check a file that begins with a line "
        "such as the following. The JSON Schemas are "
        + ", ".join(f"{{download}}`{name}.schema.json <{name}.schema.json>`" for name in schemas)
        + ".\n",
        "```yaml\n# yaml-language-server: $schema=study.schema.json\n```\n",
    ]
    nested: dict[str, dict[str, Any]] = {}
    links: dict[str, str] = {}  # to the sections, by the names of the classes
    for name, schema in schemas.items():
        title, model, commands = FILES[name]
        own = model.__annotations__  # before those it inherits
        parts += _section(name, title, schema, own, f" Read by {commands}.")
        nested |= schema["$defs"]
        for one in model.__mro__:
            if issubclass(one, Settings) and one is not Settings:
                links.setdefault(one.__name__, f"[{title}](#config-{name})")
    for name, schema in sorted(nested.items()):
        parts += _section(name, name, schema)
        links[name] = f"[{name}](#config-{name.lower()})"
    return re.sub(r"`([A-Z]\w+)`", lambda found: links.get(found[1], found[0]), "\n".join(parts))


def _section(
    name: str, title: str, one: dict[str, Any], own: Collection[str] = (), readers: str = ""
) -> list[str]:
    """Section with the keys of a configuration.

    Args:
        name: Name of its anchor.
        title: Heading.
        one: Schema of the configuration.
        own: Keys that come first.
        readers: Sentence that follows the description.
    """
    rows = [f"(config-{name.lower()})=\n## {title}\n", f"{one['description']}{readers}\n"]
    required = one.get("required", [])
    keys = sorted(one["properties"].items(), key=lambda item: item[0] not in own)
    for key, value in keys:
        facts = ["required" if key in required else _default(value.get("default")), _type(value)]
        rows += _entry(f"`{key}`", value["description"], [one for one in facts if one])
    return rows


def _entry(term: str, meaning: str, facts: list[str]) -> list[str]:
    """Entry of a definition list: narrow screens show it as well as wide ones."""
    lines = [meaning] if meaning else []
    if facts:
        lines += ["", f"*{'; '.join(facts)}*"] if meaning else [f"*{'; '.join(facts)}*"]
    first, *rest = lines or [""]
    return [term, f": {first}", *(f"  {line}".rstrip() for line in rest), ""]


def _default(value: Any) -> str:
    if value is None or (isinstance(value, dict) and value):
        return ""
    return f"default `{json.dumps(value, ensure_ascii=False)}`"


def _type(value: dict[str, Any]) -> str:
    """Type of a key in words, with links to the tables of nested keys."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#config-{name.lower()})"
    if "allOf" in value:
        return _type(value["allOf"][0])
    if "anyOf" in value:
        kinds = [_type(one) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"name → {_type(inner)}" if isinstance(inner, dict) else "names → values"
    words = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false"}
    return words.get(kind, str(kind)) + _bounds(value)


def _bounds(value: dict[str, Any]) -> str:
    """Bounds of a number, as "> 0, ≤ 1"."""
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    found = [f"{sign} {value[key]:,}" for key, sign in signs.items() if key in value]
    return f" {', '.join(found)}" if found else ""


def tables_page() -> str:
    """Page of the tables of a study folder."""
    parts = [
        "# Tables of a study\n",
        "Columns of the CSV files of a study folder. Studies with several domains have a first "
        "column `domain`.\n",
    ]
    for name, schema in CSV_FILES.items():
        parts.append(f"## {name}\n")
        for column in schema.columns:
            parts += _entry(f"`{column}`", MEANINGS[column], [])
    return "\n".join(parts)


def guidance_page() -> str:
    """Page of the guidance methods, from their catalogue."""
    parts = [
        "# Guidance methods\n",
        "`preceptor.guidance_method(name, preset)` gives a method, `guided_objective` the loss of "
        "a step with it ([integrations](../../integrations.md#other-guidance-methods)). In the "
        "formulas, a is the map of the model, ã the same scaled to [0, 1], e the evidence of the "
        "cells and e⁺ its positive part, m the human map, m̄ = 1 − m, x the image, x′ the image "
        "changed outside its map, z logits, p probabilities, y the label, A the last features, f "
        "their mean, and sg a constant of the derivative. Means are over cells or pixels. λ is the "
        "published weight of a preset, given where it is meant for the terms as computed here.\n",
        "Left out: RBR (third derivatives), CDEP, IBP-Ex and R4 (bounds or decompositions of each "
        "layer), ISNet (relevance of each layer), and B-cos (its own network).\n",
    ]
    for name, kind in METHODS.items():
        about = catalogue()[name]
        second = ", second derivatives" if about.get("second_order") else ""
        same = "unchanged" if about.get("offset_free") else "changed"
        parts.append(f"## {name}\n\n{about['title']}.\n")
        given = {key: value for key, value in kind().settings().items() if key != "name"}
        settings = ", ".join(f"`{key}={value!r}`" for key, value in given.items())
        for term, meaning in {
            "Terms": about["formula"],
            "Papers": about["papers"],
            "Public code": about["code"],
            "What differs": about["differs"],
            "Passes of a step": f"{about.get('passes', '1')}{second}",
            "The same map added to every class": f"leaves the terms {same}",
            "Settings": settings,
            "Presets": "; ".join(map(_preset, about["presets"], about["presets"].values())),
        }.items():
            parts += _entry(term, meaning, [])
    return "\n".join(parts)


def _preset(name: str, preset: dict[str, Any]) -> str:
    facts = [f"{key} {value}" for key, value in preset["settings"].items()]
    facts += [f"λ {preset['weight']}"] if "weight" in preset else []
    return f"`{name}` ({', '.join([*facts, preset['source']])})"


def commands_page() -> str:
    """Page of all commands with their arguments and options."""
    parts = [
        "# Commands\n",
        "Exit code 0 is success, 1 a failure, 2 invalid input, 130 an interruption, 143 SIGTERM.\n",
    ]
    for names, command in commands():
        whole = " ".join(("preceptor", *names))
        parts.append(f"## {whole}\n")
        parts.append((command.help or "").replace("\f", "").strip() + "\n")
        arguments = [_spelling(one).strip("`") for one in command.params if _is_argument(one)]
        parts.append(f"```text\n{' '.join([whole, '[OPTIONS]', *arguments])}\n```\n")
        for one in command.params:
            if not getattr(one, "hidden", False):
                meaning = (getattr(one, "help", None) or "").replace("<", "&lt;")
                parts += _entry(_spelling(one), meaning, _facts(one))
    return "\n".join(parts)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that do something, by their names."""

    def walk(command: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield names, command
            return
        for name, one in inner.items():
            yield from walk(one, (*names, name))

    yield from walk(typer.main.get_command(app), ())


def _spelling(one: Any) -> str:
    """Names of a parameter."""
    if _is_argument(one):
        return f"`{one.metavar or (one.name or '').upper()}`"
    return ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))


def _facts(one: Any) -> list[str]:
    """Whether a parameter is required, its default and its values."""
    found = ["required"] if one.required and not _is_argument(one) else []
    shown = getattr(one, "show_default", True)
    if isinstance(shown, str):
        found.append(f"default: {shown}")
    elif shown and one.default not in (None, False):
        found.append(f"default `{one.default}`")
    if choices := _choices(one):
        found.append(", ".join(f"`{choice}`" for choice in choices))
    return found


def _choices(one: Any) -> tuple[str, ...]:
    """Values of an option that has few."""
    descriptor = getattr(one, "type_descriptor", None)  # typer with a parser of its own
    if descriptor is None:
        return tuple(str(value) for value in getattr(one.type, "choices", ()))
    kinds = [descriptor.annotation, *get_args(descriptor.annotation)]
    return tuple(
        str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)
    )


def _is_argument(one: Any) -> bool:
    return one.param_type_name == "argument"


def write_llms(out: Path, pages: list[tuple[str, str, str]]) -> None:
    """Write `llms.txt`, the list of pages, and `llms-full.txt`, their text.

    Args:
        out: Folder of the built site.
        pages: Name, title and Markdown of each page.
    """
    lines = ["# preceptor", "", "> Train image classifiers with human guidance on where to look, "
             "and test whether it helps.", "", "## Pages", ""]  # fmt: skip
    lines += [f"- [{title}]({name}.html)" for name, title, _ in pages]
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = "\n\n".join(f"<!-- {name} -->\n\n{text.strip()}" for name, _, text in pages)
    (out / "llms-full.txt").write_text(whole + "\n", encoding="utf-8")
