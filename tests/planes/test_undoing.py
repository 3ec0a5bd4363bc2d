# SPDX-License-Identifier: Apache-2.0
"""
Tests for what a registration leaves when anything on its way to a worker raises: nothing.

Store, registrar, installer, pool, slots and provider are the real ones; processes, sockets and time are in memory. One
step of each example raises, before or after the real step has been done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from tests.specs import worker_spec
from tests.threads import Threads
from tests.workers import local_case
from tests.workers.wire import Wire
from twisted_serve.archives import cache, store
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.intake import Intake, Places
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.models.registry import Registry
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.management import ManagementPlane, Outcome
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.planes.registrar import Registrar, Registration
from twisted_serve.scheduling.pool import Pool
from twisted_serve.wire.messages import Loaded, LoadModel
from twisted_serve.workers import local
from twisted_serve.workers.local import LocalProvider
from twisted_serve.workers.packages import Installer
from twisted_serve.workers.process import connection
from twisted_serve.workers.process.process import WorkerProcess

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class _Reactor(local_case.Reactor):
    """The reactor of local workers, which makes processes for pip, too."""

    def spawnProcess(  # type: ignore[override]
        self,
        process: WorkerProcess,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
        path: str | None = None,
        childFDs: dict[int, int | str] | None = None,
    ) -> local_case.Child:
        if path is not None:
            # Pip has no socket.
            self.wires.append(Wire(self, Protocol()))
        return super().spawnProcess(process, executable, args, env, childFDs or {})


class _House:
    """
    A server's parts for models, in memory, with a directory of their own.

    :ivar steps: What can raise: an object and the name of its attribute.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        store_path, self.work_dir = self.directory / "store", self.directory / "work"
        store_path.mkdir()
        self.work_dir.mkdir()
        with zipfile.ZipFile(store_path / "m.mar", "w") as archive:
            model = {"modelName": "m", "handler": "h.py", "requirementsFile": "r.txt"}
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
            archive.writestr("h.py", "")
            archive.writestr("r.txt", "")
        self.reactor = _Reactor()
        reactor: Any = self.reactor
        self.threads = Threads()
        self.changes: list[str] = []
        self.ids = count(9000)
        self.catalogue = Catalogue()
        self.provider = LocalProvider(reactor)
        fetcher = Fetcher(Agent(reactor), reactor, AllowedUrls(()), FetchLimits(), self.defer_to_thread)
        self.store = ModelStore(store_path, Intake(self.work_dir, fetcher, UnpackLimits(), self.defer_to_thread))
        self.installer = Installer(reactor, self.work_dir, "python", {}, 60.0, self.defer_to_thread)
        self.registrar = Registrar(
            self.catalogue,
            self.store,
            self.settle,
            self.make_pool,
            None,
            5.0,
            self.installer,
            self.changed,
        )
        self.plane = ManagementPlane(self.catalogue, self.registrar, Memory(self.threads, reactor.seconds), True)
        self.steps: dict[str, tuple[Any, str]] = {
            "thread": (self, "work"),
            "locate": (Places, "locate"),
            "content": (cache, "fingerprint"),
            "unpack": (cache, "unpack"),
            "manifest": (store, "read_manifest"),
            "register": (Registry, "register"),
            "settle": (self.registrar, "_settle"),
            "install": (self.installer, "install"),
            "pip": (os, "open"),
            "pool": (self.registrar, "_make_pool"),
            "slot": (self, "worker_id"),
            "start": (self.provider, "start"),
            "load message": (local, "load_message"),
            "encode": (local, "encode"),
            "socket": (socket, "socketpair"),
            "adopt": (self.reactor, "adoptStreamConnection"),
            "spawn": (self.reactor, "spawnProcess"),
            "send": (connection, "encode_apart"),
            "changed": (self.registrar, "changed"),
        }
        # These give something that only their caller knows: what they raise is raised before.
        self.only_before = {"install", "socket", "pip", "thread", "start"}

    def defer_to_thread(self, work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
        return self.threads(lambda: self.work(work, *args))

    def work(self, work: Callable[..., Any], *args: object) -> Any:
        return work(*args)

    def settle(
        self, wanted: RequestedSettings, archive: ModelArchive, name: str, version: str, at_startup: bool
    ) -> ModelSettings:
        return ModelSettings(min_workers=2, max_workers=2)

    def worker_id(self) -> int:
        return next(self.ids)

    def changed(self) -> Deferred[None]:
        self.changes.append("changed")
        return succeed(None)

    def make_pool(self, model: ModelVersion) -> Pool:
        spec = worker_spec(model.name, model.version, model.model_dir, model.handler, 1, {}, {}, "python", {}, 10.0)
        reactor: Any = self.reactor
        return Pool(spec, model.settings, self.provider, reactor, lambda: NOW, worker_ids=lambda: f"{self.worker_id()}")

    @contextmanager
    def raising(self, step: str, turn: int, error: Exception, after: bool) -> Iterator[None]:
        """Have a step raise, the ``turn``-th time that it is taken."""
        target, name = self.steps[step]
        real, turns = getattr(target, name), count()

        def taken(*args: Any, **named: Any) -> Any:
            raises = next(turns) == turn
            if raises and not (after and step not in self.only_before):
                raise error
            result = real(*args, **named)
            if raises:
                raise error
            return result

        with patch.object(target, name, taken):
            yield

    def live(self) -> None:
        """Let processes do what they do: pip ends, workers load, and those that are told to end do so."""
        for _ in range(40):
            for child in self.reactor.children:
                if child.pid is None:
                    continue
                if "-m" in child.command and "twisted_serve.backend.installation" in child.command:
                    child.exit()
                elif child.signals or child.wire.closed:
                    child.die()
                elif any(isinstance(message, LoadModel) for message in child.messages()):
                    child.say(Loaded())
            self.reactor.advance(0.5)

    def left(self) -> dict[str, object]:
        """List all that there is of any model."""
        places: Any = self.store._places
        found = {
            "models": [model.name for model, _pool in self.catalogue]
            + [model.name for model in self.catalogue.registry],
            "workers": list(self.provider._workers),
            "processes": [child.command for child in self.reactor.children if child.pid is not None],
            "files": sorted(str(path) for name in ("models", "packages") for path in (self.work_dir / name).glob("*")),
            "leases": list(places._archives._by_lease) + list(places._archives._by_content),
            "kept": list(self.registrar._files),
            "under way": list(self.registrar._under_way) + list(self.installer._under_way),
        }
        return {name: value for name, value in found.items() if value}

    def close(self) -> None:
        shutil.rmtree(self.directory)


ERRORS: list[Callable[[], Exception]] = [
    lambda: OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)),
    lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    MemoryError,
    lambda: ValueError("no"),
    lambda: RuntimeError("can't start new thread"),
    RecursionError,
    CancelledError,
]

