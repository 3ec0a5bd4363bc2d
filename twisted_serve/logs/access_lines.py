# SPDX-License-Identifier: Apache-2.0
"""
Render the lines of the access log, of many requests at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, overload

from attrs import frozen
from twisted.logger import LogEvent, LogLevel

from twisted_serve.logs.characters import printable
from twisted_serve.logs.events import ACCESS_LOG, READY, RenderedLines

#: One request: the time of its end in seconds since the epoch, what replaces the keys in its target, and what
#: `AccessLog.add` is called with.
Request: TypeAlias = tuple[
    float,
    Callable[[bytes], bytes],
    "tuple[str, int] | None",
    bytes,
    bytes,
    bytes,
    int,
    float,
    "str | None",
    bool,
    "str | None",
]


def lines_of(requests: Sequence[Request]) -> RenderedLines:
    """Return the line of each request, with the keys in its target redacted."""
    lines: list[str] = []
    texts: set[str] = set()
    last: Callable[[bytes], bytes] | None = None
    # Most requests are like one before: the search for keys and the decoding are done once for all that are alike.
    known: dict[tuple[bytes, bytes, bytes], str] = {}
    for _, redact, peer, method, target, version, status, elapsed, request_id, named, principal in requests:
        if redact is not last:
            last, known = redact, {}
        head = method, target, version
        said = known.get(head)
        if said is None:
            shown = b" ".join((method, redact(target), version)).decode("ascii", "backslashreplace")
            said = known[head] = printable(shown.replace('"', '\\"'))
            texts.add(said)
        where = "127.0.0.1" if peer is None else f"/{peer[0]}:{peer[1]}"
        line = f'{where} "{said}" {status} {int(elapsed * 1000)}'
        if request_id is not None:
            texts.add(request_id)
            if named or status >= 400:
                line = f"{line} {printable(request_id)}"
        if principal is not None:
            texts.add(principal)
            line = f"{line} principal={printable(principal)}"
        lines.append(line)
    return RenderedLines(lines, texts)


def fields_of(request: Request) -> Mapping[str, object]:
    """Return the fields of a request's line in JSON."""
    _, _, _, _, _, _, status, elapsed, request_id, _, principal = request
    fields: dict[str, object] = {"status": status, "milliseconds": round(elapsed * 1000, 3)}
    if request_id is not None:
        fields["request_id"] = request_id
    if principal is not None:
        fields["principal"] = principal
    return fields


def coalesced(requests: Sequence[Request]) -> LogEvent:
    """Return the event of many requests, as `coalescing` makes those of other loggers."""
    lines = lines_of(requests)
    return {
        "log_level": LogLevel.info,
        "log_format": READY,
        "logger_name": ACCESS_LOG,
        "thread_name": "main",
        "line": "\n".join(lines),
        "moments": [request[0] for request in requests],
        "lines": lines,
        "details": RequestFields(requests),
    }


@frozen(eq=False)
class RequestFields(Sequence[Mapping[str, object]]):
    """The fields of many lines, made when they are read: only JSON shows them."""

    _requests: Sequence[Request]

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, object]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, object]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, object] | Sequence[Mapping[str, object]]:
        """Return the fields of a line."""
        if isinstance(index, slice):
            return RequestFields(self._requests[index])
        return fields_of(self._requests[index])
