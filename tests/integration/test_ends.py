# SPDX-License-Identifier: Apache-2.0
"""Tests for what a server makes of signals, however it was started: the table in ``docs/deployment.md``."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.conftest import STARTED

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

TWISTD = str(Path(sys.executable).with_name("twistd"))

# Answers when a file is there, and says by another one that it has begun.
SLOW = """
import os, time

def handle(data, context):
    if data is None:
        return None
    place = bytes(data[0]["body"]).decode()
    open(place + "/begun", "w").close()
    while not os.path.exists(place + "/go"):
        time.sleep(0.02)
    return ["answered"]
"""


def to_process(server: Server, number: signal.Signals) -> None:
    """Signal the server alone."""
    os.kill(server.pid, number)


def to_group(server: Server, number: signal.Signals) -> None:
    """Signal the process group, as a terminal does."""
    os.killpg(os.getpgid(server.pid), number)


def to_each(server: Server, number: signal.Signals) -> None:
    """Signal every process, as ``systemd`` does, the server last."""
    for pid in [*server.workers(), *server.templates(), server.pid]:
        os.kill(pid, number)


def start(server: Server, how: str) -> None:
    """Start a server in one of the ways."""
    words = ["--models", "slow=slow"]
    service = ["twisted-serve", "--ncs", "--model-store", str(server.store), *words]
    if how == "foreground":
        server.start(*words, new_session=True)
    elif how == "start":
        assert server.start_in_background(*words) == 0
        server.learn_ports()
    elif how == "twistd -n":
        server.start(command=[TWISTD, "--nodaemon", "--pidfile=", *service], new_session=True)
    else:
        words = [TWISTD, "--logfile", str(server.output), "--pidfile", str(server.pid_file), *service]
        subprocess.run(words, cwd=server.cwd, env=server.environ, stdout=subprocess.DEVNULL, timeout=40, check=True)
        server.wait_until_started()


def during_a_request(server: Server, send: Callable[[], None]) -> bytes:
    """Signal while a worker is at a request, and return what the client gets."""
    for name in ("begun", "go"):
        (server.temp / name).unlink(missing_ok=True)
    with server.ask("slow", str(server.temp)) as client:
        server.until((server.temp / "begun").exists, "the handler to begin")
        send()
        # What is going to end by it, and should not, has ended then.
        time.sleep(0.3)
        (server.temp / "go").touch()
        return server.read_until(client, b"answered")


@pytest.mark.parametrize(
    ("workers", "send"), [("spawn", to_process), ("fork", to_group), ("fork", to_each), ("spawn", to_each)]
)
def test_group(make_server: MakeServer, workers: str, send: Callable[[Server, signal.Signals], None]) -> None:
    """SIGHUP ends nothing; SIGTERM and SIGINT end a server in order: what was asked is answered, nothing is left."""
    server = make_server({"slow": SLOW}, worker_start=workers)
    start(server, "foreground")
    before = [*server.workers(), *server.templates()]
    assert during_a_request(server, lambda: send(server, SIGHUP)).startswith(b"HTTP/1.1 200 ")
    assert [*server.workers(), *server.templates()] == before
    number = SIGINT if send is to_group else SIGTERM
    assert during_a_request(server, lambda: send(server, number)).startswith(b"HTTP/1.1 200 ")
    assert server.front is not None
    assert server.front.wait(40) == 0
    assert [server.alive(pid) for pid in before] == [False] * len(before)
    server.assert_clean()


@pytest.mark.parametrize(
    ("how", "number"),
    [
        *product(["foreground", "twistd -n"], [SIGTERM, SIGINT, SIGQUIT]),
        *product(["start", "twistd"], [SIGTERM, SIGQUIT]),
    ],
)
def test_end(make_server: MakeServer, how: str, number: signal.Signals) -> None:
    """What ends a server lets it answer, and leaves no process and no file; what does not end it changes nothing."""
    server = make_server({"slow": SLOW})
    start(server, how)
    front, before, keys = server.pid, [*server.workers(), *server.templates()], server.keys()
    for harmless in (SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE):
        os.kill(front, harmless)
    server.key_file.unlink()
    os.kill(front, SIGHUP)
    server.until(server.key_file.exists, "the key file to be written again")
    assert server.keys() == keys
    assert during_a_request(server, lambda: os.kill(front, number)).startswith(b"HTTP/1.1 200 ")
    server.until(lambda: not server.alive(front), "the server to end")
    if server.front is not None:
        # Twisted's programs end by the signal that ended their reactor.
        expected = -number if how == "twistd -n" and number is not SIGQUIT else 0
        assert server.front.wait(40) == expected
    assert [server.alive(pid) for pid in before] == [False] * len(before)
    server.assert_clean()


@pytest.mark.parametrize(("how", "number"), [("foreground", SIGQUIT), ("twistd -n", SIGTERM), ("twistd -n", SIGQUIT)])
def test_second_signal(make_server: MakeServer, how: str, number: signal.Signals) -> None:
    """A second signal ends a server at once that waits for an answer; nothing is left, and nothing is amiss."""
    server = make_server({"slow": SLOW}, shutdown_timeout=60)
    start(server, how)
    before = [*server.workers(), *server.templates()]
    with server.ask("slow", str(server.temp)):
        server.until((server.temp / "begun").exists, "the handler to begin")
        os.kill(server.pid, number)
        server.until(lambda: not server.key_file.exists(), "the server to begin to end")
        began = time.monotonic()
        server.stop(number)
        assert time.monotonic() - began < 30
    assert not any(map(server.alive, before))
    assert "Traceback" not in server.log()
    server.assert_clean()


def test_launcher(make_server: MakeServer) -> None:
    """What ends the command that starts a server ends the server that is not ready."""
    server = make_server({"slow": "import time\ntime.sleep(60)\ndef handle(data, context): pass"})
    with server.output.open("ab") as output:
        words = server.command("--start", "--models", "slow=slow")
        launcher = subprocess.Popen(words, cwd=server.cwd, env=server.environ, stdout=output, stderr=output)
    server.until(lambda: server.key_file.exists() and bool(server.workers()), "a worker that loads")
    front, workers = server.pid, server.workers()
    launcher.send_signal(SIGHUP)
    assert launcher.wait(40) == 130
    assert not any(map(server.alive, [front, *workers]))
    server.assert_clean()


@pytest.mark.parametrize("how", ["foreground", "twistd -n"])
def test_killed(make_server: MakeServer, how: str) -> None:
    """SIGKILL ends all processes with the server; the files stay for the next start to replace."""
    server = make_server({"slow": SLOW})
    start(server, how)
    before = [*server.workers(), *server.templates()]
    with server.ask("slow", str(server.temp)):
        server.until((server.temp / "begun").exists, "the handler to begin")
        server.stop(SIGKILL)
        server.until(lambda: not any(map(server.alive, before)), "the workers' end", 10)
    assert server.key_file.exists()


def test_stopped_by_hand(make_server: MakeServer) -> None:
    """Ctrl-Z stops the server alone; it goes on where it was, and so does what was asked."""
    server = make_server({"slow": SLOW})
    start(server, "foreground")

    def stop_and_go_on() -> None:
        to_group(server, SIGSTOP)
        server.until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED, "the server to stop")
        assert psutil.STATUS_STOPPED not in [psutil.Process(pid).status() for pid in server.workers()]
        to_group(server, SIGCONT)

    assert during_a_request(server, stop_and_go_on).startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0


class Terminal:
    """A terminal, in which a shell runs a script."""

    def __init__(self, server: Server, script: str) -> None:
        self._server = server
        pid, self._ours = pty.fork()
        if pid == 0:
            os.chdir(server.cwd)
            os.execve("/bin/sh", ["sh", "-c", script], server.environ)
        self.pid = pid

    def read_until(self, end: str) -> None:
        """Wait for what is printed there; it is the server's output."""
        with self._server.output.open("ab", buffering=0) as output:
            while end not in self._server.log():
                output.write(os.read(self._ours, 65536).replace(b"\r\n", b"\n"))

    def type(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._ours, keys)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)

    def wait(self) -> None:
        """Wait for what led its session."""
        os.waitpid(self.pid, 0)


