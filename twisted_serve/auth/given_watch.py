# SPDX-License-Identifier: Apache-2.0
"""
Read given keys again when their files change, and when told to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.given import Source, States, read_given, states_of
from twisted_serve.auth.tokens import Token
from twisted_serve.eventloop.threads import DeferToThread

_log = Logger("twisted_serve.auth")

# Seconds between two looks at the files, each of which costs a thread a call of stat for each file.
INTERVAL = 1.0


@frozen
class _Found:
    """The outcome of a look: the state of the files, and the keys or an error if these were read."""

    states: States
    tokens: tuple[Token, ...] = ()
    error: ValueError | None = None


class GivenWatch(Service):
    """
    Watch the files of given keys; an error is logged, and the keys stay as they were.

    The files are looked at in a thread, one look at a time, because a file system may hang.

    :param states: The states of the files before they were read at the start.
    :param take: Takes the keys, in place of those of the same kinds; fails with `ValueError` for keys that cannot be
        used beside the others.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        states: States,
        take: Callable[[Sequence[Token]], Deferred[None]],
        clock: IReactorTime,
        defer_to_thread: DeferToThread,
    ) -> None:
        self.setName("given keys")
        self._sources = sources
        self._states = states
        self._take = take
        self._defer_to_thread = defer_to_thread
        self._looking = False
        self._again = False
        # Discard the Deferred: the loop would wait for it.
        self._loop = LoopingCall(lambda: self._look(False))
        self._loop.clock = clock

    def startService(self) -> None:
        """Start to watch."""
        super().startService()
        if any(source.path is not None for source in self._sources):
            self._loop.start(INTERVAL, now=False).addErrback(_ended)

    def stopService(self) -> None:
        """End the watch; what is being read is not taken."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def read_again(self) -> None:
        """Read the files, whether they have changed or not."""
        self._look(True)

    def _look(self, forced: bool) -> None:
        if self._looking:
            # The files may have changed since this look began.
            self._again = self._again or forced
            return
        self._looking = True
        seen = None if forced else self._states
        self._defer_to_thread(_read_changed, self._sources, seen).addCallback(self._use).addErrback(_failed).addBoth(
            self._looked
        )

    def _use(self, found: _Found) -> Deferred[None] | None:
        self._states = found.states
        if found.error is not None:
            _log.error("AUDIT The given keys stay as they are: {error}", error=found.error)
        return self._take(found.tokens) if found.tokens and self.running else None

    def _looked(self, _done: object) -> None:
        self._looking = False
        if self._again and self.running:
            self._again = False
            self._look(True)


def _read_changed(sources: Sequence[Source], seen: States | None) -> _Found:
    """Read the files unless their states equal ``seen``; this may block."""
    states = states_of(sources)
    if states == seen:
        return _Found(states)
    try:
        given = read_given(sources)
    except ValueError as e:
        return _Found(states, error=e)
    return _Found(given.states, given.tokens)


def _failed(failure: Failure) -> None:
    if failure.check(ValueError) is None:
        _log.failure("The given keys stay as they are", failure)
    else:
        _log.error("AUDIT The given keys stay as they are: {error}", error=failure.value)


def _ended(failure: Failure) -> None:
    _log.failure("The given keys are not watched any longer", failure)
