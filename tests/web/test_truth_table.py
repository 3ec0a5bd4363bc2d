# SPDX-License-Identifier: Apache-2.0
"""
Hold what each request needs and gets on each listener against a frozen table, ``truth_table.txt``.

Every listener that the settings can make is asked, in memory and over the real channel, for each path of its API
description and for targets near to them, with each method. For each request the table has

* the keys that open it: the request's head is sent with each of the three keys, and with ``Expect: 100-continue``; who
  is let in is told to continue, and nothing is done;
* the answer without a key, and the answer of a server without tokens;
* the route under which traces have it.

No model is registered, hence the answers tell routes apart, and no answer depends on one before.
``python -m tests.web.test_truth_table`` writes the table anew; read its diff as you would read a change of the gate.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import frozen
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from twisted.trial.unittest import SynchronousTestCase

from tests.web.truth_targets import MADE_UP, NEAR
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import Endpoint, EndpointAnswer
from twisted_serve.interfaces import IAuthorizer
from twisted_serve.testing.server import MemoryServer, Role

TABLE: Final = Path(__file__).with_name("truth_table.txt")

#: Of what the server's routes take, of what they do not, and one that is not in upper case.
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get")
FEW: Final = ("GET", "POST", "OPTIONS")

A, B, C = (f"http://127.0.0.1:{port}" for port in (9080, 9081, 9082))

#: The addresses of inference, management and metrics, for each way to share them; "" is no metrics API. The names have
#: the listeners by their roles: I, M and X (metrics).
LAYOUTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "I,M,X": (A, B, C),
    "IMX": (A, A, A),
    "IM,X": (A, A, B),
    "IX,M": (A, B, A),
    "I,MX": (A, B, B),
    "I,M": (A, B, ""),
    "IM": (A, A, ""),
}
_LETTERS: Final = {"I": Role.INFERENCE, "M": Role.MANAGEMENT, "X": Role.METRICS}

METRICS_TOKEN: Final = Path(tempfile.gettempdir()) / f"metrics_token-{os.getpid()}"

#: Settings and requests' headers that may change what is open; the table has what they change.
EXTRAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "token_exempt_ping=true": {"token_exempt_ping": True},
    "ts_open_inference_protocol=true": {"ts_open_inference_protocol": True},
    "cors_allowed_origin=*, the methods and the headers": {
        "cors_allowed_origin": "*",
        "cors_allowed_methods": "GET, POST, PUT, DELETE, OPTIONS",
        "cors_allowed_headers": "Authorization",
    },
    "metrics_token_file": {"metrics_token_file": METRICS_TOKEN},
    "enable_model_api=false": {"enable_model_api": False},
    "endpoints of plug-ins": {},
}
EXTRA_LAYOUTS: Final = ("I,M,X", "IMX")

#: What a browser sends besides.
SPECIAL: Final[Mapping[str, tuple[str, str]]] = {
    "preflight": ("OPTIONS", "Origin: http://else.where\r\nAccess-Control-Request-Method: POST\r\n"),
    "browser": ("GET", "Accept: text/html\r\n"),
}

#: For which servers browsers are tried: as it is, and with what concerns them.
AS_BROWSERS: Final = (None, *(extra for extra in EXTRAS if extra.startswith("cors")))

_FILLED: Final = {
    "{model_name}": "m",
    "{model_version}": "1.0",
    "{workflow_name}": "w",
    "{url_path}": "rest",
    "{key_name}": "k",
    "{model}": "m",
}


@frozen
class Listener:
    """
    A listener of a layout.

    :ivar roles: The letters of its roles.
    """

    layout: str
    roles: str

    @property
    def role(self) -> Role:
        """One of its roles."""
        return _LETTERS[self.roles[0]]


def listeners_of(layout: str) -> list[Listener]:
    """Return the listeners of a layout."""
    return [Listener(layout, roles) for roles in layout.split(",")]


def serve(
    layout: str,
    extra: str | None = None,
    tokens: bool = True,
    span_exporter: Any = None,
    authorizer: IAuthorizer | None = None,
    **settings: Any,
) -> MemoryServer:
    """Start a server without models."""
    inference, management, metrics = LAYOUTS[layout]
    options: dict[str, Any] = {
        "inference_address": inference,
        "management_address": management,
        "enable_metrics_api": bool(metrics),
        "disable_token_authorization": not tokens,
        "token_refusal_status": 401,
        **({"metrics_address": metrics} if metrics else {}),
        **(EXTRAS[extra] if extra is not None else {}),
    }
    endpoints: Sequence[Endpoint] = ()
    if extra == "endpoints of plug-ins":
        endpoints = (
            Endpoint("plugged", "inference", lambda _request, _context: EndpointAnswer(b"")),
            Endpoint("managed", "management", lambda _request, _context: EndpointAnswer(b"")),
        )
    return MemoryServer(
        {**options, **settings},
        endpoints=endpoints,
        span_exporter=span_exporter,
        dependencies={"authorizer": authorizer},
    )


def some_targets() -> list[str]:
    """Return the described paths of all listeners, with their parameters filled in, and targets near to them."""
    described: set[str] = set()
    for layout in ("I,M,X", "IMX"):
        with serve(layout, "ts_open_inference_protocol=true") as server:
            for listener in listeners_of(layout):
                answer = ask(server, listener, request("OPTIONS", "/"))
                described |= json.loads(answer.partition(b"\r\n\r\n")[2])["paths"].keys()
    filled = set()
    for path in described:
        for name, value in _FILLED.items():
            path = path.replace(name, value)  # noqa: PLW2901
        if "{" in path:
            raise AssertionError(f"no value is known for a parameter of {path}")
        filled.add(path)
    return sorted({*filled, *NEAR})


def all_targets() -> list[str]:
    """Return more targets: the described paths with one more slash, and made-up ones."""
    some = some_targets()
    return sorted({*some, *(f"{target}/" for target in some if target not in NEAR), *MADE_UP})


def request(method: str, target: str, headers: str = "") -> bytes:
    """Write a request."""
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode("latin-1")


def ask(server: MemoryServer, listener: Listener, sent: bytes) -> bytes:
    """Send bytes on a connection that is closed then; return what was received."""
    connection = server.connect(listener.role)
    received = connection.send(sent)
    connection.leave()
    return received


def said(answer: bytes) -> str:
    """Return the status of an answer and, of an error, its type without the ending that all of them have."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode() if head else "nothing"
    if b"\r\nWWW-Authenticate: " in head:
        # RFC 6750 has this header on each answer to a request that lacks its key, and only there.
        return f"refused with {status}"
    if status >= "400" and body.startswith(b"{"):
        kind = json.loads(body).get("type", "")
        return f"{status} {kind.removesuffix('Exception')}"
    return status


