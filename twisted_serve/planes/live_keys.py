# SPDX-License-Identifier: Apache-2.0
"""
Keep the named keys of a running server the same as those of its store.

The store is read and written in threads, one call at a time and in order.  What a server accepts changes when the file
has changed, so that the client that has made a change can rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.live import KeyIndex, NamedKeys
from twisted_serve.auth.named.store import Change, KeyStore, StoreError
from twisted_serve.eventloop.threads import DeferToThread

_log = Logger("twisted_serve.auth")


class LiveKeys:
    """
    The named keys of a server, and the file that has them.

    :ivar named: The keys that are accepted now.
    :raise StoreError: when the file cannot be used.
    """

    def __init__(
        self,
        store: KeyStore,
        named: NamedKeys,
        defer_to_thread: DeferToThread,
    ) -> None:
        self.named = named
        self._store = store
        self._defer_to_thread = defer_to_thread
        self._forget: list[Callable[[Collection[str]], object]] = []
        self._turn = DeferredLock()
        self._looks = 0
        self._problem: str | None = None
        # Before the server listens: there is nothing to hold up yet.
        named.use(self._indexed(store.load()))

    async def change(self, change: Change) -> KeyIndex:
        """
        Change the keys, and return those that are on the disk and accepted then.

        :raise StoreError: when the file cannot be used or written; nothing has changed.
        :raise Exception: what ``change`` has raised.
        """
        return await self._next(lambda: self._indexed(self._store.transaction(change)))

    def on_gone(self, forget: Callable[[Collection[str]], object]) -> None:
        """Call a function with the names of keys that are gone."""
        self._forget.append(forget)

    def look(self, forced: bool = False) -> None:
        """
        Read the file again soon, if it has changed; the keys stay when it cannot be used, which is logged.

        :param forced: Whether to read it anyway, and after a look that has not ended.
        """
        if forced or not self._looks:
            self._looks += 1
            Deferred.fromCoroutine(self._look(forced)).addBoth(self._looked)

    def _looked(self, result: object) -> None:
        self._looks -= 1
        if isinstance(result, Failure):
            _log.failure("The file of named keys was not looked at", result)

    async def _look(self, forced: bool) -> None:
        def read() -> KeyIndex:
            # A file that cannot be used is not read each second.
            changed = forced or self._store.has_changed()
            # A change that has failed may have read what another server has written.
            if not changed and self._store.records is self._known:
                return self.named.index
            return self._indexed(self._store.load())

        try:
            await self._next(read)
        except StoreError as e:
            if forced or str(e) != self._problem:
                _log.error("The named keys stay as they were: {error}", error=e)
            self._problem = str(e)

    def _indexed(self, records: KeyRecords) -> KeyIndex:
        """Return the index of keys that count from now on."""
        index = self.named.indexed(records)
        self._known = records
        return index

    async def _next(self, work: Callable[[], KeyIndex]) -> KeyIndex:
        """Call a function in a thread, when those before have ended, and use the index that it returns."""
        await self._turn.acquire()
        try:
            index = await self._defer_to_thread(work)
            before = self.named.index
            if index is not before:
                self.named.use(index)
                gone = before.by_name.keys() - index.by_name.keys()
                for forget in self._forget if gone else ():
                    forget(gone)
                if self._problem is not None:
                    self._problem = None
                    _log.info("The file of named keys can be used again")
            return index
        finally:
            # The next one may begin before this returns.
            self._turn.release()