def words_of(server: Server, *words: str) -> str:
    """Return a shell command that starts a server."""
    return shlex.join(server.command(*words, "--models", "slow=slow"))


def test_script_in_terminal(make_server: MakeServer) -> None:
    """A server that a script starts in a terminal serves on when script and terminal have ended."""
    server = make_server({"slow": SLOW})
    terminal = Terminal(server, words_of(server, "--start") + "; echo script ends; sleep 60")
    terminal.read_until("script ends")
    server.learn_ports()
    before = server.workers()
    terminal.type(b"\x03")
    terminal.hang_up()
    terminal.wait()
    assert during_a_request(server, lambda: None).startswith(b"HTTP/1.1 200 ")
    assert server.workers() == before
    assert server.run("--stop").returncode == 0
    server.assert_clean()


@pytest.mark.parametrize("nohup", [False, True])
def test_foreground_in_terminal(make_server: MakeServer, nohup: bool) -> None:
    """A server in the foreground of a terminal ends with it, in order; after ``nohup`` it serves on."""
    server = make_server({"slow": SLOW})
    trap = "trap '' HUP; " if nohup else ""
    terminal = Terminal(server, f"{trap}exec {words_of(server, '--foreground')}")
    terminal.read_until(STARTED)
    server.learn_ports()
    workers = server.workers()
    os.kill(server.pid, SIGHUP)
    assert during_a_request(server, terminal.hang_up).startswith(b"HTTP/1.1 200 ")
    if nohup:
        assert during_a_request(server, lambda: None).startswith(b"HTTP/1.1 200 ")
        assert server.workers() == workers
        os.kill(server.pid, SIGTERM)
    terminal.wait()
    assert not any(map(server.alive, workers))
    server.assert_clean()


@pytest.mark.parametrize(
    ("end", "status"),
    [("sys.exit(3)", 3), ("raise RuntimeError('elsewhere')", 1), ("reactor.callLater(0, reactor.stop)", 0)],
)
def test_program_that_just_ends(make_server: MakeServer, end: str, status: int) -> None:
    """A program that ends without stopping its services leaves no file and no process of theirs."""
    server = make_server({"slow": SLOW})
    program = EMBEDDING.replace("END", end)
    done = subprocess.run(
        [sys.executable, "-c", program, str(server.store)],
        cwd=server.cwd,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "there was a key file" in done.stdout
    server.assert_clean()


EMBEDDING = """
import os, sys
from pathlib import Path
from twisted.internet import reactor
from twisted_serve.config.options import ServerOptions
from twisted_serve.service import ModelServer

addresses = {f"{role}_address": "http://127.0.0.1:0" for role in ("inference", "management", "metrics")}
server = ModelServer(reactor, ServerOptions(model_store=Path(sys.argv[1]), load_models="slow=slow", **addresses))
server.startService()
if os.path.exists("key_file.json"):
    print("there was a key file", flush=True)
if os.fork() == 0:
    # A child that ends in the same way takes nothing away.
    sys.exit(0)
os.wait()
assert os.path.exists("key_file.json")
END
reactor.run()
"""
