"""The OpenAPI 3.1 document, built from the routes and the models they name; nothing is written twice."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import tidings
from tidings.protocol.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    InvalidInput,
    Problem,
    StoreUnavailable,
    TidingsError,
    TokenExpired,
    Unauthenticated,
)

from .api.route import Answer, HeaderField, NoQuery, Route
from .problems import PROBLEM_JSON

__all__ = ["build_openapi"]

_REF: Final = "#/components/schemas/{model}"
_PARAMETER: Final = re.compile(r"(\w+)/\{(\w+)\}")
_PATH_EXAMPLES: Final = {
    "jobs": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0",
    "files": "01JD8Z5T6N8Q4W3E2R1T0Y9V8K",
    "dead": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0",
    "queues": "reports",
    "schedules": "nightly-report",
}
_TAGS: Final = {
    "jobs": "Submit, watch and end jobs.",
    "feeds": "Follow all jobs of an owner, an org or the installation.",
    "catalogue": "What there is to submit, and what the caller has.",
    "files": "Input and output of jobs.",
    "admin": "For operators: tokens with the scope `admin`.",
    "health": "For orchestrators and operators.",
}
_DESCRIPTION: Final = """\
Background jobs that every browser and Python client can follow live.

Owner and org come from the token. What belongs to somebody else answers 404, as if it did not exist. A position,
`<epoch>:<seq>`, is opaque, and resumes a job's events on any transport. Every error is an RFC 9457 problem document whose
`code` is a stable word. Socket.IO is served at `/socket.io`."""

Key = tuple[type[BaseModel], JsonSchemaMode]


def build_openapi(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document that describes ``routes``, JSON-ready."""
    keys = sorted(set(_models(routes)), key=lambda key: (key[0].__name__, key[1]))
    refs, definitions = models_json_schema(keys, ref_template=_REF)
    schemas = definitions["$defs"]
    queries = {route.query: schemas[route.query.__name__] for route in routes}
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = _operation(route, refs, queries[route.query])
    for query in queries:
        schemas.pop(query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidings",
            "version": tidings.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"bearer": []}],
        "paths": dict(paths),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "HS256; `exp`, `iat` and `sub` are required, `org` and `scope` optional.",
                }
            },
        },
    }


def _models(routes: Iterable[Route]) -> Iterator[Key]:
    yield Problem, "serialization"
    for route in routes:
        yield route.query, "validation"
        if route.body is not None:
            yield route.body, "validation"
        for answer in route.answers:
            if _is_model(answer.model):
                yield answer.model, "serialization"


def _is_model(model: Any) -> bool:
    """Whether it is a model of ours; ``Any`` stands for JSON of any shape, and is a class too since Python 3.11."""
    return isinstance(model, type) and issubclass(model, BaseModel)


def _operation(route: Route, refs: dict[Any, Any], query: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, dict[str, Any]] = {}
    for answer in route.answers:
        described = _answer(answer, refs)
        known = responses.setdefault(str(answer.status), described)
        # One status in several media types: one response.
        if "content" in described:
            known["content"] = known["content"] | described["content"]
    for status, errors in _errors_of(route).items():
        # A health answer at 503 says more than a problem would.
        responses.setdefault(str(status), _problem(status, errors, refs))
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(query), *_header_parameters(route)],
        "responses": dict(sorted(responses.items())),
    }
    if route.description:
        operation["description"] = route.description
    if route.is_public:
        operation["security"] = []
    if body := _body(route, refs):
        operation["requestBody"] = body
    return operation


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for kind, name in _PARAMETER.findall(route.path):
        example = _PATH_EXAMPLES[kind]
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}


def _query_parameters(query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, schema in query.get("properties", {}).items():
        schema = {key: value for key, value in schema.items() if key != "title"}
        parameter = {"name": name, "in": "query", "required": name in query.get("required", ())}
        if description := schema.pop("description", None):
            parameter["description"] = description
        yield parameter | {"schema": schema}


def _header_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for header in route.headers:
        yield {"name": header.name, "in": "header", "required": False, **_header(header)}


def _header(header: HeaderField) -> dict[str, Any]:
    return {"description": header.description, "schema": dict(header.schema)}


def _body(route: Route, refs: dict[Any, Any]) -> dict[str, Any]:
    if route.body is None and route.body_schema is None:
        return {}
    schema = refs[route.body, "validation"] if route.body is not None else dict(route.body_schema or {})
    content: dict[str, Any] = {"schema": schema}
    if route.body_example is not None:
        content["example"] = route.body_example
    return {"required": route.body_required, "content": {route.body_media_type: content}}


def _answer(answer: Answer, refs: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": answer.description,
        "headers": _answer_headers(answer.headers),
    }
    if answer.model is None and answer.media_type == "application/json":
        return described
    schema = refs[answer.model, "serialization"] if _is_model(answer.model) else {}
    content: dict[str, Any] = {"schema": schema}
    if answer.example is not None:
        content["example"] = answer.example
    return described | {"content": {answer.media_type: content}}


def _answer_headers(headers: Iterable[HeaderField]) -> dict[str, Any]:
    request_id = HeaderField("X-Request-ID", "The request's id: its own where it was well-formed.")
    return {header.name: _header(header) for header in (request_id, *headers)}


def _errors_of(route: Route) -> dict[int, list[type[TidingsError]]]:
    errors: list[type[TidingsError]] = [*route.errors, BadRequest, InternalError, StoreUnavailable]
    if not route.is_public:
        errors += [Unauthenticated, TokenExpired]
    if route.is_admins:
        errors.append(Forbidden)
    if route.query is not NoQuery or not route.is_public:
        errors.append(InvalidInput)
    found: dict[int, list[type[TidingsError]]] = defaultdict(list)
    for error in dict.fromkeys(errors):
        found[error.status].append(error)
    return found


def _problem(status: int, errors: Sequence[type[TidingsError]], refs: dict[Any, Any]) -> dict[str, Any]:
    codes = ", ".join(f"`{error.code}`" for error in errors)
    headers: list[HeaderField] = []
    if any(error.temporary for error in errors):
        headers.append(HeaderField("Retry-After", "Seconds to wait.", {"type": "integer"}))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(HeaderField("WWW-Authenticate", "What is wrong with the token (RFC 6750)."))
    return {
        "description": f"{HTTPStatus(status).phrase}: {codes}.",
        "headers": _answer_headers(headers),
        "content": {
            PROBLEM_JSON: {
                "schema": refs[Problem, "serialization"],
                "examples": {
                    error.code: {"value": error().to_problem("9f86d081884c7d65")} for error in errors
                },
            }
        },
    }
