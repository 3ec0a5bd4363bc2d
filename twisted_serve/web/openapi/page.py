# SPDX-License-Identifier: Apache-2.0
"""
Render the API description as the HTML page ``/docs``, without scripts or external resources.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.template import Tag, flattenString, tags

from twisted_serve.web.http.responses import Body, set_common_headers

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { margin-bottom: 0; }
details { border-top: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary code { font-weight: 600; }
summary b { background: var(--soft); border-radius: .25rem; display: inline-block; font: 600 .8rem/1.5 monospace;
  margin-right: .5rem; padding: 0 .5rem; }
summary span { color: GrayText; display: block; margin-left: 1.2rem; }
table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
td:first-child { font-family: ui-monospace, monospace; width: 12rem; }
td:nth-child(2) { width: 14rem; }
td[colspan] { font-family: inherit; }
p { margin: .3rem 0; }
"""

# The page may use this style and nothing else, so injected content can only be text.
_POLICY = (
    b"default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode()).digest())
    + b"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def answer_page(request: IRequest, page: bytes) -> Body:
    """Serve the page with headers that forbid sniffing and scripts."""
    set_common_headers(request, 200)
    request.setResponseCode(200)
    for name, value in (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(page)),
        (b"Content-Security-Policy", _POLICY),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
    ):
        request.responseHeaders.setRawHeaders(name, [value])
    return page


def page_of(description: Mapping[str, Any]) -> bytes:
    """Return an API description rendered as a page."""
    info = description["info"]
    body = tags.body(
        tags.h1(info["title"]),
        tags.p(info.get("description", ""), " Version ", info["version"], "."),
        tags.p("The same for programs: ", tags.code("OPTIONS /"), "."),
        [
            _operation(path, method, operation)
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
        ],
    )
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width"),
        tags.title(info["title"]),
        tags.style(_STYLE),
    )
    written: list[bytes] = []
    # The template holds no Deferred, so it is flattened synchronously.
    flattenString(None, tags.html(head, body, lang="en")).addCallback(written.append)
    return b"<!DOCTYPE html>\n" + written[0]


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Tag:
    keys = [name for scheme in operation.get("security", ()) for name in scheme]
    needs = f"Needs the {' or '.join(keys)} key." if keys else "Needs no key."
    text = f"{operation['summary']} {needs}" + (" Deprecated." if operation.get("deprecated") else "")
    return tags.details(
        tags.summary(tags.b(method.upper()), tags.code(path), tags.span(text)),
        tags.table(list(_rows(operation))),
    )


def _rows(operation: Mapping[str, Any]) -> Iterator[Tag]:
    parameters = operation["parameters"]
    if parameters:
        yield tags.tr(tags.th("parameter"), tags.th("type"), tags.th("meaning"))
    for parameter in parameters:
        yield tags.tr(tags.td(parameter["name"]), tags.td(_kind(parameter)), tags.td(parameter.get("description", "")))
    if "requestBody" in operation:
        yield tags.tr(tags.th("body"), tags.th("", colspan="2"))
        for media_type in operation["requestBody"]["content"]:
            yield tags.tr(tags.td(media_type, colspan="3"))
    yield tags.tr(tags.th("answer"), tags.th("type"), tags.th("meaning"))
    for code, answer in operation["responses"].items():
        media = ", ".join(answer.get("content", ()))
        yield tags.tr(tags.td(code), tags.td(media), tags.td(answer["description"]))


def _kind(parameter: Mapping[str, Any]) -> str:
    """Return the type of a parameter with its place and default."""
    schema = parameter["schema"]
    parts = [" or ".join(schema["enum"]) if "enum" in schema else schema["type"], f"in the {parameter['in']}"]
    if parameter.get("required") and parameter["in"] == "query":
        parts.append("required")
    if "default" in schema:
        parts.append(f"default {str(schema['default']).lower()}")
    return ", ".join(parts)
