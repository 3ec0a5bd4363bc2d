# SPDX-License-Identifier: Apache-2.0
"""
Make Klein applications with exact routes.

Import this module inside functions only: it imports Klein, which installs the default reactor if none is installed.
All other modules name Klein only in annotations and import it for type checkers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from klein import Klein
from klein.interfaces import IKleinRequest
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.routing import BaseConverter, Map, MapAdapter, PathConverter

from twisted_serve.web.http.responses import answer_failure


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


class ExactApp(Klein):
    """A Klein application with case-sensitive methods."""

    def __init__(self) -> None:
        super().__init__()
        self._url_map = ExactMap()


def new_app() -> Klein:
    """Return a Klein application that renders every error as a response."""
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

    app.handle_errors(_answer_failure)
    return app


def _answer_failure(request: Any, failure: Failure) -> bytes:
    return answer_failure(request, failure, _methods_of_path)


def _methods_of_path(request: IRequest) -> frozenset[str]:
    """Return the methods of the routes that match a request's path; none if no routing took place."""
    mapper = getattr(IKleinRequest(request), "mapper", None)
    return frozenset() if mapper is None else frozenset(mapper.allowed_methods())
