# SPDX-License-Identifier: Apache-2.0
"""Tests for ``python -m twisted_serve.backend`` as a real process, spoken to over its socket."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from tests.integration.process_socket import WorkerSocket
from twisted_serve.wire.held_back import FOR_THE_SERVER, held_back
from twisted_serve.wire.messages import Cancel, Item, Loaded, LoadFailed, Predicted, StreamChunk
from twisted_serve.workers.process.launch import module_command

pytestmark = pytest.mark.integration

ROOT = Path(twisted_serve.__file__).parents[1]

HANDLER = """
import logging, os, subprocess, sys, time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is not None:
        return [eval(bytes(data[0]["body"]))]

def until_cancelled(context):
    while not context.is_cancelled(0):
        send_intermediate_predict_response(["more"], context.request_ids, "", 200, context)
    return "cancelled"
"""

# Starts a worker and dies while the worker's handler runs.
PARENT = """
import os, socket, subprocess, sys
from twisted_serve.wire.codec import encode
from twisted_serve.wire.messages import *
server, worker = socket.socketpair()
child = subprocess.Popen([sys.executable, "-m", "twisted_serve.backend", "--fd", str(worker.fileno())],
                         pass_fds=[worker.fileno()], stdin=subprocess.DEVNULL)
worker.close()
server.sendall(encode(LoadModel("m", "1.0", sys.argv[1], "h.py", 1, {}, {}, "0")))
server.recv(1000)
print(child.pid, flush=True)
body = b"print('stuck') or time.sleep(1000)"
server.sendall(encode(Predict(1, [Job("r", {}, [Part("body", "", body)])])))
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


