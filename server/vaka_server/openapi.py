"""The description of the API in OpenAPI 3.1, made from the routes that are served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from pydantic.json_schema import models_json_schema

from vaka_server import problems, schemas
from vaka_server.access import Access
from vaka_server.route import Route

_VARIABLE = re.compile(r"<(?:(\w+):)?(\w+)>")
_RIGHTS = {
    Access.PUBLIC: "Needs no token.",
    Access.READ: "Needs a token.",
    Access.RUN: "Needs a token that may run jobs.",
    Access.ADMIN: "Needs a token that may change the project.",
    Access.MASTER: "Needs a master token of the project.",
}
_FAILURES = {
    "runner": "RunnerError",
    "storage": "StorageError",
    "service": "ServiceError",
    "blob": "application/xml",
}


def describe(views: Iterable[object], base: str) -> dict[str, Any]:
    """The document for all `Route`s among `views`."""
    routes = [view for view in views if isinstance(view, Route)]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _VARIABLE.sub(r"{\2}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vaka",
            "version": metadata.version("vaka"),
            "description": "Runs container images as data workers.",
        },
        "servers": [{"url": base}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-StorageApi-Token"}
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    words = re.findall(r"[A-Za-z0-9]+", route.rule)
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": route.summary,
        "description": _RIGHTS[route.access],
        "tags": [words[0] if words else "service"],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route),
        "security": [] if route.access is Access.PUBLIC else [{"token": []}],
    }
    if route.body is not None:
        operation["requestBody"] = {"content": _content(route.body)}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if kind == "int" else "string"},
        }
        for kind, name in _VARIABLE.findall(route.rule)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "description": text,
            "schema": (
                {"type": "array", "items": {"type": "string"}}
                if name.endswith("[]")
                else {"type": "string"}
            ),
        }
        for name, text in route.query.items()
    ]


def _responses(route: Route) -> dict[str, Any]:
    dialect = route.dialect or problems.path_dialect(route.rule)
    content = _content(_FAILURES[dialect])
    if dialect == "blob":  # a name that no path can have does not reach the protocol
        content |= _content("StorageError")
    answers: dict[str, Any] = {
        "default": {"description": "The request failed.", "content": content}
    }
    if route.status < 400:
        done: dict[str, Any] = {"description": "Done."}
        if route.answer is not None:
            done["content"] = _content(route.answer)
        answers = {str(route.status): done, **answers}
        if "async" in route.query:
            later = {"description": "Will be done.", "content": _content("StorageJob")}
            answers = {"202": later, **answers}
    return answers


def _content(name: str) -> dict[str, Any]:
    """A media type, or JSON of a named schema."""
    if "/" in name:
        return {name: {"schema": {} if name == "application/json" else {"type": "string"}}}
    reference = {"$ref": f"#/components/schemas/{name.removesuffix('[]')}"}
    schema = {"type": "array", "items": reference} if name.endswith("[]") else reference
    return {"application/json": {"schema": schema}}


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    names = {name for name in _FAILURES.values() if "/" not in name}
    for route in routes:
        names |= {
            name.removesuffix("[]")
            for name in (route.body, route.answer)
            if name is not None and "/" not in name
        }
    _, document = models_json_schema(
        [(getattr(schemas, name), "validation") for name in sorted(names)],
        ref_template="#/components/schemas/{model}",
    )
    definitions: dict[str, Any] = document["$defs"]
    return definitions
