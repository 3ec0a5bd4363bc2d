# SPDX-License-Identifier: Apache-2.0
"""
This module implements what the log looks like: the predecessor's lines, so that what greps for them still finds them.

An event may say ``logger_name`` and ``thread_name``, which stand in its line
(``spec/config_cli.md`` §9).  No line holds a control character that somebody
sent, and so nobody can forge a line; and no line holds a live key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timezone, tzinfo
from typing import Literal, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
)
from zope.interface import implementer

# Lines which people and launchers look for.
SERVER_STARTED = "Model server started."
INFERENCE_BOUND = "Inference API bind to: {address}"
MANAGEMENT_BOUND = "Management API bind to: {address}"
METRICS_BOUND = "Metrics API bind to: {address}"
TOKEN_ENABLED = "Token Authorization Enabled"  # noqa: S105
TOKEN_BLOCK = (
    "######",
    "TorchServe now enforces token authorization by default.",
    "This requires the correct token to be provided when calling an API.",
    "Key file located at {path}",
    "See docs/tokens.md for how to use, replace and disable tokens.",
    "######",
)
TOKEN_DISABLED = "Token Authorization is disabled: whoever can reach {address} can use it"  # noqa: S105
MODEL_LOADED = "Model {name} loaded."
MODEL_NOT_LOADED = "Failed to load model: {url}"
SERVER_STOPPED = "Torchserve stopped."

# Names of loggers.
ACCESS_LOG = "ACCESS_LOG"
MODEL_LOG = "MODEL_LOG"

# The format of an event whose text is ready: on the way of every request, formatting is worth saving.
_READY = "{line}"

_LEVELS = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO ",
    LogLevel.warn: "WARN ",
    LogLevel.error: "ERROR",
    LogLevel.critical: "ERROR",
}

# Control characters but TAB, what Unicode ends lines with, what turns the direction of writing, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Write as escapes all characters which could end a line, forge one, or command a terminal."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def redact(text: str, secrets: Collection[str]) -> str:
    """Replace every secret in ``text``."""
    for secret in secrets:
        if secret and secret in text:
            text = text.replace(secret, "<redacted>")
    return text


@implementer(ILogObserver)
class LineObserver:
    """
    Writes each event as one line of the predecessor's console pattern; a traceback follows, indented.

    :param write: Takes one or more whole lines.
    :param zone: What times are shown in; the machine's own when not given.
    """

    def __init__(self, write: Callable[[str], object], zone: tzinfo | None = None) -> None:
        self._write = write
        self._zone = zone
        self._second = -1
        self._shown = ""

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``."""
        seconds, milliseconds = divmod(int(event["log_time"] * 1000), 1000)
        if seconds != self._second:
            shown = datetime.fromtimestamp(seconds, timezone.utc).astimezone(self._zone)
            self._second, self._shown = seconds, shown.strftime("%Y-%m-%dT%H:%M:%S")
        level = _LEVELS.get(event.get("log_level", LogLevel.info), "INFO ")
        thread = event.get("thread_name", "main")
        logger = event.get("logger_name") or event.get("log_namespace", "-")
        message, *more = _texts(event)
        lines = [printable(f"{self._shown},{milliseconds:03} [{level}] {thread} {logger} - {message}")]
        lines += [f"\t{printable(line)}" for line in more]
        self._write("\n".join(lines) + "\n")


def _texts(event: LogEvent) -> list[str]:
    """Split an event into its message and the lines of its traceback."""
    line = event.get("line")
    if event.get("log_format") == _READY and isinstance(line, str):
        return [line]
    message = formatEvent(event)
    if "log_failure" not in event:
        return [message]
    traceback = eventAsText(event, includeTimestamp=False, includeSystem=False).removeprefix(message)
    return [message, *traceback.strip("\n").split("\n")]


# What an event has of itself, and what those who log it may call themselves.
_OURS = ("log_time", "log_level", "log_namespace")
_NAMES = ("thread_name", "logger_name")


@implementer(ILogObserver)
class _Redacting:
    def __init__(self, observer: ILogObserver, secrets: Callable[[], Collection[str]]) -> None:
        self._observer = observer
        self._secrets = secrets

    def __call__(self, event: LogEvent) -> None:
        secrets = self._secrets()
        texts = _texts(event)
        names = [str(event.get(name, "")) for name in _NAMES]
        if not any(secret in text for text in (*texts, *names) for secret in secrets if secret):
            self._observer(event)
            return
        # Only what is known to be harmless goes on: a key may be in any field, and in the failure.
        clean: LogEvent = {name: event[name] for name in _OURS if name in event}
        for name in _NAMES:
            if name in event:
                clean[name] = redact(str(event[name]), secrets)
        self._observer({**clean, "log_format": _READY, "line": redact("\n".join(texts), secrets)})


def redacting(observer: ILogObserver, secrets: Callable[[], Collection[str]]) -> ILogObserver:
    """
    Keep live keys from ``observer``; the last line of defence, for nothing of ours logs a key.

    :param secrets: Asked at each event for the keys of the moment.
    """
    return _Redacting(observer, secrets)


def console(stream: TextIO, secrets: Callable[[], Collection[str]], zone: tzinfo | None = None) -> ILogObserver:
    """Make the observer which writes the server's log, information and worse, to ``stream``."""

    def write(lines: str) -> None:
        # Nobody reading any more is no reason to stop serving.
        with suppress(OSError):
            stream.write(lines)
            stream.flush()

    # Twisted's own notes say nothing to somebody who runs a model server.
    notable = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for namespace in ("twisted", "log_legacy"):
        notable.setLogLevelForNamespace(namespace, LogLevel.warn)
    lines = redacting(LineObserver(write, zone), secrets)
    return FilteringLogObserver(lines, [notable])


def log_access(
    log: Logger,
    *,
    peer: tuple[str, int] | None,
    method: bytes,
    target: bytes,
    version: bytes,
    status: int,
    elapsed: float,
) -> None:
    """
    Write the line of one request.

    :param peer: Host and port; ``None`` for a client on a UNIX socket.
    :param method: As the client sent it, as ``target`` and ``version``.
    :param elapsed: Seconds.
    """
    where = f"/{peer[0]}:{peer[1]}" if peer is not None else "127.0.0.1"
    said = b" ".join((method, target, version)).decode("ascii", "backslashreplace").replace('"', '\\"')
    log.info(_READY, line=f'{where} "{said}" {status} {int(elapsed * 1000)}', logger_name=ACCESS_LOG)


def log_model_output(log: Logger, worker: str, stream: Literal["stdout", "stderr"], line: str) -> None:
    """
    Write one line which a worker printed.

    :param worker: As ``W-9000-resnet_1.0``.
    """
    log.emit(
        LogLevel.info if stream == "stdout" else LogLevel.warn,
        _READY,
        line=line,
        logger_name=MODEL_LOG,
        thread_name=f"{worker}-{stream}",
    )
