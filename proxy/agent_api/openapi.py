"""The agent-facing API as a document: OpenAPI 3.1, made of the routes alone."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from proxy.agent_api.asked import JSON, PROBLEM
from proxy.agent_api.refused import ApiProblem, OAuthProblem

_REF = "#/components/schemas/{name}"
_INFO = {
    "title": "sallyport.internal",
    "version": "1",
    "description": (
        "What an agent may ask of Sallyport: attestation, capability tokens, heartbeats. The same"
        " at http://sallyport.internal/ through the proxy, at the DoH listener and on the control"
        " API."
    ),
}
_SERVERS = [
    {"url": "http://sallyport.internal", "description": "through the proxy"},
    {"url": "https://127.0.0.1:8443", "description": "the DoH listener"},
]


class Described(Protocol):
    """What of a route is told: see `proxy.agent_api.api.Route`."""

    @property
    def method(self) -> str:
        """In capitals."""

    @property
    def path(self) -> str:
        """Without parameters."""

    @property
    def summary(self) -> str:
        """One line."""

    @property
    def takes(self) -> type | None:
        """The request's content."""

    @property
    def gives(self) -> type | None:
        """The content of a 200."""

    @property
    def form(self) -> bool:
        """Whether it is an endpoint of OAuth, which takes a form."""

    @property
    def media_type(self) -> str:
        """Of the request's content."""


def document(routes: Sequence[Described]) -> bytes:
    """Return the document, as JSON; the same octets for the same routes in whatever order."""
    told = sorted(routes, key=lambda each: (each.path, each.method))
    kinds = [kind for each in told for kind in (each.takes, each.gives) if kind is not None]
    unique = list(dict.fromkeys([*kinds, ApiProblem, OAuthProblem]))
    found, components = msgspec.json.schema_components(unique, ref_template=_REF)
    schemas = dict(zip(unique, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in told:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    whole = {
        "openapi": "3.1.1",
        "info": _INFO,
        "servers": _SERVERS,
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _operation(route: Described, schemas: dict[type, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary}
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {route.media_type: {"schema": schemas[route.takes]}},
        }
    done: dict[str, Any] = {"description": "done"}
    if route.gives is not None:
        done["content"] = {JSON: {"schema": schemas[route.gives]}}
    problem = {PROBLEM: {"schema": schemas[ApiProblem]}}
    refused = {**problem, JSON: {"schema": schemas[OAuthProblem]}} if route.form else problem
    operation["responses"] = {
        "200": done,
        "4XX": {"description": "refused", "content": refused},
        "5XX": {"description": "failed", "content": problem},
    }
    return operation
