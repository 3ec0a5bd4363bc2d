# SPDX-License-Identifier: Apache-2.0
"""
Make Klein applications with exact routes.

Import this module in functions only: it imports Klein, and that installs the default reactor unless there is one.
Everywhere else Klein is named in annotations, and imported for type checkers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klein import Klein
from klein.interfaces import IKleinRequest
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.routing import BaseConverter, Map, MapAdapter, PathConverter

from twisted_serve.web.http.responses import answer_failure


class RestConverter(PathConverter):
    """The rest of a path, empty segments at its beginning included."""

    regex = ".+?"
    part_isolating = False


class UnmarkedConverter(BaseConverter):
    """A segment without a colon, after which KServe's version 1 has a verb."""

    regex = "[^/:]+"


class ExactMap(Map):
    """Routes that know ``GET`` from ``get``: methods are case-sensitive (RFC 9110 §9.1), and werkzeug forgets that."""

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
        """Bind to a request; a method that is not in upper case matches no route that names its methods."""
        method = default_method if default_method.isupper() else f"-{default_method}"
        return super().bind(server_name, script_name, subdomain, url_scheme, method, path_info, query_args)


class ExactApp(Klein):
    """A Klein application with such routes."""

    def __init__(self) -> None:
        super().__init__()
        self._url_map = ExactMap()


def new_app() -> Klein:
    """Make a Klein application on which every error becomes an answer."""
    app = ExactApp()
    # Paths are what the gate has read, and are not to be improved upon by redirects.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters = {**app.url_map.converters, "rest": RestConverter, "unmarked": UnmarkedConverter}

    app.handle_errors(_answer_failure)
    return app


def _answer_failure(request: Any, failure: Failure) -> bytes:
    return answer_failure(request, failure, _methods_of_path)


def _methods_of_path(request: IRequest) -> frozenset[str]:
    """Return the methods that the routes of a request's path have, none if no route was looked for."""
    mapper = getattr(IKleinRequest(request), "mapper", None)
    return frozenset() if mapper is None else frozenset(mapper.allowed_methods())
