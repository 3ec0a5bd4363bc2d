# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.process`; what only a real process shows is in ``tests/integration``."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.backend.__main__ import main
from twisted_serve.backend.process import (
    NotAWorkerError,
    die_with_parent,
    enter_model_dir,
    inherited_socket,
    search_path,
    set_logging,
    set_signals,
)
from twisted_serve.wire.held_back import FOR_THE_SERVER


class RecordingLibrary:
    """A C library whose ``prctl`` is only written down."""

    def __init__(self, result: int) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.result = result

    def prctl(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return self.result


class SocketTests(SynchronousTestCase):
    """The descriptor that the server leaves open."""

    def setUp(self) -> None:
        self.forked: list[Any] = []

        def register(*, after_in_child: Any) -> None:
            self.forked.append(after_in_child)

        self.patch(os, "register_at_fork", register)

    def test_taken(self) -> None:
        """It blocks, and neither programs nor forks that the handler starts keep it open."""
        server, worker = socket.socketpair()
        self.addCleanup(server.close)
        worker.setblocking(False)
        worker.set_inheritable(True)
        connection = inherited_socket(worker.detach())
        self.addCleanup(connection.close)
        self.assertFalse(connection.get_inheritable())
        self.assertTrue(connection.getblocking())
        self.forked[0]()
        self.assertEqual(connection.fileno(), -1)

    def test_not_a_socket(self) -> None:
        """A pipe, a closed descriptor or a network socket is refused, and what is not ours stays open."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.assertRaises(NotAWorkerError, inherited_socket, reading)
        os.close(reading)
        self.assertRaises(NotAWorkerError, inherited_socket, reading)
        with socket.socket(socket.AF_INET) as network:
            self.assertRaises(NotAWorkerError, inherited_socket, network.fileno())
            os.fstat(network.fileno())

    def test_main_refuses(self) -> None:
        """A worker that is started by hand exits with an explanation."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        with self.assertRaises(SystemExit) as raised:
            main(["--fd", str(reading)])
        self.assertEqual(raised.exception.code, 2)
        self.assertIn(f"descriptor {reading}", errors.getvalue())


class DieWithParentTests(SynchronousTestCase):
    """A worker does not outlive its server."""

    def setUp(self) -> None:
        self.server, self.worker = socket.socketpair()
        self.addCleanup(self.server.close)
        self.addCleanup(self.worker.close)
        self.library = RecordingLibrary(0)
        self.patch(ctypes, "CDLL", lambda name, use_errno: self.library)
        self.patch(sys, "platform", "linux")

    def test_asks(self) -> None:
        """The kernel is asked to kill, not to ask."""
        die_with_parent(self.worker)
        self.assertEqual(self.library.calls, [(1, signal.SIGKILL, 0, 0, 0)])

    def test_refused(self) -> None:
        """If the kernel refuses, an error is raised instead of relying on a signal that will not come."""
        self.library.result = -1
        self.assertRaises(OSError, die_with_parent, self.worker)

    def test_elsewhere(self) -> None:
        """Where there is no prctl none is called."""
        self.patch(sys, "platform", "darwin")
        die_with_parent(self.worker)
        self.assertEqual(self.library.calls, [])

    def test_too_late(self) -> None:
        """A worker whose server died before it could ask ends itself."""
        self.server.close()
        self.assertRaises(NotAWorkerError, die_with_parent, self.worker)


class SetUpTests(SynchronousTestCase):
    """Tests for process-wide settings."""

    def test_signals(self) -> None:
        """Signals sent to all processes of a server are ignored here, but not by programs that are started here."""
        for each in FOR_THE_SERVER:
            self.addCleanup(signal.signal, each, signal.getsignal(each))
        set_signals()
        for each in FOR_THE_SERVER:
            signal.raise_signal(each)
            self.assertTrue(callable(signal.getsignal(each)))

    def test_logging(self) -> None:
        """The handler's log records from INFO on are printed without a prefix, line by line, whatever they contain."""
        root = logging.getLogger()
        before = root.handlers[:], root.level
        self.addCleanup(root.setLevel, before[1])
        self.addCleanup(setattr, root, "handlers", before[0])
        root.handlers = []
        raw = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
        self.patch(sys, "stderr", io.StringIO())
        set_logging()
        logging.info("hello %s", "é\ud800")
        logging.debug("not this")
        self.assertEqual(raw.getvalue(), "hello é\\ud800\n".encode())

    def test_search_path(self) -> None:
        """The model's files come first, the rest as it was."""
        self.assertEqual(search_path(["/env/one", "/lib"], "/model", "/lib"), ["/model", "/env/one", "/lib"])
        self.assertEqual(search_path(["/env", "/model", "/lib"], "/model", "/lib"), ["/model", "/env", "/lib"])

    def test_package_stays(self) -> None:
        """Our own package is found still if nothing else leads to it."""
        self.assertEqual(search_path(["/lib"], "/model", "/srv"), ["/model", "/lib", "/srv"])
        self.assertEqual(search_path([], "/model", "/srv"), ["/model", "/srv"])

    def test_enter(self) -> None:
        """A worker is in its model's directory."""
        directory = str(Path(self.mktemp()).absolute())
        os.mkdir(directory)
        self.addCleanup(os.chdir, os.getcwd())
        self.patch(sys, "path", sys.path[:])
        enter_model_dir(directory)
        self.assertEqual(os.getcwd(), os.path.realpath(directory))
        self.assertEqual(sys.path[0], directory)
