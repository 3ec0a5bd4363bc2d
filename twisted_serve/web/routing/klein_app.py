# SPDX-License-Identifier: Apache-2.0
"""
Make the Klein applications of a listener, with exact routes.

The rules of a listener are the same in each server of a process and are compiled once; a server binds its endpoints to
them.

Import this module inside functions only: it imports Klein, which installs the default reactor if none is installed.
All other modules name Klein only in annotations and import it for type checkers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from klein import Klein
from klein.interfaces import IKleinRequest
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.routing import BaseConverter, Map, MapAdapter, PathConverter

from twisted_serve.auth.scopes import Scope
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import MethodNotAllowed
from twisted_serve.web.api.route import Route, Surface
from twisted_serve.web.api.surface import served_routes
from twisted_serve.web.http.responses import Body, answer_failure
from twisted_serve.web.routing.binding import Endpoints, rules_of
from twisted_serve.web.routing.browsers import answer_way_to_docs, is_browser_at_root

# How many listeners are kept: those of a server, and of others in the same process.
_LISTENERS = 16


class RestConverter(PathConverter):
    """The rest of a path, including leading empty segments."""

    regex = ".+?"
    part_isolating = False


class UnmarkedConverter(BaseConverter):
    """A segment without a colon, which separates the verb in KServe's version 1."""

    regex = "[^/:]+"


class AnyCaseConverter(BaseConverter):
    """A word in upper and lower case; tried before the names that any path may begin with."""

    weight = BaseConverter.weight - 1

    def __init__(self, url_map: Map, word: str) -> None:
        super().__init__(url_map)
        self.regex = f"(?i:{re.escape(word)})"


class ExactMap(Map):
    """Routes with case-sensitive methods (RFC 9110 §9.1); werkzeug ignores case."""

    def bind(
        self,
        server_name: str,
        script_name: str | None = None,
        subdomain: str | None = None,
        url_scheme: str = "http",
        default_method: str = "GET",
        path_info: str | None = None,
        query_args: Mapping[str, Any] | str | None = None,
    ) -> MapAdapter:
        """Bind to a request; a method not in upper case matches no route that lists its methods."""
        method = default_method if default_method.isupper() else f"-{default_method}"
        return super().bind(server_name, script_name, subdomain, url_scheme, method, path_info, query_args)


class _Server:
    """The object whose methods the functions of an application are."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    def answer_failure(self, request: Any, failure: Failure) -> bytes:
        """Answer a request whose endpoint has failed, or that has none."""
        return answer_failure(request, failure, _methods_of_path)


class ExactApp(Klein):
    """A Klein application with case-sensitive methods, whose endpoints a server binds to it."""

    def __init__(self) -> None:
        super().__init__()
        self._url_map = ExactMap()

    def bound_to(self, endpoints: Endpoints) -> Klein:
        """Return the application with these endpoints; it shares the rules."""
        return self.__get__(_Server(endpoints), _Server)


@lru_cache(_LISTENERS)
def apps_of(surface: Surface) -> Mapping[Scope | None, ExactApp]:
    """Return the application of each scope of a listener; ``None`` stands for the public one."""
    apps: dict[Scope | None, ExactApp] = {scope: new_app() for scope in (None, *TokenKind)}
    add_rules(apps, served_routes(surface))
    for scope in (TokenKind.INFERENCE, TokenKind.MANAGEMENT):
        apps[scope].route("/")(_root)
    return apps


def add_rules(apps: Mapping[Scope | None, Klein], routes: Iterable[Route]) -> None:
    """Add the rules of routes to the application of the scope that each needs."""
    for route in routes:
        if route.bound:
            app, endpoint = apps[route.scope], route.operation_id
            methods = None if route.any_method else [route.method.upper()]
            for rule in rules_of(route):
                app.route(rule, methods=methods, endpoint=endpoint)(_caller(endpoint))
            if not route.head:
                _forbid_head(app, endpoint)


def _caller(operation_id: str) -> Callable[..., Any]:
    def call(server: _Server, request: IRequest, **segments: str) -> Any:
        return server.endpoints[operation_id](request, **segments)

    return call


def _root(_server: _Server, request: IRequest) -> Body:
    """Redirect browsers to ``/docs``, and allow no method but ``OPTIONS``, which is public."""
    if is_browser_at_root(request):
        return answer_way_to_docs(request)
    raise MethodNotAllowed(("OPTIONS",))


def _forbid_head(app: Klein, endpoint: str) -> None:
    """Remove HEAD, which werkzeug adds to GET."""
    for rule in app.url_map.iter_rules(endpoint):
        if rule.methods is not None:
            rule.methods.discard("HEAD")


def new_app() -> ExactApp:
    """Return an application that renders every error as a response."""
    app = ExactApp()
    # The path was authorized as it is, and must not be normalized or redirected.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters = {
        **app.url_map.converters,
        "any_case": AnyCaseConverter,
        "rest": RestConverter,
        "unmarked": UnmarkedConverter,
    }

    app.handle_errors(_Server.answer_failure)
    return app


def _methods_of_path(request: IRequest) -> frozenset[str]:
    """Return the methods of the routes that match a request's path; none if no routing took place."""
    mapper = getattr(IKleinRequest(request), "mapper", None)
    return frozenset() if mapper is None else frozenset(mapper.allowed_methods())