class WorkerProcess(WorkerSocket):
    """A worker, and the server's end of its socket."""

    def __init__(self, directory: Path, signals: Sequence[signal.Signals] = ()) -> None:
        """Start it as the server does, and send it signals at once."""
        ours, worker = socket.socketpair()
        super().__init__(ours)
        command = module_command(sys.executable, "twisted_serve.backend", "--fd", str(worker.fileno()))
        with worker, held_back():
            self.process = subprocess.Popen(
                command,
                pass_fds=[worker.fileno()],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in signals:
                self.process.send_signal(number)
        self.load(directory)

    def end(self) -> tuple[int, str, str]:
        """Close the server's end; get exit code, stdout and stderr."""
        self.close()
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors

    def clean_up(self) -> None:
        self.close()
        self.process.kill()
        self.process.communicate()


class WorkerProcessTests(SynchronousTestCase):
    """What only a real process shows."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)

    def _worker(self, signals: Sequence[signal.Signals] = ()) -> WorkerProcess:
        worker = WorkerProcess(self.dir, signals)
        self.addCleanup(worker.clean_up)
        self.assertEqual(worker.hear(), Loaded())
        return worker

    def test_whole_life(self) -> None:
        """A worker loads, answers, and ends with 0 when the server closes its end; prints and logs come out."""
        worker = self._worker()
        self.assertEqual(worker.answer("print('printed') or logging.info('logged') or 'a'"), b"a")
        self.assertEqual(worker.answer("os.getcwd()"), str(self.dir).encode())
        code, output, errors = worker.end()
        self.assertEqual((code, errors), (0, ""))
        lines = [line for line in output.splitlines() if not line.startswith("[METRICS]")]
        self.assertEqual(lines, ["printed", "logged"])

    def test_metrics(self) -> None:
        """Metrics of a batch come with its answer, those of the first and of one that ends the worker on stdout."""
        worker = self._worker()
        emit = "context.metrics.add_counter('A', 1)"
        names = []
        for _ in range(20):
            worker.ask(f"({emit}, 'a')[1]")
            heard = worker.hear()
            assert isinstance(heard, Predicted), heard
            names.append([each.name for each in heard.metrics])
        worker.ask(f"({emit}, sys.exit(0))")
        self.assertIsNone(worker.hear())
        code, output, errors = worker.end()
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(names[0], [])
        # On a busy machine an answer may be late.
        self.assertIn(["A", "PredictionTime"], names)
        printed = output.count("[METRICS]A.Count:1|")
        self.assertEqual(printed + sum(each.count("A") for each in names), 21)
        self.assertTrue(output.splitlines()[-1].startswith("[METRICS]A.Count:1|"))

    def test_metrics_of_the_killed(self) -> None:
        """What a worker emits before it is killed is not lost where its batches take long, nor in its first batch."""
        emit = "context.metrics.add_counter('A', 1)"
        for before in ([], ["'quick'", "'quick'", f"({emit}, time.sleep(0.2), 'slow')[2]"]):
            worker = self._worker()
            for code in before:
                worker.answer(code)
            worker.ask(f"(context.metrics.add_counter('B', 1), os.kill(os.getpid(), {signal.SIGKILL:d}))")
            self.assertIsNone(worker.hear())
            exit_code, output, _errors = worker.end()
            self.assertEqual((exit_code, output.count("[METRICS]B.Count:1|")), (-signal.SIGKILL, 1))

    def test_metrics_of_a_child(self) -> None:
        """A process that the handler forks, and that ends as the handler would, says nothing in its parent's name."""
        worker = self._worker()
        worker.answer("'quick'")
        worker.ask("(context.metrics.add_counter('A', 1), (os.fork() or sys.exit(0)) and os.wait(), 'a')[2]")
        heard = worker.hear()
        assert isinstance(heard, Predicted), heard
        _code, output, errors = worker.end()
        self.assertEqual(errors, "")
        # Printed, if this machine was too busy for the first answer to come soon.
        self.assertEqual([each.name for each in heard.metrics].count("A") + output.count("[METRICS]A."), 1)

    def test_bare(self) -> None:
        """A worker imports neither torch nor Twisted for itself, nor finds modules where the server runs."""
        worker = self._worker()
        names = "sorted({'torch', 'twisted', 'klein', 'numpy', 'hypothesis'} & set(sys.modules))"
        self.assertEqual(worker.answer(names), b"[]")
        self.assertEqual(worker.answer("sys.path[0]"), str(self.dir).encode())
        self.assertNotEqual(worker.answer("sys.path[1]"), str(ROOT).encode())

    def test_load_failed(self) -> None:
        """A handler that does not load is reported, and the worker ends with 1."""
        (self.dir / "h.py").write_text("import nonsense_of_ours\n")
        worker = WorkerProcess(self.dir)
        self.addCleanup(worker.clean_up)
        reason = "ModuleNotFoundError: No module named 'nonsense_of_ours' (h.py, line 1)"
        self.assertEqual(worker.hear(), LoadFailed(500, reason, printed=True))
        self.assertIsNone(worker.hear())
        code, _output, errors = worker.end()
        self.assertEqual(code, 1)
        self.assertIn("Traceback", errors)

    def test_socket_is_private(self) -> None:
        """Programs that a handler starts do not get the worker's socket."""
        worker = self._worker()
        self.assertEqual(
            worker.answer(
                "subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout"
            ),
            worker.answer("subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True).stdout"),
        )

    def test_fork_does_not_hide_death(self) -> None:
        """A process that a handler forks does not keep the socket open when the worker ends."""
        worker = self._worker()
        forked = int(worker.answer("(lambda pid: pid or (os.closerange(0, 3), time.sleep(1000)))(os.fork())"))
        self.addCleanup(os.kill, forked, signal.SIGKILL)
        worker.process.kill()
        self.assertIsNone(worker.hear())

    def test_interrupt(self) -> None:
        """What is sent to all processes of a server does not end a worker, also before it has begun."""
        worker = self._worker(FOR_THE_SERVER)
        for number in FOR_THE_SERVER:
            worker.process.send_signal(number)
        self.assertEqual(worker.answer("'still here'"), b"still here")
        self.assertEqual(str(worker.process.pid).encode(), worker.answer("str(os.getsid(0))"))

    def test_signals_of_children(self) -> None:
        """What a handler forks or starts ends by the signals that a worker leaves to the server."""
        # Where coverage is measured, a fork gets a handler for SIGTERM that is not ours.
        measured = "COVERAGE_PROCESS_CONFIG"
        self.patch(os, "environ", {name: value for name, value in os.environ.items() if name != measured})
        worker = self._worker()
        forked = "(lambda pid: pid and (os.kill(pid, {0}), os.waitpid(pid, 0)[1])[1] or time.sleep(60))(os.fork())"
        started = "(lambda child: (child.send_signal({0}), child.wait())[1])(subprocess.Popen(['sleep', '60']))"
        for number in FOR_THE_SERVER:
            ended = int(worker.answer(f"str({forked.format(int(number))} & 127)"))
            self.assertEqual(number, ended)
            self.assertEqual(-number, int(worker.answer(f"str({started.format(int(number))})")))

    def test_exit(self) -> None:
        """A handler that exits ends the worker, which the server sees."""
        worker = self._worker()
        worker.ask("sys.exit(7)")
        self.assertIsNone(worker.hear())
        self.assertEqual(worker.process.wait(60), 7)

    def test_stream(self) -> None:
        """Chunks come one by one until the server cancels; then the answer."""
        worker = self._worker()
        worker.ask("until_cancelled(context)")
        self.assertEqual(worker.hear(), StreamChunk(1, Item("r1", 200, "", {}, b"more")))
        worker.say(Cancel(["r1"]))
        heard = worker.hear()
        while isinstance(heard, StreamChunk):
            heard = worker.hear()
        assert isinstance(heard, Predicted)
        self.assertEqual(heard.items, [Item("r1", 200, "", {}, b"cancelled")])
        self.assertEqual(worker.answer("context.is_cancelled(0)"), b"false")

    def test_parent_dies(self) -> None:
        """A worker whose server is killed dies, even in the middle of a handler that never returns."""
        if not sys.platform.startswith("linux"):
            self.skipTest("elsewhere a stuck handler ends with its call")
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(self.dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        self.assertEqual(parent.stdout.readline(), "stuck\n")
        handle = os.pidfd_open(worker)
        self.addCleanup(os.close, handle)
        parent.communicate("", timeout=60)
        # A process's descriptor becomes readable when it has ended.
        self.assertTrue(select.select([handle], [], [], 60)[0])
