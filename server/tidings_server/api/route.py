"""A route: a handler together with everything the OpenAPI document says of it, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict

from tidings.protocol.errors import Forbidden, TidingsError

from ..auth import ADMIN, Identity, bearer_token
from ..context import AUTHENTICATOR
from .query import parse_query

__all__ = ["Answer", "HeaderField", "NoQuery", "Route", "add_routes", "identity_of", "query_of"]

Q = TypeVar("Q", bound=BaseModel)

_IDENTITY: Final = web.RequestKey("identity", Identity)
_QUERY: Final = web.RequestKey("query", BaseModel)


class NoQuery(BaseModel):
    """A query without parameters."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A header of a request or an answer."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One way in which a route succeeds. ``model`` is None for an answer without JSON."""

    status: int = 200
    description: str
    model: Any = None
    media_type: str = "application/json"
    headers: tuple[HeaderField, ...] = ()
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call. ``name`` is its operation id. ``errors`` are those of its own; every route may answer the common ones.

    ``body_schema`` describes a body that is no JSON. A route that is not public has its token verified before the handler runs, and any route its
    query; ``is_admins`` asks for the scope `admin` besides.
    """

    method: str
    path: str
    name: str
    handle: Handler
    summary: str
    description: str = ""
    tag: str
    answers: tuple[Answer, ...]
    errors: tuple[type[TidingsError], ...] = ()
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    body_schema: Mapping[str, Any] | None = None
    body_required: bool = True
    body_media_type: str = "application/json"
    body_example: Any = None
    headers: tuple[HeaderField, ...] = ()
    is_public: bool = False
    is_admins: bool = False


def add_routes(app: web.Application, routes: tuple[Route, ...]) -> None:
    """Register the routes with their checks in front. Whatever answers GET answers HEAD (RFC 9110 §9.1)."""
    for route in routes:
        handle = _guard(route)
        app.router.add_route(route.method, route.path, handle, name=route.name)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, handle)


def identity_of(request: web.Request) -> Identity:
    """Return the verified caller of a route that is not public."""
    return request[_IDENTITY]


def query_of(request: web.Request, model: type[Q]) -> Q:
    """Return the validated query of the request's route, whose model is ``model``."""
    query = request[_QUERY]
    assert isinstance(query, model), f"the route's query is {type(query).__name__}, not {model.__name__}"
    return query


def _guard(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not route.is_public:
            token = bearer_token(request.headers.getall("Authorization", []))
            caller = request.app[AUTHENTICATOR].verify(token)
            if route.is_admins and ADMIN not in caller.scopes:
                raise Forbidden("this is for tokens with the scope `admin`")
            request[_IDENTITY] = caller
        request[_QUERY] = parse_query(request.query, route.query)
        return await route.handle(request)

    return handle