def alike(value: str) -> str:
    """Leave the types of errors out, which answers to HEAD lack."""
    return re.sub(r"\b([45]\d\d) [A-Za-z]+", r"\1", value)


def keys_of(server: MemoryServer, listener: Listener, method: str, target: str, headers: str = "") -> str:
    """Return the names of the keys that open a request, or what is answered whatever the key is."""
    opens, others = [], set()
    for kind in TokenKind:
        bearer = f"{headers}Authorization: Bearer {server.key(kind)}\r\nContent-Length: 1\r\nExpect: 100-continue\r\n"
        answer = said(ask(server, listener, request(method, target, bearer)))
        if answer == "100":
            opens.append(kind.value)
        elif not answer.startswith("refused"):
            others.add(answer)
    if len(opens) == len(TokenKind):
        return "open"
    return " or ".join([*opens, *(f"says {answer}" for answer in sorted(others))]) or "NO KEY"


def trace_names(listener: Listener, methods: Sequence[str], every: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the routes of the traces that a listener makes, by method and target."""
    names: dict[tuple[str, str], str] = {}
    for method in methods:
        # One server for each method: no more spans than wait to be sent without loss.
        exporter = InMemorySpanExporter()
        with serve(listener.layout, tokens=False, span_exporter=exporter, tracing=True) as server:
            for i, target in enumerate(every):
                parent = f"traceparent: 00-{i + 1:032x}-00f067aa0ba902b7-01\r\n"
                ask(server, listener, request(method, target, parent))
        for span in exporter.get_finished_spans():
            # "GET /predictions/{model}"; the spans in it are stages.
            route = span.name.partition(" ")[2]
            if route.startswith("/"):
                names[method, every[span.context.trace_id - 1]] = route
    return names


#: What the table has: a value for each listener, target and method.
Values: TypeAlias = "dict[tuple[Listener, str, str], str]"


def base_values(every: Sequence[str]) -> Values:
    """
    Ask every listener of every layout.

    Of listeners with the same roles the first one is asked with all methods, the others with a few: one that differs
    from the first in none of these is taken to be like it.
    """
    values: Values = {}
    firsts: dict[tuple[str, bool], Listener] = {}
    for layout in LAYOUTS:
        for listener in listeners_of(layout):
            # Metrics at an address apart are behind the management key of a shared listener, too.
            first = firsts.setdefault((listener.roles, "X" in layout or listener.roles != "IM"), listener)
            methods = METHODS if first is listener else FEW
            asked = listener_values(listener, methods, every)
            if first is not listener and all(
                values[first, target, method] == value for (target, method), value in asked.items()
            ):
                asked = {(target, method): values[first, target, method] for target in every for method in METHODS}
            values |= {(listener, target, method): value for (target, method), value in asked.items()}
    return values


def listener_values(listener: Listener, methods: Sequence[str], every: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return what a listener says to each target and method, with tokens and without."""
    values: dict[tuple[str, str], str] = {}
    traces = trace_names(listener, methods, every)
    with serve(listener.layout) as guarded, serve(listener.layout, tokens=False) as unguarded:
        for target in every:
            for method in methods:
                off = said(ask(unguarded, listener, request(method, target)))
                value = f"{value_of(guarded, listener, method, target)}, no tokens {off}"
                if (method, target) in traces:
                    value += f", traced as {traces[method, target]}"
                if method == "HEAD" and alike(values[target, "GET"]) == value:
                    value = values[target, "GET"]
                values[target, method] = value
    return values


def value_of(server: MemoryServer, listener: Listener, method: str, target: str, headers: str = "") -> str:
    """Return which keys open a request, and what is answered without a key."""
    answer = said(ask(server, listener, request(method, target, headers)))
    if "refused" not in answer and not headers:
        return f"open, no key {answer}"
    return f"{keys_of(server, listener, method, target, headers)}, no key {answer}"


def extra_values(extra: str | None, every: Sequence[str]) -> Values:
    """Ask listeners of a server with an extra, with some methods and as browsers ask."""
    values: Values = {}
    for layout in EXTRA_LAYOUTS:
        with serve(layout, extra) as server:
            for listener in listeners_of(layout):
                for target in every:
                    for method in FEW:
                        values[listener, target, method] = value_of(server, listener, method, target)
                    for name, (method, headers) in SPECIAL.items() if extra in AS_BROWSERS else ():
                        values[listener, target, name] = value_of(server, listener, method, target, headers)
    return values


def render(values: Values) -> list[str]:
    """Write values: targets with the same ones together, listeners with the same ones together, methods likewise."""
    listeners = list(dict.fromkeys(listener for listener, _target, _method in values))
    blocks: dict[tuple[str, ...], list[str]] = {}
    by_target: dict[str, dict[Listener, dict[str, str]]] = {}
    for (listener, target, method), value in values.items():
        by_target.setdefault(target, {}).setdefault(listener, {})[method] = value
    for target, by_listener in by_target.items():
        rows: dict[tuple[tuple[str, str], ...], list[Listener]] = {}
        for listener, methods in by_listener.items():
            rows.setdefault(tuple(methods.items()), []).append(listener)
        block = [f"  {_name(group, listeners)}: {_methods(dict(row))}" for row, group in rows.items()]
        blocks.setdefault(tuple(block), []).append(target)
    lines: list[str] = []
    for block_lines, group in blocks.items():
        lines += [*map(_shown, group), *block_lines, ""]
    return lines


def _name(group: Sequence[Listener], every: Sequence[Listener]) -> str:
    """Name listeners: by their roles, and by their layouts where these matter."""
    names = []
    for roles in dict.fromkeys(listener.roles for listener in group):
        here = [listener.layout for listener in group if listener.roles == roles]
        whole = here == [listener.layout for listener in every if listener.roles == roles]
        names.append(roles if whole else f"{roles} (of {' and '.join(here)})")
    return " ".join(names)


def _methods(row: Mapping[str, str]) -> str:
    """Write the values of methods, the commonest as that of all others."""
    by_value: dict[str, list[str]] = {}
    for method, value in row.items():
        by_value.setdefault(value, []).append(method)
    common = max(by_value, key=lambda value: len(by_value[value]))
    rest = [f"{' '.join(methods)}: {value}" for value, methods in by_value.items() if value != common]
    return "; ".join([*rest, f"{'others' if rest else 'all'}: {common}"])


def _shown(target: str) -> str:
    """Write a target on a line: a very long one by its beginning and its length."""
    return f"[{target}]" if len(target) < 200 else f"[{target[:20]}... of {len(target)} characters]"


def make_table() -> str:
    """Ask, and write the whole table."""
    METRICS_TOKEN.write_text("a" * 40 + "\n")
    METRICS_TOKEN.chmod(0o600)
    try:
        some, every = some_targets(), all_targets()
        lines = ["# Written by `python -m tests.web.test_truth_table`, which explains it.", "", "== Every layout", ""]
        lines += render(base_values(every))
        plain = extra_values(None, some)
        browsers = {key: value for key, value in plain.items() if key[2] in SPECIAL}
        lines += ["== As browsers ask", "", *render(browsers)]
        for extra in EXTRAS:
            values = extra_values(extra, some)
            changed = {key: f"{value} (was: {plain[key]})" for key, value in values.items() if value != plain[key]}
            lines += [f"== What changes with {extra}", "", *render(changed)]
        return "\n".join(lines)
    finally:
        METRICS_TOKEN.unlink()


class TruthTableTests(SynchronousTestCase):
    """The table is the one that was reviewed."""

    def test_table(self) -> None:
        """No key opens, and no answer or name of a trace is, but as the table has it."""
        made = make_table().splitlines()
        frozen_table = TABLE.read_text("utf-8").splitlines()
        difference = list(difflib.unified_diff(frozen_table, made, "truth_table.txt", "this server", lineterm="", n=1))
        if difference:
            self.fail("\n".join([*difference[:200], f"({len(difference)} lines of difference)"]))


if __name__ == "__main__":
    TABLE.write_text(make_table(), "utf-8")
