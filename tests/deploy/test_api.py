"""The OpenAPI document against real answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.serving import Running, Told
from tests.image_files import ImageFiles


def schema_of(document: Any, told: Told, path: str, method: str = "get") -> dict[str, Any]:
    """Schema of an answer; the document must know its status."""
    content = document["paths"][path][method]["responses"][str(told.status)]["content"]
    found: dict[str, Any] = content["application/json"]["schema"]
    return found | {"components": document["components"]}


def test_answers_are_those_of_the_document(server: Running, pictures: ImageFiles) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the other side")
    document = server.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    good = pictures.good[0].read_bytes()
    for path in ("/models", "/healthz", "/readyz"):
        told = server.get(path)
        jsonschema.validate(told.json, schema_of(document, told, path))
    for query in ("", "?map=grid", "?map=image", "?map=png", "?model=three", "?map=x", "?model=x"):
        told = server.post(good, query=query)
        jsonschema.validate(told.json, schema_of(document, told, "/predict", "post"))
    for body, kind in ((b"", "image/png"), (b"{", "application/json"), (b"x", "text/plain")):
        told = server.post(body, kind)
        assert told.status >= 400
        jsonschema.validate(told.json, schema_of(document, told, "/predict", "post"))


def test_all_references_lead_somewhere_and_all_objects_are_closed(server: Running) -> None:
    document = server.get("/openapi.json").json
    schemas = document["components"]["schemas"]

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [one for part in value.values() for one in references(part)]
        return (
            [one for part in value for one in references(part)] if isinstance(value, list) else []
        )

    assert {one.rpartition("/")[2] for one in references(document)} == set(schemas)
    assert all(one["additionalProperties"] is False for one in schemas.values())
    names = [one["name"] for one in document["paths"]["/predict"]["post"]["parameters"]]
    assert names == ["model", "map", "threshold"]