STEPS = st.sampled_from(
    [
        "thread",
        "locate",
        "content",
        "unpack",
        "manifest",
        "register",
        "settle",
        "install",
        "pip",
        "pool",
        "slot",
        "start",
        "load message",
        "encode",
        "socket",
        "adopt",
        "spawn",
        "send",
        "changed",
    ]
)
TURNS = st.integers(0, 4)
HOW = st.sampled_from(["synchronous", "asynchronous", "start-up"])


class UndoingTests(SynchronousTestCase):
    """One step raises."""

    def check(self, house: _House, fails: Callable[[], None]) -> None:
        """Check that nothing is left of what ``fails`` does, and that a model can come and go afterwards."""
        descriptors = len(os.listdir("/proc/self/fd"))
        try:
            fails()
            if list(house.catalogue):
                self.assertEqual(_result(house, house.plane.unregister("m", None)).status, 200)
            house.live()
            self.assertEqual(house.left(), {})
            self.assertEqual(house.reactor.getDelayedCalls(), [])
            self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
            for change in (_begin(house, "synchronous"), house.plane.unregister("m", None)):
                self.assertEqual(_result(house, change).status, 200)
            self.assertEqual(house.left(), {})
        finally:
            house.close()
            self.flushLoggedErrors()

    @given(step=STEPS, turn=TURNS, error=st.sampled_from(ERRORS), after=st.booleans(), how=HOW)
    def test_registration(self, step: str, turn: int, error: Callable[[], Exception], after: bool, how: str) -> None:
        """A registration that failed has left nothing; one that has not can be removed, and then nothing is left."""
        house = _House()

        def fails() -> None:
            with house.raising(step, turn, error(), after):
                outcome = _result(house, _begin(house, how))
            if how == "synchronous" and not isinstance(outcome, Outcome):
                self.assertEqual((list(house.catalogue), house.left()), ([], {}))

        self.check(house, fails)

    @given(step=STEPS, turn=TURNS, error=st.sampled_from(ERRORS), after=st.booleans(), synchronous=st.booleans())
    def test_scaling(
        self, step: str, turn: int, error: Callable[[], Exception], after: bool, synchronous: bool
    ) -> None:
        """A scaling that fails leaves a model that can be scaled again, and removed."""
        house = _House()

        def fails() -> None:
            _result(house, _begin(house, "synchronous"))
            with house.raising(step, turn, error(), after):
                _result(house, house.plane.scale("m", None, 4, 4, synchronous))
            self.assertEqual(_result(house, house.plane.scale("m", None, 3, 3, True)).status, 200)
            [(_model, pool)] = house.catalogue
            self.assertTrue(pool.ready())

        self.check(house, fails)


def _begin(house: _House, how: str) -> Coroutine[Deferred[Any], Any, Any]:
    if how == "start-up":
        return house.plane.load_at_startup(None, "m.mar")
    return house.plane.register(Registration("m.mar", synchronous=how == "synchronous"))


def _result(house: _House, change: Coroutine[Deferred[Any], Any, Any]) -> Any:
    """Return what a change has come to, a `Failure` too, when processes have had their time."""
    results: list[Any] = []
    Deferred.fromCoroutine(change).addBoth(results.append)
    house.live()
    [result] = results
    return result
