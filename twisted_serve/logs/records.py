# SPDX-License-Identifier: Apache-2.0
"""
Turn an event into a record that any layout can render.

Control characters are escaped, so that no client can forge a line, and live keys are redacted: the server's three
by their secrets, named keys by their form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEvent
from zope.interface import implementer

from twisted_serve.auth.named.secrets import FORM, PREFIX
from twisted_serve.logs.characters import printable
from twisted_serve.logs.coalescing import Positions, one_by_one
from twisted_serve.logs.events import READY, RenderedLines

_NAMED: Final = re.compile(FORM)


def redact(text: str, secrets: Collection[str]) -> str:
    """Return ``text`` with every secret redacted, and all that has the form of a named key's."""
    for secret in secrets:
        if secret and secret in text:
            text = text.replace(secret, "<redacted>")
    return _NAMED.sub("<redacted>", text) if PREFIX in text else text


class Record(NamedTuple):
    """
    An event ready to be rendered.

    :ivar moments: The time of each line, in milliseconds since the epoch; one for all if they share it.
    :ivar lines: The lines of the message; most events have one.
    :ivar traceback: The lines of its traceback.
    :ivar details: The additional JSON fields of each line; one mapping for all if they share it.
    """

    moments: Sequence[int]
    level: LogLevel
    thread: str
    logger: str
    lines: Sequence[str]
    traceback: Sequence[str] = ()
    details: Sequence[Mapping[str, object]] = ({},)


def logger_of(event: LogEvent) -> str:
    """Return the logger name that is logged for an event."""
    name: str = event.get("logger_name") or event.get("log_namespace", "-")
    return name


def entry_of(event: LogEvent) -> Record:
    """Create the record of an event."""
    said = event.get("lines")
    if said is not None and event.get("log_format") == READY:
        plain = isinstance(said, RenderedLines) or "".join(said).isprintable()
        lines, traceback = said if plain else [printable(line) for line in said], []
    else:
        message, *more = texts_of(event)
        lines, traceback = [printable(message)], [printable(line) for line in more]
    return Record(
        [int(moment * 1000) for moment in event.get("moments") or (event["log_time"],)],
        event.get("log_level", LogLevel.info),
        printable(event.get("thread_name", "main")),
        printable(logger_of(event)),
        lines,
        traceback,
        _details(event),
    )


def _details(event: LogEvent) -> Sequence[Mapping[str, object]]:
    details: Sequence[Mapping[str, object]] = event.get("details") or (event.get("fields", {}),)
    return details


def texts_of(event: LogEvent) -> list[str]:
    """Split an event into its message and the lines of its traceback."""
    line = event.get("line")
    if event.get("log_format") == READY and isinstance(line, str):
        return [line]
    message = formatEvent(event)
    if "log_failure" not in event:
        return [message]
    traceback = eventAsText(event, includeTimestamp=False, includeSystem=False).removeprefix(message)
    return [message, *traceback.strip("\n").split("\n")]


# Fields that Twisted sets, and names that the caller may set.
_OURS = ("log_time", "log_level", "log_namespace")
_NAMES = ("thread_name", "logger_name")


def without_keys(events: Sequence[LogEvent], secrets: Collection[str]) -> Sequence[LogEvent]:
    """Return events with the secrets redacted; an event without secrets is returned unchanged."""
    # Events hardly ever contain a secret: usually one search in all the text is enough.
    if not _has_any(events, secrets):
        return events
    singles = chain.from_iterable(one_by_one(event) if "moments" in event else (event,) for event in events)
    return [_redacted(event, secrets) if _has_any((event,), secrets) else event for event in singles]


def _has_any(events: Sequence[LogEvent], secrets: Collection[str]) -> bool:
    said = "\n".join(chain.from_iterable(map(_all_texts, events)))
    return any(secret in said for secret in secrets if secret) or (PREFIX in said and _NAMED.search(said) is not None)


def _all_texts(event: LogEvent) -> Iterator[str]:
    """Yield every text of an event that can be logged."""
    lines = event.get("lines")
    if isinstance(lines, RenderedLines):
        yield from lines.texts
        return
    yield from texts_of(event)
    for name in _NAMES:
        yield str(event.get(name, ""))
    for fields in _details(event):
        yield from map(str, fields.values())


def _redacted(event: LogEvent, secrets: Collection[str]) -> LogEvent:
    # Only fields known to be harmless are kept: a key may be in any other field, and in the failure.
    clean: LogEvent = {name: event[name] for name in _OURS if name in event}
    for name in _NAMES:
        if name in event:
            clean[name] = redact(str(event[name]), secrets)
    if isinstance(event.get("positions"), Positions):
        clean["positions"] = event["positions"]
    if "lines" in event:
        clean["lines"] = [redact(line, secrets) for line in event["lines"]]
    return {**clean, "log_format": READY, "line": redact("\n".join(texts_of(event)), secrets)}


@implementer(ILogObserver)
@frozen(eq=False)
class _Redacting:
    observer: ILogObserver
    secrets: Callable[[], Collection[str]]

    def __call__(self, event: LogEvent) -> None:
        for clean in without_keys([event], self.secrets()):
            self.observer(clean)


def redacting(observer: ILogObserver, secrets: Callable[[], Collection[str]]) -> ILogObserver:
    """
    Redact live keys before events reach ``observer``: a second line of defence, for the server itself logs no key.

    :param secrets: Called for each event; returns the current keys.
    """
    return _Redacting(observer, secrets)
