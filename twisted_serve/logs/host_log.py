# SPDX-License-Identifier: Apache-2.0
"""
Prepare events for the log of another program, such as ``twistd``: labelled, printable, and without live keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from twisted_serve.logs.characters import printable
from twisted_serve.logs.events import READY
from twisted_serve.logs.records import logger_of, texts_of, without_keys


@implementer(ILogObserver)
@frozen(eq=False)
class HostLog:
    """
    Change each event in place, for the observers that are added to the same publisher later.

    The layout and the destination are theirs.  Twisted's text layout shows a label that an event has, so a line of a
    handler begins with its worker: ``[W-9000-resnet_1.0-stdout MODEL_LOG#info]``.

    :ivar secrets: Called for each event; returns the current keys.
    """

    secrets: Callable[[], Collection[str]]

    def __call__(self, event: LogEvent) -> None:
        """Prepare ``event``."""
        # First, because the lines of a traceback with a key become one text.
        _make_printable(event)
        for clean in without_keys([event], self.secrets()):
            if clean is not event:
                event.clear()
                event.update(clean)
        if "logger_name" in event or "thread_name" in event:
            level = event.get("log_level", LogLevel.info).name
            names = [str(event[name]) for name in ("thread_name",) if name in event]
            event["log_system"] = printable(f"{' '.join([*names, logger_of(event)])}#{level}")


def _make_printable(event: LogEvent) -> None:
    said = list(event.get("lines") or texts_of(event))
    shown = [printable(text) for text in said]
    if shown != said:
        event.update(log_format=READY, line="\n".join(shown))
        # Its text is in the line now.
        event.pop("log_failure", None)
