# SPDX-License-Identifier: Apache-2.0
"""
Read a server again and again, with a bounded load.

The metrics are asked for by name, so that the server renders no others.  Descriptions, for which the server reads the
memory of each worker, are asked for a few models at a time, and of each model every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_serve.subcommands.outcomes import Failed, NoServer
from twisted_serve.subcommands.session import Session, path_of
from twisted_serve.subcommands.top.exposition import samples_of
from twisted_serve.subcommands.top.readings import WANTED, Described, Reading, Version, described, reading_of
from twisted_serve.subcommands.top.rows import View, view_of

#: Seconds after which a model is described again, and the most models that are described for one refresh.
DESCRIBED_EVERY = 5.0
DESCRIBED_AT_ONCE = 10


# Looking takes at most this share of the time: a server with many models is looked at less often.
_SHARE = 0.1


class Watcher:
    """
    The readings of one server.

    :ivar took: Seconds that the last look took.
    :ivar problem: Why models are not described, if they are not.
    :param seconds: A clock that is never set.
    """

    def __init__(self, session: Session, seconds: Callable[[], float]) -> None:
        self.problem: str | None = None
        self.took = 0.0
        self._session = session
        self._seconds = seconds
        self._before: Reading | None = None
        self._descriptions: dict[Version, Described] = {}
        self._described: dict[str, float] = {}

    def look(self) -> View:
        """
        Read the server, and return what has changed since the last look.

        :raise NoServer: when it cannot be reached; the next look asks anew which server is meant.
        :raise Failed: when it refuses.
        """
        began = self._seconds()
        try:
            answer = self._session.call(
                "metrics", "GET", f"/metrics?{'&'.join(f'name[]={name}' for name in WANTED)}", kind="inference"
            )
        except NoServer:
            self._before = None
            self._descriptions.clear()
            self._described.clear()
            self._session.forget()
            raise
        reading = reading_of(samples_of(answer.body.decode("utf-8", "replace")), self._seconds())
        self._describe(reading)
        self.took = self._seconds() - began
        before, self._before = self._before, reading
        return view_of(before, reading, self._descriptions)

    def pause(self, interval: float) -> float:
        """Return the seconds to the next look, for an interval that is asked for."""
        return max(interval, self.took / _SHARE) - self.took

    def _describe(self, reading: Reading) -> None:
        now = self._seconds()
        names = dict.fromkeys(name for name, _version in reading.versions)
        self._described = {name: at for name, at in self._described.items() if name in names}
        self._descriptions = {key: said for key, said in self._descriptions.items() if key in reading.versions}
        due = [name for name in names if now - self._described.get(name, -DESCRIBED_EVERY) >= DESCRIBED_EVERY]
        due.sort(key=lambda name: self._described.get(name, -1.0))
        for name in due[:DESCRIBED_AT_ONCE]:
            self._described[name] = now
            try:
                answer = self._session.call("management", "GET", path_of("models", name, "all"))
                self._descriptions |= described(answer.json())
                self.problem = None
            except Failed as e:
                self.problem = e.format_message()
                return
